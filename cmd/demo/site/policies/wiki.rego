# METADATA
# title: Everybody of the company reads the wiki, engineering changes it
package wiki

import data.doorward.user

reading if input.request.method in {"GET", "HEAD"}

allow if {
	reading
	user.email_in({"example.com"})
}

allow if user.in_group("engineering")

deny contains "only engineering may change the wiki" if {
	not reading
	not user.in_group("engineering")
}
