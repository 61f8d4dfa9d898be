# METADATA
# title: The person or program that signed in
# description: >-
#   Helpers over input.user. Without a session input.user is undefined, and so is everything here.
package doorward.user

# METADATA
# title: The user's e-mail address, in lower case
# description: >-
#   Undefined unless the provider has verified the address and it is a plain one: ASCII, one "@", no spaces, no quotes. An address that
#   programs read differently, such as a@evil.test@example.com, is none.
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

# METADATA
# title: Whether the user is in the group
in_group(group) if group in input.user.groups

# METADATA
# title: Whether the user is in at least one of the groups
# description: groups is an array or a set.
in_any_group(groups) if {
	some group in groups
	group in input.user.groups
}

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

# METADATA
# title: Whether a claim has the value
claim_is(name, value) if input.user.claims[name] == value

# METADATA
# title: Whether a claim that is an array holds the value
claim_has(name, value) if value in input.user.claims[name]
