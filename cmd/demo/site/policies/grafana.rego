# METADATA
# title: Who may use Grafana, and as what
# description: >-
#   Grafana's administrators are Admin there and everybody else who may use it is a Viewer. The role goes into the identity JWT as
#   the claim "role".
package grafana

import data.doorward.user

may_use := {"grafana-admins", "engineering", "viewers"}

default allow := false

allow if user.in_any_group(may_use)

deny contains "you are in no group that may use Grafana" if not user.in_any_group(may_use)

default role := "Viewer"

role := "Admin" if user.in_group("grafana-admins")

claims := {"role": role}
