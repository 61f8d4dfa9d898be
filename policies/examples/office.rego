# METADATA
# title: Within the office network, or in office hours with a second factor
package examples.office

import data.doorward.hours
import data.doorward.request
import data.doorward.session

allow if request.client_in(["192.0.2.0/24", "2001:db8::/32"])

allow if {
	hours.on_weekday("Europe/Berlin")
	hours.between("Europe/Berlin", "08:00", "18:30")
	session.amr_has_any(["mfa", "otp", "hwk"])
}
