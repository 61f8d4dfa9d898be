package examples.internal_network_test

import data.examples.internal_network as policy

from(address) := {"request": {"client_ip": address}}

test_inside if {
	every address in ["10.1.2.3", "192.0.2.7", "2001:db8::7", "::ffff:10.1.2.3"] {
		policy.allow with input as from(address)
		count(policy.deny) == 0 with input as from(address)
	}
}

test_outside if {
	every address in ["198.51.100.7", "11.0.0.1", "2001:db9::1"] {
		not policy.allow with input as from(address)
		count(policy.deny) == 1 with input as from(address)
	}
}
