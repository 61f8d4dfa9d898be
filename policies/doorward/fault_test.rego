package doorward.fault_test

import data.doorward.fault

# That raise fails cannot be told here: what fails is undefined to a test, and denies in a policy.
test_raise_gives_no_value if not fault.raise("x")

test_lists_are_no_mistake if {
	every list in [[], ["a"], set(), {"a"}] {
		not fault.unless_list("here", list)
	}
}
