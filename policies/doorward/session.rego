# METADATA
# title: How and when the user signed in
# description: >-
#   Helpers over input.session. A provider may not say when or how a person authenticated; then these do not hold.
package doorward.session

# METADATA
# title: Seconds since the person authenticated at the provider
# description: Reads the clock, so decisions of a policy that uses it are not cached.
auth_age := (time.now_ns() / 1000000000) - input.session.auth_time

# METADATA
# title: Whether the person authenticated in the last so many seconds
# description: Reads the clock. An authentication in the future counts as none, except for a minute in which clocks may differ.
authenticated_within(seconds) if {
	auth_age <= seconds
	auth_age >= -60
}

# METADATA
# title: Whether one of the authentication methods was used
# description: >-
#   methods is an array or a set of names as in RFC 8176, for example ["mfa", "hwk"].
amr_has_any(methods) if {
	some method in methods
	method in input.session.amr
}

# METADATA
# title: Whether the authentication context class is one of these
acr_in(classes) if input.session.acr in classes
