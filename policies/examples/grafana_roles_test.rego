package examples.grafana_roles_test

import data.examples.grafana_roles as policy

member(groups) := {"user": {"groups": groups}}

test_the_highest_role_and_every_organisation if {
	policy.claims.grafana == {"role": "Editor", "orgs": ["staff-org"]} with input as member(["engineering"])
	policy.claims.grafana == {"role": "Admin", "orgs": ["operations-org", "staff-org"]} with input as member(["staff", "grafana-admins"])
	policy.allow with input as member(["staff"])
	count(policy.deny) == 0 with input as member(["staff"])
}

test_without_a_role_nobody_enters if {
	not policy.allow with input as member(["sales"])
	policy.deny == {"None of your groups has a role in Grafana."} with input as member(["sales"])
}
