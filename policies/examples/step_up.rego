# METADATA
# title: Fresh and strong authentication for /admin
# description: >-
#   Everybody who is signed in may use the rest. The provider must say when and how people authenticate (auth_time and amr; with some it is a
#   setting of the client); what it does not say counts as not done. Where /admin is a route of its own, max_age: 15m and acr_values there need no
#   Rego, and send who has less to sign in again; this is for what depends on more. The policy reads the clock, so its decisions are
#   not cached.
package examples.step_up

import data.doorward.request
import data.doorward.session

allow if input.user

deny contains "Sign out and in again: /admin asks for a sign-in within the last 15 minutes." if {
	request.under("/admin")
	not session.authenticated_within(15 * 60)
}

deny contains "Sign out and in again with your second factor: /admin asks for it." if {
	request.under("/admin")
	not session.amr_has_any(["mfa", "otp", "hwk"])
}
