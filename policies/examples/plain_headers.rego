# METADATA
# title: Plain headers for an upstream that reads no JWT
# description: Whatever the client sends in these headers is replaced, for it is set on every request that passes.
package examples.plain_headers

import data.doorward.user

allow if user.email

headers := {
	"x-webauth-user": user.email,
	"x-webauth-groups": input.user.groups,
}

response_headers := {"x-frame-options": "DENY"}
