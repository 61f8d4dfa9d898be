package examples.access_table_test

import data.examples.access_table as policy

asks(group, method, path) := {"user": {"groups": [group]}, "request": {"method": method, "path": path}}

# The table that is there.
test_the_table if {
	policy.allow with input as asks("audit", "GET", "/finance/2026")
	not policy.allow with input as asks("audit", "POST", "/finance/2026")
	policy.deny == {"Only finance may change what is below /finance."} with input as asks("audit", "POST", "/finance/2026")
	policy.allow with input as asks("finance", "POST", "/finance/2026")
	count(policy.deny) == 0 with input as asks("finance", "POST", "/finance/2026")
	not policy.allow with input as asks("hr", "GET", "/finance")
	count(policy.deny) == 0 with input as asks("hr", "GET", "/finance")
}

test_what_is_in_no_line_is_closed if {
	not policy.allow with input as asks("finance", "GET", "/")
	not policy.allow with input as asks("finance", "GET", "/finances")
}

# Another table, so that this does not change with the one that is there.
test_a_line_opens_a_path if {
	policy.allow with input as asks("ops", "GET", "/ops/x") with data.access as {"paths": [{"path": "/ops", "readers": ["ops"], "writers": []}]}
	not policy.allow with input as asks("ops", "PUT", "/ops/x") with data.access as {"paths": [{"path": "/ops", "readers": ["ops"], "writers": []}]}
	not policy.allow with input as asks("ops", "GET", "/ops/x") with data.access as {"paths": []}
}
