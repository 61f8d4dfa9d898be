package policy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"testing"
	"time"
)

// pemCertificate is one as Envoy passes it on, and its fingerprint.
func pemCertificate(t *testing.T) (text, fingerprint string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse("spiffe://example.com/web")
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(0xbeef), Subject: pkix.Name{CommonName: "web, the first", Organization: []string{"Example"}},
		NotBefore: time.Unix(1000, 0), NotAfter: time.Unix(2000, 0), DNSNames: []string{"web.example.com"},
		EmailAddresses: []string{"web@example.com"}, URIs: []*url.URL{uri},
	}, &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	return url.PathEscape(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))), hex.EncodeToString(sum[:])
}

// presenting is alice with a client certificate as Envoy has it.
func presenting(text string) *Input {
	in := alice()
	in.Request.Attribute = func(name string) (map[string]any, error) {
		if name != "source" || text == "" {
			return nil, nil
		}
		return map[string]any{"certificate": text}, nil
	}
	return in
}

func TestClientCertificate(t *testing.T) {
	text, fingerprint := pemCertificate(t)
	p := compilePackage(t, "allow := true\nclaims := {\"c\": input.client_certificate}")
	d := p.Decide(t.Context(), presenting(text))
	want := fmt.Sprintf(`{"dns_names":["web.example.com"],"emails":["web@example.com"],"fingerprint":%q,"issuer":"CN=ca","not_after":2000,"not_before":1000,`+
		`"serial":"beef","subject":"CN=web\\, the first,O=Example","uris":["spiffe://example.com/web"]}`, fingerprint)
	if got := canonical(t, d.Claims["c"]); d.Err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, d.Err, want)
	}
	for _, row := range []struct{ name, text, want string }{
		{"none", "", ""},
		{"not URL-encoded", "%zz", "policy p: input.client_certificate: it is not URL-encoded"},
		{"no PEM", "hello", "policy p: input.client_certificate: it is no PEM"},
		{"a key", url.PathEscape("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "policy p: input.client_certificate: it is no PEM"},
		{"no certificate", url.PathEscape("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "policy p: input.client_certificate: it cannot be parsed"},
	} {
		d := compilePackage(t, "allow if not input.client_certificate").Decide(t.Context(), presenting(row.text))
		if errorText(d.Err) != row.want || d.Allow != (row.want == "") {
			t.Errorf("%s: got %+v, want %s", row.name, d, row.want)
		}
	}
}

// TestClientCertificateIsInTheKey has one certificate after another.
func TestClientCertificateIsInTheKey(t *testing.T) {
	first, fingerprint := pemCertificate(t)
	second, _ := pemCertificate(t)
	c, p := NewCache(100, 1<<20), compilePackage(t, fmt.Sprintf("allow if input.client_certificate.fingerprint == %q", fingerprint))
	for _, row := range []struct {
		text  string
		allow bool
	}{{first, true}, {second, false}, {"", false}, {first, true}} {
		if d := c.Decide(t.Context(), p, presenting(row.text)); d.Allow != row.allow || d.Err != nil {
			t.Errorf("got %+v", d)
		}
	}
	if want := "1 hits 3 misses 0 bypassed"; stats(c) != want {
		t.Errorf("got %s, want %s", stats(c), want)
	}
}
