package doorward.certificate_test

import data.doorward.certificate

shows(parts) := {"client_certificate": parts}

test_fingerprint if {
	certificate.fingerprint_in(["AB:CD:EF:01"]) with input as shows({"fingerprint": "abcdef01"})
	certificate.fingerprint_in({"0000", "abcdef01"}) with input as shows({"fingerprint": "abcdef01"})
	every other in [[], ["abcdef"], ["abcdef0100"], [""]] {
		not certificate.fingerprint_in(other) with input as shows({"fingerprint": "abcdef01"})
	}
}

test_dns_name if {
	certificate.dns_name_in(["billing.example.com"]) with input as shows({"dns_names": ["a.example.com", "Billing.example.com"]})
	every other in [[], ["example.com"], ["x.billing.example.com"], ["*.example.com"], ["billing.example.com."]] {
		not certificate.dns_name_in(other) with input as shows({"dns_names": ["billing.example.com"]})
	}
	not certificate.dns_name_in(["billing.example.com"]) with input as shows({"dns_names": ["*.example.com"]})
	not certificate.dns_name_in(["billing.example.com"]) with input as shows({"dns_names": []})
}

test_uri if {
	certificate.uri_in(["spiffe://example.com/a"]) with input as shows({"uris": ["https://a", "spiffe://example.com/a"]})
	not certificate.uri_in(["spiffe://example.com/a"]) with input as shows({"uris": ["spiffe://example.com/ab"]})
	not certificate.uri_in([]) with input as shows({"uris": ["spiffe://example.com/a"]})
}

test_spiffe_id if {
	certificate.spiffe_id == "spiffe://example.com/ns/a/sa/b" with input as shows({"uris": ["spiffe://example.com/ns/a/sa/b"]})
	every uris in [
		[],
		["spiffe://example.com/a", "spiffe://example.com/b"],
		["https://example.com/a"],
		["spiffe://example.com"],
		["spiffe://example.com/"],
		["spiffe://example.com//a"],
		["spiffe://user@example.com/a"],
		["spiffe://EXAMPLE.com/a"],
		["spiffe://example.com/a?b"],
		["spiffe://example.com/a\n"],
	] {
		not certificate.spiffe_id with input as shows({"uris": uris})
	}
}

test_issuer if {
	certificate.issuer_in(["CN=Services,O=Example"]) with input as shows({"issuer": "CN=Services,O=Example"})
	not certificate.issuer_in(["CN=Services"]) with input as shows({"issuer": "CN=Services,O=Example"})
	not certificate.issuer_in([]) with input as shows({"issuer": "CN=Services,O=Example"})
}

test_nothing_holds_without_a_certificate if {
	not certificate.fingerprint_in(["", "ab"]) with input as {}
	not certificate.dns_name_in(["", "a"]) with input as {}
	not certificate.uri_in(["", "a"]) with input as {}
	not certificate.spiffe_id with input as {}
	not certificate.issuer_in([""]) with input as {}
}
