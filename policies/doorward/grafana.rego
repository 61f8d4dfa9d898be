# METADATA
# title: Roles and organisations for Grafana
# description: >-
#   For claims that Grafana reads with role_attribute_path = grafana.role and org_attribute_path = grafana.orgs.
package doorward.grafana

# roles, the highest first. GrafanaAdmin counts as Admin unless Grafana has allow_assign_grafana_admin.
roles := ["GrafanaAdmin", "Admin", "Editor", "Viewer"]

# METADATA
# title: The highest role that the user's groups give
# description: >-
#   groups_by_role is as {"Admin": ["grafana-admins"], "Viewer": ["staff", "guests"]}. "None" when there is no such group, so that it is always
#   defined, and a claim that holds it is.
role(groups_by_role) := highest if {
	held := [name |
		some name in roles
		some group in groups_by_role[name]
		group in input.user.groups
	]
	highest := held[0]
} else := "None"

# METADATA
# title: The organisations that the user's groups give, sorted
# description: >-
#   groups_by_org is as {"Main Org.": ["staff"], "Lab": ["research"]}. Empty when there are none.
orgs(groups_by_org) := sort([org |
	some org, groups in groups_by_org
	count({group | some group in groups; group in input.user.groups}) > 0
])
