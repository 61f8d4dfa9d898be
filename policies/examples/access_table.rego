# METADATA
# title: Who may read and write what is in a table beside the policy
# description: >-
#   The table is access/data.yaml, below the directory that the configuration's policies names. What no line of it opens is closed. Those who
#   look after the table need not know Rego, and its changes concern no other policy.
package examples.access_table

import data.access
import data.doorward.request
import data.doorward.user

allow if {
	request.is_read
	some line in access.paths
	request.under(line.path)
	user.in_any_group(line.readers)
}

allow if {
	some line in access.paths
	request.under(line.path)
	user.in_any_group(line.writers)
}

deny contains sprintf("Only %s may change what is below %s.", [concat(", ", line.writers), line.path]) if {
	not request.is_read
	some line in access.paths
	request.under(line.path)
	not user.in_any_group(line.writers)
}
