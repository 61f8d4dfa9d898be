# METADATA
# title: Whoever has a verified e-mail address of the company may enter
package examples.one_domain

import data.doorward.user

allow if user.email_in(["example.com"])
