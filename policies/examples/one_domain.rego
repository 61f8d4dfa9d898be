# METADATA
# title: Whoever has an e-mail address of the company may enter
# description: >-
#   Only an address that the provider has verified counts (email_verified), and only a plain one: a@evil.test@example.com is none.
package examples.one_domain

import data.doorward.user

domains := {"example.com"}

allow if user.email_in(domains)

deny contains "Sign in with your verified address of example.com." if not user.email_in(domains)
