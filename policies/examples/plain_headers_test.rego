package examples.plain_headers_test

import data.examples.plain_headers as policy

person(email, verified) := {"user": {"email": email, "email_verified": verified, "groups": ["a", "b"]}}

test_who_it_is_in_plain_headers if {
	policy.allow with input as person("U@example.com", true)
	policy.headers == {"x-webauth-user": "u@example.com", "x-webauth-groups": ["a", "b"]} with input as person("U@example.com", true)
}

test_nobody_without_a_verified_address if not policy.allow with input as person("u@example.com", false)
