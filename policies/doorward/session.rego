# METADATA
# title: How and when the user signed in
# description: >-
#   Helpers over input.session. A provider may not say when or how a person authenticated; then these do not hold. They judge what was when the
#   session began: a person who has authenticated again at the provider signs out and in to be judged anew.
package doorward.session

import data.doorward.fault

# METADATA
# title: Seconds since the person authenticated at the provider
# description: Reads the clock, so decisions of a policy that uses it are not cached. Undefined when the provider did not say (auth_time).
auth_age := (time.now_ns() / 1000000000) - input.session.auth_time

# METADATA
# title: Whether the person authenticated in the last so many seconds
# description: >-
#   Reads the clock. An authentication in the future counts as none, except for a minute in which clocks may differ. seconds is a number: a
#   string, as labels are, fails and denies, for to Rego every number is less than any string.
authenticated_within(seconds) if {
	is_number(seconds)
	auth_age <= seconds
	auth_age >= -60
}

authenticated_within(seconds) if {
	not is_number(seconds)
	fault.raise(sprintf("session.authenticated_within: %v is no number of seconds", [seconds]))
}

# METADATA
# title: Whether one of the authentication methods was used
# description: >-
#   methods is an array or a set of names as in RFC 8176, for example ["mfa", "otp", "hwk"]. Which names there are is the provider's choice.
amr_has_any(methods) if {
	some method in methods
	method in input.session.amr
}

amr_has_any(methods) if fault.unless_list("session.amr_has_any", methods)

# METADATA
# title: Whether the authentication context class is one of these
# description: classes is an array or a set. Classes have no order, so name each that is good enough (OpenID Connect Core 1.0, section 2).
acr_in(classes) if input.session.acr in classes

acr_in(classes) if fault.unless_list("session.acr_in", classes)
