package xds

import (
	"crypto/tls"
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
)

// noServerName is the secret that a handshake without a server name asks for. It can be no host, so it is never served.
const noServerName = "-"

// addSecret adds the certificate of a host under the host's name, which is what the listener asks for by SNI.
func addSecret(out *Resources, in Input, host string) error {
	chain, key, err := in.Certificate(host)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	// Envoy reads the pair only when the first handshake asks for it: a pair that does not fit must not get that far.
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	return out.add(secretKind, host, &tlsv3.Secret{
		Name: host,
		Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: keyPair(chain, key)},
	})
}

func keyPair(chain, key []byte) *tlsv3.TlsCertificate {
	return &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}
