# METADATA
# title: An API that pages of another host call
# description: >-
#   Browsers ask first, in a preflight without a cookie, so the route needs allow_anonymous: true; unauthenticated: 401 says the rest. The upstream
#   answers preflights (Access-Control-Allow-Origin, and Access-Control-Allow-Credentials for requests with a cookie). Our cookie is sent along
#   only where page and API are on one site, as app.example.com and api.example.com. A preflight passes; what follows it is decided by itself.
package examples.api_cors

import data.doorward.cors
import data.doorward.user

# The API's own pages are among them.
origins := {"https://app.example.com", "https://api.example.com"}

allow if cors.preflight_from(origins)

allow if {
	user.in_group("staff")
	not foreign
}

# A page of another origin may read nothing and, what matters more here, change nothing in a person's name.
foreign if {
	origin := input.request.headers.origin
	not origin in origins
}
