package examples.office_hours_test

import data.examples.office_hours as policy

member(group) := {"user": {"groups": [group]}}

friday_noon := time.parse_rfc3339_ns("2026-01-02T11:00:00Z")

friday_evening := time.parse_rfc3339_ns("2026-01-02T17:30:00Z")

saturday_noon := time.parse_rfc3339_ns("2026-01-03T11:00:00Z")

test_staff_in_office_hours if {
	policy.allow with input as member("staff") with time.now_ns as friday_noon
	count(policy.deny) == 0 with input as member("staff") with time.now_ns as friday_noon
	not policy.allow with input as member("guests") with time.now_ns as friday_noon
}

test_nobody_else_later if {
	every now in [friday_evening, saturday_noon] {
		not policy.allow with input as member("staff") with time.now_ns as now
		count(policy.deny) == 1 with input as member("staff") with time.now_ns as now
	}
}

test_on_call_at_any_time if {
	policy.allow with input as member("on-call") with time.now_ns as saturday_noon
	count(policy.deny) == 0 with input as member("on-call") with time.now_ns as saturday_noon
}
