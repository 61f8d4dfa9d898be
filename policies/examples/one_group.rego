# METADATA
# title: One group may enter
# description: >-
#   The groups are those that the provider puts into the claim groups (or the one that idp.groups_claim names). The reason is shown to who is
#   denied, so it says what to do.
package examples.one_group

import data.doorward.user

allow if user.in_group("engineering")

deny contains "You are not in the group engineering. Ask its owner to add you." if not user.in_group("engineering")
