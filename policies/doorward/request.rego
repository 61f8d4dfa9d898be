# METADATA
# title: What is asked for
# description: Helpers over input.request.
package doorward.request

import data.doorward.fault

# METADATA
# title: Whether the method only reads
# description: >-
#   GET, HEAD and OPTIONS (RFC 9110, section 9.2.1, without TRACE). A WebSocket begins with GET, so a route on which this tells readers from
#   writers leaves allow_websockets off; and an upstream that takes the method from a header (x-http-method-override) must not get that.
is_read if input.request.method in {"GET", "HEAD", "OPTIONS"}

# METADATA
# title: Whether the method is one of these
# description: methods is an array or a set; methods are in upper case (RFC 9110, section 9.1).
method_in(methods) if input.request.method in methods

method_in(methods) if fault.unless_list("request.method_in", methods)

# METADATA
# title: The segments of the request's path
# description: >-
#   Decoded, without parameters (";x") and without empty ones: /a//b;v=1/%63/ has the segments a, b, c. So a path cannot be spelt in a way
#   that these helpers see and the upstream does not. A path that cannot be decoded denies the request. Case counts.
segments := parts(input.request.path)

# Most paths are plain: nothing in them is escaped, and none has parameters.
parts(path) := [segment | some segment in split(path, "/"); segment != ""] if is_plain(path)

parts(path) := [segment |
	some raw in split(path, "/")
	segment := decoded(split(raw, ";")[0])
	segment != ""
] if not is_plain(path)

is_plain(path) if not regex.match(`[%;\\]`, path)

# A plus sign is itself in a path, but a space for urlquery.decode.
decoded(segment) := urlquery.decode(concat("%2B", split(segment, "+")))

# readings are the ways in which an upstream may take the path: an escaped slash or backslash, which comes here only where the edge keeps
# them (escaped_slashes), is a letter of its segment to one and a separator to another.
readings := {segments, [segment | some segment in split(replace(concat("/", segments), "\\", "/"), "/"); segment != ""]}

# agree holds when every reading is among those that match.
agree(matching) if matching == readings

agree(matching) if {
	count(matching) > 0
	matching != readings
	fault.raise("request.under or request.at: the path holds an escaped slash where it is compared, so upstreams differ about it")
}

wanted(path) := parts(path) if startswith(path, "/")

wanted(path) := fault.raise(sprintf("request.under or request.at: the path '%v' does not begin with a slash", [path])) if not startswith(path, "/")

# METADATA
# title: Whether the path is this one
# description: >-
#   Compared by segments, so a slash at the end makes no difference. path begins with a slash. A request that would be judged otherwise if %2F
#   were a slash is denied.
at(path) if {
	is_plain(input.request.path)
	segments == wanted(path)
}

at(path) if {
	not is_plain(input.request.path)
	whole := wanted(path)
	agree({reading | some reading in readings; reading == whole})
}

# METADATA
# title: Whether the path is this one or below it
# description: >-
#   Compared by whole segments, so /public does not hold for /public-secret; "/" is everything. Otherwise as at.
under(path) if {
	is_plain(input.request.path)
	prefix := wanted(path)
	array.slice(segments, 0, count(prefix)) == prefix
}

under(path) if {
	not is_plain(input.request.path)
	prefix := wanted(path)
	agree({reading | some reading in readings; array.slice(reading, 0, count(prefix)) == prefix})
}

# METADATA
# title: Whether the path is one of these or below one
# description: paths is an array or a set.
under_any(paths) if {
	some path in paths
	under(path)
}

under_any(paths) if fault.unless_list("request.under_any", paths)

# METADATA
# title: Whether this only reads, at or below one of the paths
# description: >-
#   For what strangers may see: allow if request.reads_under_any(["/public"]) on a route with allow_anonymous. paths is an array or a set.
reads_under_any(paths) if {
	is_read
	under_any(paths)
}

# METADATA
# title: Whether the client's address is in one of the ranges
# description: >-
#   ranges is an array or a set of ranges and addresses, as ["192.0.2.0/24", "2001:db8::/32", "198.51.100.7"]. The address is the one that Envoy
#   trusts (trusted_hops). An IPv4 address that is written as IPv6 (::ffff:192.0.2.7) counts as IPv4. A range or an address that is none denies
#   the request.
client_in(ranges) if {
	some range in ranges
	net.cidr_contains(network(range), input.request.client_ip)
}

client_in(ranges) if fault.unless_list("request.client_in", ranges)

network(range) := range if contains(range, "/")

network(range) := concat("", [range, "/32"]) if not regex.match("[/:]", range)

network(range) := concat("", [range, "/128"]) if {
	contains(range, ":")
	not contains(range, "/")
}
