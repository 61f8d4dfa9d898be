package examples.one_group_test

import data.examples.one_group as policy

member(groups) := {"user": {"groups": groups}}

test_a_member_may_enter if {
	policy.allow with input as member(["staff", "engineering"])
	count(policy.deny) == 0 with input as member(["engineering"])
}

test_others_are_told_whom_to_ask if {
	every groups in [[], ["sales"], ["Engineering"], ["engineering "]] {
		not policy.allow with input as member(groups)
		policy.deny == {"You are not in the group engineering. Ask its owner to add you."} with input as member(groups)
	}
}
