# METADATA
# title: Everybody with a group may enter Grafana; admins are Admin there, the rest Viewer
# description: For Grafana with role_attribute_path = grafana.role.
package examples.grafana

import data.doorward.user

allow if count(input.user.groups) > 0

deny contains "You are in no group. Ask an administrator for access." if count(input.user.groups) == 0

default role := "Viewer"

role := "Admin" if user.in_group("grafana-admins")

claims := {"grafana": {"role": role}}
