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
// There is none while the first certificate is awaited: whoever asks is told so at once.
func (s siteInput) addSecret(out *Resources) error {
	if len(s.chain) == 0 {
		return nil
	}
	// Envoy reads the pair only when the first handshake asks for it: a pair that does not fit must not get that far.
	if _, err := tls.X509KeyPair(s.chain, s.key); err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	pair := keyPair(s.chain, s.key)
	if len(s.staple) > 0 {
		pair.OcspStaple = inline(s.staple)
	}
	return out.add(secretKind, s.host, &tlsv3.Secret{Name: s.host, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: pair}})
}

func keyPair(chain, key []byte) *tlsv3.TlsCertificate {
	return &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)}
}

func inline(data []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: data}}
}
