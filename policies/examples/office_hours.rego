# METADATA
# title: Staff in office hours, whoever is on call at any time
# description: The clock is read for each request, so decisions are not cached.
package examples.office_hours

import data.doorward.hours
import data.doorward.user

zone := "Europe/Berlin"

open if {
	hours.on_weekday(zone)
	hours.between(zone, "08:00", "18:30")
}

allow if {
	user.in_group("staff")
	open
}

allow if user.in_group("on-call")

deny contains "This is open from Monday to Friday, 08:00 to 18:30 in Berlin." if {
	not open
	not user.in_group("on-call")
}
