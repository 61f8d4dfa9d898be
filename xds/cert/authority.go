package cert

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"time"
)

// Authority is a CA that certifies something else than hosts, from what its caller says. Safe for concurrent use.
type Authority struct{ ca *LocalCA }

// NewAuthority reads the CA's certificate and key from dir (ca.pem, ca.key), or makes them there. What it is called stands in its certificate.
func NewAuthority(dir, called string) (*Authority, error) {
	ca, err := openCA(dir, called)
	if err != nil {
		return nil, err
	}
	return &Authority{ca}, nil
}

// Root is the CA's certificate as PEM: what those who talk to its holders trust.
func (a *Authority) Root() []byte { return a.ca.pem }

// Pool trusts the CA and nothing else.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.ca.cert)
	return pool
}

// Issue signs a leaf certificate for a public key, as PEM. The template has its names and uses; serial number and dates are set here: it is good
// from a little before now, for clocks that are behind, until expires.
func (a *Authority) Issue(template x509.Certificate, public crypto.PublicKey, now, expires time.Time) ([]byte, error) {
	template.SerialNumber, template.NotBefore, template.NotAfter = serial(), now.Add(-backdate), expires
	template.KeyUsage, template.BasicConstraintsValid, template.IsCA = x509.KeyUsageDigitalSignature, true, false
	der, err := x509.CreateCertificate(rand.Reader, &template, a.ca.cert, public, a.ca.key)
	if err != nil {
		return nil, fmt.Errorf("sign a certificate: %w", err)
	}
	return encodeCert(der), nil
}
