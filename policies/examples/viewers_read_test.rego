package examples.viewers_read_test

import data.examples.viewers_read as policy

asks(groups, method) := {"user": {"groups": groups}, "request": {"method": method}}

test_viewers_read if {
	every method in ["GET", "HEAD"] {
		policy.allow with input as asks(["viewers"], method)
		count(policy.deny) == 0 with input as asks(["viewers"], method)
	}
}

test_viewers_do_not_write if {
	every method in ["POST", "PUT", "PATCH", "DELETE", "get"] {
		not policy.allow with input as asks(["viewers"], method)
		some reason in policy.deny with input as asks(["viewers"], method)
		startswith(reason, "Only admins may change anything here.")
	}
}

test_admins_do_both if {
	every method in ["GET", "POST", "DELETE"] {
		policy.allow with input as asks(["admins"], method)
		count(policy.deny) == 0 with input as asks(["admins"], method)
	}
}

test_others_are_told if {
	not policy.allow with input as asks(["sales"], "GET")
	policy.deny == {"You are not among the viewers. Ask your team's lead to add you."} with input as asks(["sales"], "GET")
	count(policy.deny) == 1 with input as asks(["sales"], "POST")
}

test_the_method_cannot_be_another_to_the_application if "x-http-method-override" in policy.remove_headers with input as asks(["viewers"], "GET")
