# METADATA
# title: Viewers read, only admins write
# description: >-
#   The route leaves allow_websockets off, since a WebSocket begins with GET. What the person is told says why and what to do.
package examples.viewers_read

import data.doorward.request
import data.doorward.user

allow if {
	request.is_read
	user.in_group("viewers")
}

allow if user.in_group("admins")

deny contains "Only admins may change anything here. Ask in the channel of the platform team to become one." if {
	not request.is_read
	not user.in_group("admins")
}

deny contains "You are not among the viewers. Ask your team's lead to add you." if {
	request.is_read
	not user.in_any_group(["viewers", "admins"])
}

# Some frameworks take the method from one of these headers, and so would write for a viewer's GET.
remove_headers := {"x-http-method", "x-http-method-override", "x-method-override"}
