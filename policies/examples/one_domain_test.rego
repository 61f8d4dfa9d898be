package examples.one_domain_test

import data.examples.one_domain as policy

person(email, verified) := {"user": {"email": email, "email_verified": verified}}

test_the_company_may_enter if {
	policy.allow with input as person("Alice@example.com", true)
	count(policy.deny) == 0 with input as person("Alice@example.com", true)
}

test_others_may_not if {
	every email in ["a@example.org", "a@example.com.evil.test", "a@sub.example.com", "a@evil.test@example.com", ""] {
		not policy.allow with input as person(email, true)
		count(policy.deny) == 1 with input as person(email, true)
	}
	not policy.allow with input as person("alice@example.com", false)
}
