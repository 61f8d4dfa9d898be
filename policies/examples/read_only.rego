# METADATA
# title: Viewers read, admins write, the public part is open
# description: The route needs allow_anonymous, because strangers may see the public part.
package examples.read_only

import data.doorward.request
import data.doorward.user

allow if {
	request.is_read
	request.under_any(["/public", "/healthz"])
}

allow if {
	request.is_read
	user.in_group("viewers")
}

allow if user.in_group("admins")

deny contains "Only admins may change anything here." if {
	input.user
	not request.is_read
	not user.in_group("admins")
}
