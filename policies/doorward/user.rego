# METADATA
# title: The person or program that signed in
# description: >-
#   Helpers over input.user. Without a session input.user is undefined, and so is everything here.
package doorward.user

import data.doorward.fault

# METADATA
# title: The user's e-mail address, in lower case
# description: >-
#   Undefined unless the provider has verified the address and it is a plain one: ASCII, one "@", no spaces, no quotes. An address that
#   programs read differently, such as a@evil.test@example.com, is none, and neither is one that ends in a dot or holds letters that only look
#   like ASCII.
email := lower(input.user.email) if {
	input.user.email_verified == true
	regex.match(`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*$`, input.user.email)
}

# METADATA
# title: The domain of the user's e-mail address, in lower case
# description: Undefined where email is.
email_domain := split(email, "@")[1]

# METADATA
# title: Whether the user's e-mail address is in one of the domains
# description: >-
#   domains is an array or a set. A domain is compared whole and without case: a subdomain is another domain.
email_in(domains) if {
	some domain in domains
	lower(domain) == email_domain
}

email_in(domains) if fault.unless_list("user.email_in", domains)

# METADATA
# title: Whether the user is in the group
# description: Names are compared whole and with case, spaces and slashes included.
in_group(group) if group in input.user.groups

# METADATA
# title: Whether the user is in at least one of the groups
# description: groups is an array or a set.
in_any_group(groups) if {
	some group in groups
	group in input.user.groups
}

in_any_group(groups) if fault.unless_list("user.in_any_group", groups)

# METADATA
# title: Whether the user is in every one of the groups
# description: >-
#   groups is an array or a set. False when it is empty, so that a list emptied by mistake lets nobody in.
in_all_groups(groups) if {
	count(groups) > 0
	every group in groups {
		group in input.user.groups
	}
}

in_all_groups(groups) if fault.unless_list("user.in_all_groups", groups)

# METADATA
# title: Whether a claim of the provider's has the value
# description: >-
#   Types count: the claim "3" is not 3, and ["x"] is not "x". Reads all claims, for the name is an argument; input.user.claims.department == "x"
#   reads one.
claim_is(name, value) if input.user.claims[name] == value

# METADATA
# title: Whether a claim that is an array holds the value
# description: >-
#   A claim of another type holds nothing: "admin" does not hold for "administrator", nor for {"team": "admin"}. Reads all claims.
claim_has(name, value) if {
	is_array(input.user.claims[name])
	value in input.user.claims[name]
}
