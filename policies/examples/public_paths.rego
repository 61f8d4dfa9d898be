# METADATA
# title: A part is open to strangers, the rest to the staff
# description: >-
#   The route needs allow_anonymous: true, or no rule runs without a session. A stranger who asks for the rest is sent to sign in. A route of its
#   own with prefix: /public and policy: public does the same without Rego.
package examples.public_paths

import data.doorward.request
import data.doorward.user

allow if request.reads_under_any(["/public", "/healthz"])

allow if user.in_group("staff")
