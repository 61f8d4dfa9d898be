# METADATA
# title: Preflights of cross-origin requests
# description: >-
#   A browser asks before a cross-origin request that is not simple (Fetch, "CORS-preflight request"), and does so without a cookie. So a route
#   whose preflights shall pass needs allow_anonymous, and the upstream answers them. What follows a preflight is decided by itself.
package doorward.cors

import data.doorward.fault

# METADATA
# title: Whether this is a preflight
# description: >-
#   An OPTIONS request with one Origin (scheme, host and port, as browsers write it; not "null") and one method in
#   Access-Control-Request-Method, as browsers send it: without a session, without Authorization, and without a header by which an upstream may
#   take it for another method.
is_preflight if {
	input.request.method == "OPTIONS"
	regex.match(`^https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:[0-9]{1,5})?$`, input.request.headers.origin)
	regex.match("^[A-Za-z]+$", input.request.headers["access-control-request-method"])
	not input.user
	not carries_more
}

carries_more if input.request.headers.authorization

carries_more if input.request.headers["x-http-method"]

carries_more if input.request.headers["x-http-method-override"]

carries_more if input.request.headers["x-method-override"]

# METADATA
# title: Whether this is a preflight of one of the origins
# description: origins is an array or a set, as ["https://app.example.com"]. They are compared whole; a port belongs to them, a slash at the end does not.
preflight_from(origins) if {
	is_preflight
	input.request.headers.origin in origins
}

preflight_from(origins) if fault.unless_list("cors.preflight_from", origins)
