package doorward.request_test

import data.doorward.request

path(p) := {"request": {"path": p, "method": "GET", "headers": {}}}

test_is_read if {
	every method in ["GET", "HEAD", "OPTIONS"] {
		request.is_read with input as {"request": {"method": method}}
	}
	every method in ["POST", "DELETE", "get", "TRACE", "PROPFIND", ""] {
		not request.is_read with input as {"request": {"method": method}}
	}
}

test_method_in if {
	request.method_in(["GET"]) with input as path("/")
	not request.method_in({"POST"}) with input as path("/")
}

test_segments if {
	request.segments == [] with input as path("/")
	request.segments == ["a", "b", "c"] with input as path("/a//b;v=1/%63/")
	request.segments == ["a+b", "c d", "e+f g"] with input as path("/a+b/c%20d/e+f%20g")
	request.segments == ["a/b"] with input as path("/a%2Fb")
}

test_at if {
	request.at("/healthz") with input as path("/healthz")
	request.at("/healthz") with input as path("/healthz/")
	request.at("/healthz/") with input as path("/healthz;x=1")
	not request.at("/healthz") with input as path("/healthz/a")
	not request.at("/healthz") with input as path("/healthzz")
	request.at("/") with input as path("/")
	not request.at("/") with input as path("/a")
}

test_under_whole_segments if {
	request.under("/public") with input as path("/public")
	request.under("/public") with input as path("/public/")
	request.under("/public/") with input as path("/public/a/b")
	not request.under("/public") with input as path("/public-secret")
	not request.under("/public") with input as path("/publi")
	not request.under("/public") with input as path("/a/public")
	not request.under("/public/a") with input as path("/public")
}

test_under_sees_through_spelling if {
	every spelling in ["/admin;x/y", "/%61dmin/y", "/adm%69n", "//admin/y", "/admin/;/y"] {
		request.under("/admin") with input as path(spelling)
	}
}

test_under_the_root_is_everything if {
	request.under("/") with input as path("/")
	request.under("/") with input as path("/a")
}

test_under_any if {
	request.under_any(["/a", "/b"]) with input as path("/b/c")
	request.under_any({"/a"}) with input as path("/a")
	not request.under_any(["/a", "/b"]) with input as path("/c")
	not request.under_any([]) with input as path("/c")
}

from(ip) := {"request": {"client_ip": ip}}

test_client_in if {
	request.client_in(["10.0.0.0/8", "192.0.2.0/24"]) with input as from("192.0.2.7")
	request.client_in(["2001:db8::/32"]) with input as from("2001:db8::1")
	not request.client_in(["10.0.0.0/8"]) with input as from("192.0.2.7")
	not request.client_in([]) with input as from("192.0.2.7")
}

preflight(headers) := {"request": {"method": "OPTIONS", "headers": headers}}

test_is_preflight if {
	request.is_preflight with input as preflight({"origin": "https://a.test", "access-control-request-method": "PUT"})
	not request.is_preflight with input as preflight({"origin": "https://a.test"})
	not request.is_preflight with input as preflight({"access-control-request-method": "PUT"})
	not request.is_preflight with input as object.union(
		preflight({"origin": "https://a.test", "access-control-request-method": "PUT"}),
		{"request": {"method": "GET"}},
	)
}
