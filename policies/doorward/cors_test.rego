package doorward.cors_test

import data.doorward.cors

asks(headers) := {"request": {"method": "OPTIONS", "headers": headers}}

origin := "https://app.example.com"

ordinary := {"origin": origin, "access-control-request-method": "PUT"}

also(headers) := asks(object.union(ordinary, headers))

test_a_preflight if {
	cors.is_preflight with input as asks(ordinary)
	cors.is_preflight with input as also({"access-control-request-headers": "content-type"})
	every origin in ["http://app.localhost:8443", "https://[2001:db8::1]:443"] {
		cors.is_preflight with input as also({"origin": origin})
	}
}

test_both_headers_are_needed if {
	not cors.is_preflight with input as asks({"origin": origin})
	not cors.is_preflight with input as asks({"access-control-request-method": "PUT"})
	not cors.is_preflight with input as asks({})
	not cors.is_preflight with input as {}
}

test_only_options if {
	every method in ["GET", "POST", "options", "PUT", ""] {
		not cors.is_preflight with input as {"request": {"method": method, "headers": ordinary}}
	}
}

test_one_origin_as_browsers_write_it if {
	every other in ["", "null", "https://app.example.com,https://evil.test", "https://APP.example.com", "https://app.example.com/", "app.example.com", "https://"] {
		not cors.is_preflight with input as also({"origin": other})
	}
}

test_one_method if {
	every other in ["", "PUT,DELETE", "PUT, DELETE", "P T"] {
		not cors.is_preflight with input as also({"access-control-request-method": other})
	}
}

# What acts with somebody's rights, or as another method, is no preflight.
test_nothing_more if {
	every name in ["authorization", "x-http-method", "x-http-method-override", "x-method-override"] {
		not cors.is_preflight with input as also({name: "DELETE"})
		not cors.preflight_from([origin]) with input as also({name: "DELETE"})
	}
	not cors.is_preflight with input as object.union(asks(ordinary), {"user": {"id": "u"}})
}

test_preflight_from if {
	cors.preflight_from([origin, "https://b.test"]) with input as asks(ordinary)
	cors.preflight_from({origin}) with input as asks(ordinary)
	every others in [[], ["https://example.com"], ["https://app.example.com:8443"], ["http://app.example.com"], ["https://app.example.com/"], ["*"]] {
		not cors.preflight_from(others) with input as asks(ordinary)
	}
	not cors.preflight_from(["null"]) with input as also({"origin": "null"})
	not cors.preflight_from([origin]) with input as {"request": {"method": "POST", "headers": ordinary}}
}
