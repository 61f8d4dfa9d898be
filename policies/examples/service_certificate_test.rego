package examples.service_certificate_test

import data.examples.service_certificate as policy

service(name, method, path) := {
	"request": {"method": method, "path": path},
	"client_certificate": {"uris": [concat("", ["spiffe://example.com/", name])]},
}

test_a_service_calls_what_it_may if {
	policy.allow with input as service("billing", "POST", "/api/invoices/1")
	policy.allow with input as service("mailer", "GET", "/api/customers")
	not policy.remove_headers with input as service("mailer", "GET", "/api/customers")
	policy.headers == {"x-service": "spiffe://example.com/mailer"} with input as service("mailer", "GET", "/api/customers")
}

test_a_service_calls_nothing_else if {
	not policy.allow with input as service("mailer", "POST", "/api/invoices/1")
	not policy.allow with input as service("billing", "GET", "/")
	not policy.allow with input as service("other", "GET", "/api/customers")
}

test_nobody_without_a_certificate if {
	stranger := {"request": {"method": "GET", "path": "/api/customers"}}
	not policy.allow with input as stranger
	not policy.headers with input as stranger
	policy.remove_headers == {"x-service"} with input as stranger
}

test_staff_look if {
	person := {"user": {"groups": ["staff"]}, "request": {"method": "GET", "path": "/"}}
	policy.allow with input as person
	not policy.allow with input as object.union(person, {"request": {"method": "POST", "path": "/"}})
}
