package policy

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net/url"

	"github.com/open-policy-agent/opa/v1/ast"
)

// certificate is the client's as Envoy passes it on: PEM, URL-encoded; "" without one. It is that of the TLS handshake: no header is asked.
func (r *Request) certificate() (string, error) {
	source, err := r.attribute("source")
	text, _ := source["certificate"].(string)
	return text, err
}

// certificateKey appends a hash, which is shorter.
func certificateKey(b []byte, r *Request) ([]byte, error) {
	text, err := r.certificate()
	if text == "" {
		return append(b, 0), err
	}
	sum := sha256.Sum256([]byte(text))
	return append(append(b, 1), sum[:]...), err
}

// clientCertificate is input.client_certificate; undefined without one. Names are as RFC 2253 writes them, times in Unix seconds.
func clientCertificate(r *Request) (ast.Value, error) {
	text, err := r.certificate()
	if err != nil || text == "" {
		return nil, err
	}
	decoded, err := url.PathUnescape(text)
	if err != nil {
		return nil, errors.New("it is not URL-encoded")
	}
	block, _ := pem.Decode([]byte(decoded))
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("it is no PEM")
	}
	c, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, errors.New("it cannot be parsed")
	}
	uris := make([]string, len(c.URIs))
	for i, u := range c.URIs {
		uris[i] = u.String()
	}
	fingerprint := sha256.Sum256(c.Raw)
	o := ast.NewObjectWithCapacity(9)
	insert(o, "subject", ast.String(c.Subject.String()))
	insert(o, "issuer", ast.String(c.Issuer.String()))
	insert(o, "serial", ast.String(c.SerialNumber.Text(16)))
	insert(o, "fingerprint", ast.String(hex.EncodeToString(fingerprint[:])))
	insert(o, "dns_names", stringArray(c.DNSNames))
	insert(o, "uris", stringArray(uris))
	insert(o, "emails", stringArray(c.EmailAddresses))
	insert(o, "not_before", unixTime(c.NotBefore.Unix()))
	insert(o, "not_after", unixTime(c.NotAfter.Unix()))
	return o, nil
}
