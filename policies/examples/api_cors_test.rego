package examples.api_cors_test

import data.examples.api_cors as policy

app := "https://app.example.com"

asks(method, headers) := {"request": {"method": method, "headers": headers}}

staff(method, headers) := object.union(asks(method, headers), {"user": {"groups": ["staff"]}})

test_a_preflight_of_the_app_passes if policy.allow with input as asks("OPTIONS", {"origin": app, "access-control-request-method": "PUT"})

test_no_other_preflight_does if {
	not policy.allow with input as asks("OPTIONS", {"origin": "https://evil.test", "access-control-request-method": "PUT"})
	not policy.allow with input as asks("OPTIONS", {"origin": app})
	not policy.allow with input as asks("OPTIONS", {})
}

test_nothing_else_passes_as_a_preflight if {
	preflight := {"origin": app, "access-control-request-method": "PUT"}
	every method in ["GET", "PUT", "DELETE", "POST"] {
		not policy.allow with input as asks(method, preflight)
	}
	not policy.allow with input as asks("OPTIONS", object.union(preflight, {"x-http-method-override": "DELETE"}))
}

test_staff_from_the_app_or_without_an_origin if {
	policy.allow with input as staff("PUT", {"origin": app})
	policy.allow with input as staff("GET", {})
	not policy.allow with input as staff("PUT", {"origin": "https://evil.test"})
	not policy.allow with input as staff("PUT", {"origin": "null"})
}
