# METADATA
# title: Role and organisations in Grafana from groups
# description: For Grafana with role_attribute_path = grafana.role and org_attribute_path = grafana.orgs.
package examples.grafana_roles

import data.doorward.grafana

role := grafana.role({
	"Admin": ["grafana-admins"],
	"Editor": ["engineering"],
	"Viewer": ["staff"],
})

orgs := grafana.orgs({
	"Main Org.": ["staff", "engineering"],
	"Operations": ["grafana-admins"],
})

allow if role != "None"

claims := {"grafana": {"role": role, "orgs": orgs}}
