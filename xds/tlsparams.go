package xds

import (
	"doorward/authz/config"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// Of Mozilla's "Server Side TLS", version 5.8: the groups of every profile, those that withstand a quantum computer first, and the suites of the
// intermediate profile for TLS 1.2, without those that BoringSSL does not have (DHE). The suites of TLS 1.3 cannot be chosen; all are good.
var (
	tlsGroups = []string{"X25519MLKEM768", "X25519", "P-256", "P-384"}
	tlsSuites = []string{
		"ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384",
		"ECDHE-ECDSA-CHACHA20-POLY1305", "ECDHE-RSA-CHACHA20-POLY1305",
	}
)

// tlsParameters are what TLS is spoken with. The client's order of suites does not count, so that a phone without AES in hardware is no reason for
// everybody to have another one; Envoy takes its own first.
func tlsParameters(t config.TLS) *tlsv3.TlsParameters {
	p := &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, EcdhCurves: tlsGroups}
	if t.MinVersion != "1.3" {
		p.TlsMinimumProtocolVersion, p.CipherSuites = tlsv3.TlsParameters_TLSv1_2, tlsSuites
	}
	return p
}
