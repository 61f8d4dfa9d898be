package examples.access_log_test

import data.examples.access_log as policy

person(groups) := {"user": {"id": "f81d4fae", "email": "u@example.com", "groups": groups}}

test_subject_and_tier if {
	policy.metadata == {"subject": "f81d4fae", "tier": "gold"} with input as person(["gold-customers"])
	policy.metadata == {"subject": "f81d4fae", "tier": "standard"} with input as person([])
}

test_no_address_in_logs if not contains(json.marshal(policy.metadata), "@") with input as person([])
