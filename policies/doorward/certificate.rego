# METADATA
# title: The client's certificate
# description: >-
#   Helpers over input.client_certificate, which is there when the client has shown one in the TLS handshake; Envoy has held it against the CA that
#   the host trusts. Without one nothing here holds. A program that has a certificate and no session needs a route with allow_anonymous.
package doorward.certificate

import data.doorward.fault

# METADATA
# title: Whether the certificate is one of these
# description: fingerprints are SHA-256 in hexadecimal digits, with or without colons, in any case, as openssl x509 -fingerprint -sha256 prints them.
fingerprint_in(fingerprints) if {
	some fingerprint in fingerprints
	lower(replace(fingerprint, ":", "")) == input.client_certificate.fingerprint
}

fingerprint_in(fingerprints) if fault.unless_list("certificate.fingerprint_in", fingerprints)

# METADATA
# title: Whether the certificate is for one of the DNS names
# description: >-
#   Compared whole and without case. A certificate for *.example.com is for that name alone, and for no name below it.
dns_name_in(names) if {
	some name in names
	some own in input.client_certificate.dns_names
	lower(name) == lower(own)
}

dns_name_in(names) if fault.unless_list("certificate.dns_name_in", names)

# METADATA
# title: Whether the certificate is for one of the URIs
# description: Compared whole and with case.
uri_in(uris) if {
	some uri in uris
	uri in input.client_certificate.uris
}

uri_in(uris) if fault.unless_list("certificate.uri_in", uris)

# METADATA
# title: The SPIFFE id, as spiffe://example.com/billing
# description: >-
#   Undefined unless the certificate has exactly one URI and that is a SPIFFE id (X509-SVID, section 2).
spiffe_id := id if {
	[id] := input.client_certificate.uris
	regex.match(`^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$`, id)
}

# METADATA
# title: Whether the certificate is from one of the issuers
# description: >-
#   issuers are distinguished names as RFC 2253 writes them, as "CN=Services,O=Example". A name alone proves nothing: that Envoy trusts the issuer does.
issuer_in(issuers) if input.client_certificate.issuer in issuers

issuer_in(issuers) if fault.unless_list("certificate.issuer_in", issuers)
