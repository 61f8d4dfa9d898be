# METADATA
# title: One group may enter
package examples.one_group

import data.doorward.user

allow if user.in_group("engineering")

deny contains "You are not in the group engineering. Ask its owner to add you." if not user.in_group("engineering")
