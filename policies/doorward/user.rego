# METADATA
# title: The person or program that signed in
# description: >-
#   Helpers over input.user. Without a session input.user is undefined, and so is everything here.
package doorward.user

# METADATA
# title: The domain of the user's verified e-mail address, in lower case
# description: >-
#   Undefined unless the provider says that the address is verified and the address is plain: one "@", ASCII, no spaces and
#   no quotes. So a@evil.test@example.com has no domain.
email_domain := split(email, "@")[1]

# METADATA
# title: The user's verified e-mail address, in lower case
# description: Undefined unless it is verified and plain, as for email_domain.
email := lower(input.user.email) if {
	input.user.email_verified == true
	regex.match(`^[A-Za-z0-9.!#$%&'*+/=?^_{|}~-]+@[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*$`, input.user.email)
}

# METADATA
# title: Whether the verified e-mail address is in one of the domains
# description: Domains compare whole and without case; a subdomain is another domain.
email_in(domains) if {
	some domain in domains
	lower(domain) == email_domain
}

# METADATA
# title: Whether the user is in one of the groups
in_group(group) if group in input.user.groups

# METADATA
# title: Whether the user is in at least one of the groups
in_any_group(groups) if {
	some group in groups
	group in input.user.groups
}

# METADATA
# title: Whether the user is in every one of the groups
# description: False for an empty collection, so that a list that was emptied by mistake lets nobody in.
in_all_groups(groups) if {
	count(groups) > 0
	every group in groups {
		group in input.user.groups
	}
}
