# METADATA
# title: Mistakes in a policy that must not pass unseen
# description: >-
#   A call that fails denies the request and is named in the log. An undefined one would be silent, and in a deny rule it would let the request
#   pass. The other packages use this where an argument cannot be meant; a policy may too.
package doorward.fault

# METADATA
# title: Fails, with a message for the log
# description: The request is denied, and the log and doorward explain show the message.
raise(message) := to_number(concat(" ", ["policy mistake:", message]))

# METADATA
# title: Fails when the value is neither an array nor a set, and is undefined otherwise
# description: place says where, as "user.in_any_group".
unless_list(place, value) := raise(sprintf("%s: must be given an array or a set, not %v", [place, value])) if {
	not is_array(value)
	not is_set(value)
}
