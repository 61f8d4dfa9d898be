# METADATA
# title: Only from the internal network
# description: >-
#   Whoever is signed in, from these addresses. Where something before Envoy sets x-forwarded-for, edge.trusted_hops says how many such there
#   are; without that the address is the load balancer's.
package examples.internal_network

import data.doorward.request

ranges := ["10.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]

allow if request.client_in(ranges)

deny contains "This is open from the internal network only. Connect to the VPN and try again." if not request.client_in(ranges)
