# METADATA
# title: Denials in a form of the application's own
# description: >-
#   Who opens a page of billing without access is sent to where one asks for it; a script or form gets JSON in the shape that the application
#   knows. What is below /internal does not exist for others: there a denial is a 404 without a redirect. Members notice nothing of all this.
package examples.custom_denial

import data.doorward.request
import data.doorward.user

member if user.in_any_group(["billing", "finance"])

hidden if {
	request.under("/internal")
	not user.in_group("finance")
}

allow if {
	member
	not hidden
}

deny contains "You have no access to billing." if not member

redirect := concat("", ["https://access.example.com/request?app=", urlquery.encode(input.route.name)]) if {
	not member
	not hidden
}

status := 404 if hidden

body := {"code": "not_found"} if hidden

else := {"code": "no_access", "help": "https://access.example.com/"}

response_headers := {"x-denied-by": "billing"} if not member
