# METADATA
# title: A service with a certificate calls the API, people of the staff may look
# description: >-
#   A service has no session, so the route needs allow_anonymous: true; unauthenticated: 401 fits an API. The host must ask for client certificates.
#   The upstream learns by a header which service it is; a person is in the identity JWT.
package examples.service_certificate

import data.doorward.certificate
import data.doorward.request
import data.doorward.user

# What each service may call.
services := {
	"spiffe://example.com/billing": ["/api/invoices", "/api/customers"],
	"spiffe://example.com/mailer": ["/api/customers"],
}

allow if request.under_any(services[certificate.spiffe_id])

allow if {
	request.is_read
	user.in_group("staff")
}

headers := {"x-service": certificate.spiffe_id}

# Without a certificate nobody may say so.
remove_headers := {"x-service"} if not certificate.spiffe_id
