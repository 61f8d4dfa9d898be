package cert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
)

// ErrPending is what a Source says of a host whose first certificate is awaited. Everything else of the host can be served already.
var ErrPending = errors.New("its first certificate is awaited")

// Where a certificate comes from: Pair.Source.
const (
	FromFile    = "file"
	FromLocalCA = "local_ca"
	FromACME    = "acme"
)

// Pair is a certificate with its chain and its key. They belong together and parse. Immutable.
type Pair struct {
	Chain  []byte // PEM, the host's own certificate first
	Key    []byte // PEM
	Staple []byte // OCSP response in DER; nil for none
	Leaf   *x509.Certificate
	Source string // FromFile, FromLocalCA or FromACME
}

// NewPair proves that a PEM chain and key parse and belong together.
func NewPair(chain, key []byte, source string) (Pair, error) {
	parsed, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Chain: chain, Key: key, Leaf: parsed.Leaf, Source: source}, nil
}

// Covers says why a client would not take the certificate for a host, whatever the time is; nil when it would.
func (p Pair) Covers(host string) error {
	if err := p.Leaf.VerifyHostname(host); err != nil {
		return fmt.Errorf("the certificate is for another host than %s: %w", host, err)
	}
	return nil
}

// Equal says whether a client would be sent the same.
func (p Pair) Equal(other Pair) bool {
	return bytes.Equal(p.Chain, other.Chain) && bytes.Equal(p.Key, other.Key) && bytes.Equal(p.Staple, other.Staple)
}

// The TLS feature extension and the feature that makes a staple compulsory: RFC 7633, sections 4.1 and 6.
var tlsFeature = asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 24}

const statusRequest = 5

// LacksStaple says that clients refuse the certificate because it promises a stapled OCSP response and there is none.
func (p Pair) LacksStaple() bool {
	if p.Leaf == nil || len(p.Staple) > 0 {
		return false
	}
	for _, extension := range p.Leaf.Extensions {
		var features []int
		if !extension.Id.Equal(tlsFeature) {
			continue
		}
		if rest, err := asn1.Unmarshal(extension.Value, &features); err == nil && len(rest) == 0 && slices.Contains(features, statusRequest) {
			return true
		}
	}
	return false
}
