package examples.custom_denial_test

import data.examples.custom_denial as policy

asks(group, path) := {"user": {"groups": [group]}, "request": {"path": path}, "route": {"name": "billing & more"}}

test_members_enter if {
	policy.allow with input as asks("billing", "/invoices")
	count(policy.deny) == 0 with input as asks("billing", "/invoices")
	not policy.response_headers with input as asks("billing", "/invoices")
	not policy.redirect with input as asks("billing", "/invoices")
	not policy.status with input as asks("billing", "/invoices")
	policy.allow with input as asks("finance", "/internal")
}

test_others_are_sent_to_ask_for_access if {
	not policy.allow with input as asks("sales", "/invoices")
	policy.deny == {"You have no access to billing."} with input as asks("sales", "/invoices")
	policy.redirect == "https://access.example.com/request?app=billing+%26+more" with input as asks("sales", "/invoices")
	policy.body.code == "no_access" with input as asks("sales", "/invoices")
	not policy.status with input as asks("sales", "/invoices")
	policy.response_headers == {"x-denied-by": "billing"} with input as asks("sales", "/invoices")
}

test_what_is_internal_does_not_exist_for_others if {
	every group in ["sales", "billing"] {
		not policy.allow with input as asks(group, "/internal/x")
		policy.status == 404 with input as asks(group, "/internal/x")
		policy.body == {"code": "not_found"} with input as asks(group, "/internal/x")
		not policy.redirect with input as asks(group, "/internal/x")
	}
}
