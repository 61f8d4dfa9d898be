# METADATA
# title: What is asked for
# description: Helpers over input.request.
package doorward.request

# METADATA
# title: Whether the method only reads
# description: GET, HEAD and OPTIONS (RFC 9110, section 9.2.1, without TRACE).
is_read if input.request.method in {"GET", "HEAD", "OPTIONS"}

# METADATA
# title: Whether the method is one of these
# description: Methods are in upper case (RFC 9110, section 9.1).
method_in(methods) if input.request.method in methods

# METADATA
# title: The segments of the request's path
# description: >-
#   Decoded, without parameters (";x") and without empty ones: /a//b;v=1/%63/ has the segments a, b, c. So a path cannot be spelt in a way
#   that these helpers see and the upstream does not. A path that cannot be decoded denies the request.
segments := parts(input.request.path)

parts(path) := [segment |
	some raw in split(path, "/")
	segment := decoded(split(raw, ";")[0])
	segment != ""
]

decoded(segment) := segment if not contains(segment, "%")

# A plus sign is itself in a path, but a space for urlquery.decode.
decoded(segment) := urlquery.decode(concat("%2B", split(segment, "+"))) if contains(segment, "%")

# METADATA
# title: Whether the path is this one
# description: Compared by segments, so a slash at the end makes no difference.
at(path) if segments == parts(path)

# METADATA
# title: Whether the path is this one or below it
# description: Compared by whole segments, so /public does not hold for /public-secret.
under(path) if {
	prefix := parts(path)
	array.slice(segments, 0, count(prefix)) == prefix
}

# METADATA
# title: Whether the path is one of these or below one
# description: paths is an array or a set.
under_any(paths) if {
	some path in paths
	under(path)
}

# METADATA
# title: Whether the client's address is in one of the ranges
# description: >-
#   ranges is an array or a set, as ["192.0.2.0/24", "2001:db8::/32"]. The address is the one that Envoy trusts (trusted_hops). A range that
#   is none denies the request.
client_in(ranges) if {
	some range in ranges
	net.cidr_contains(range, input.request.client_ip)
}

# METADATA
# title: Whether this is a CORS preflight
# description: >-
#   An OPTIONS request with Origin and Access-Control-Request-Method (Fetch, "CORS-preflight request"). It carries no cookie, so a route whose
#   preflights shall pass needs allow_anonymous.
is_preflight if {
	input.request.method == "OPTIONS"
	input.request.headers.origin != ""
	input.request.headers["access-control-request-method"] != ""
}
