# METADATA
# title: Role and organisations in Grafana from groups
# description: >-
#   For Grafana with role_attribute_path = grafana.role, org_attribute_path = grafana.orgs, and an org_mapping that says what role these names
#   have where, as "staff-org:Main Org.:Viewer". Who has no role is not let in.
package examples.grafana_roles

import data.doorward.grafana

role := grafana.role({
	"Admin": ["grafana-admins"],
	"Editor": ["engineering"],
	"Viewer": ["staff"],
})

orgs := grafana.orgs({
	"staff-org": ["staff", "engineering"],
	"operations-org": ["grafana-admins"],
})

allow if role != "None"

deny contains "None of your groups has a role in Grafana." if role == "None"

claims := {"grafana": {"role": role, "orgs": orgs}}
