# METADATA
# title: One group may enter
package examples.one_group

import data.doorward.user

allow if user.in_group("engineering")
