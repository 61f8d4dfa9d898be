package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
)

// featured is a pair of the CA's with a TLS feature extension of that value; none when it is nil.
func featured(t *testing.T, ca *LocalCA, value []byte) Pair {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial(), DNSNames: []string{"a.example.com"}, NotAfter: time.Now().Add(90 * 24 * time.Hour)}
	if value != nil {
		template.ExtraExtensions = []pkix.Extension{{Id: tlsFeature, Value: value}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, ca.cert, private.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := encodeKey(private)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := NewPair(encodeCert(der), key, FromFile)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func features(t *testing.T, list ...int) []byte {
	t.Helper()
	value, err := asn1.Marshal(list)
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func TestACertificateThatPromisesAStaple(t *testing.T) {
	ca := newCA(t, t.TempDir())
	for name, row := range map[string]struct {
		pair  Pair
		lacks bool
	}{
		"no feature":        {featured(t, ca, nil), false},
		"must-staple":       {featured(t, ca, features(t, 5)), true},
		"both features":     {featured(t, ca, features(t, 17, 5)), true},
		"another feature":   {featured(t, ca, features(t, 17)), false},
		"garbled feature":   {featured(t, ca, []byte{1, 2, 3}), false},
		"none, not even it": {Pair{}, false},
	} {
		if got := row.pair.LacksStaple(); got != row.lacks {
			t.Errorf("%s: it lacks a staple: %t", name, got)
		}
		if row.pair.Staple = []byte("staple"); row.pair.LacksStaple() {
			t.Errorf("%s: it lacks a staple, and has one", name)
		}
	}
}

// TestWarningOfAMissingStaple: it is served all the same.
func TestWarningOfAMissingStaple(t *testing.T) {
	dir := t.TempDir()
	pair := featured(t, newCA(t, filepath.Join(dir, "ca")), features(t, 5))
	c := config.Certificate{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	for file, text := range map[string][]byte{c.CertFile: pair.Chain, c.KeyFile: pair.Key} {
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s, err := NewSource(&config.Config{TLS: config.TLS{Certificates: []config.Certificate{c}}}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := "tls.certificates: " + c.CertFile + " is to be shown with an OCSP response (must-staple) and there is none: clients refuse it, get one without that"
	if got := strings.Join(s.Warnings(time.Now()), "\n"); got != want {
		t.Errorf("Warnings = %s\nwant %s", got, want)
	}
}

// TestWhoIssues: a file before all, the local CA below .localhost, the ACME server for the rest; wildcards are nobody's.
func TestWhoIssues(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, dir)
	file := write(t, ca, time.Hour*24*30, "file.example.com")
	s, err := NewSource(&config.Config{TLS: config.TLS{Certificates: []config.Certificate{file}}}, ca, NothingYet{})
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"file.example.com": file.CertFile, "a.localhost": "local CA", "localhost": "local CA", "a.example.com": "ACME",
	} {
		pair, err := s.Pair(host)
		if s.Of(host) != want || s.Issued(host) != (want == "ACME") || (err != nil) != (want == "ACME") || err == nil && pair.Leaf == nil {
			t.Errorf("%s is of %q, %v, want %q", host, s.Of(host), err, want)
		}
		if chain, _, err := s.Certificate(host); err != nil || (chain == nil) != (want == "ACME") {
			t.Errorf("%s: Certificate = %d bytes, %v", host, len(chain), err)
		}
	}
	if _, _, err := s.Certificate("*.example.com"); err == nil || s.Issued("*.example.com") {
		t.Error("a wildcard is issued by an ACME server")
	}
}
