package examples.grafana_test

import data.examples.grafana as policy

member(groups) := {"user": {"groups": groups}}

test_admins_are_admin if {
	policy.allow with input as member(["staff", "grafana-admins"])
	policy.claims == {"grafana": {"role": "Admin"}} with input as member(["staff", "grafana-admins"])
}

test_the_rest_are_viewers if {
	policy.allow with input as member(["staff"])
	count(policy.deny) == 0 with input as member(["staff"])
	policy.claims == {"grafana": {"role": "Viewer"}} with input as member(["staff"])
}

test_who_is_in_no_group_is_told if {
	not policy.allow with input as member([])
	policy.deny == {"You are in no group. Ask an administrator for access."} with input as member([])
}
