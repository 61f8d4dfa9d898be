package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/url"
	"testing"
	"time"
)

const vaultPolicy = `package vault

allow if {
	some uri in input.client_certificate.uris
	startswith(uri, "spiffe://ops/")
}

headers := {"x-client": input.client_certificate.uris[0]}
`

// TestClientCertificates: what was verified in the handshake is what the policy decides on.
func TestClientCertificates(t *testing.T) {
	s := prepareStack(t, `
  - {name: vault, from: "https://vault.localhost:{{.Port}}", to: "{{.Grafana}}", policy: vault, allow_anonymous: true, unauthenticated: "403"}
`)
	sign := clientIssuer(t, s)
	s.write("policies/vault.rego", vaultPolicy)
	s.write("doorward.yaml", fmt.Sprintf("tls: {client_certificates: [{hosts: vault.localhost, ca_file: clients.pem, optional: true}]}\n%s", s.read("doorward.yaml")))
	s.start()
	for uri, want := range map[string]int{"spiffe://ops/alice": http.StatusOK, "spiffe://dev/bob": http.StatusForbidden, "": http.StatusForbidden} {
		b := s.browser()
		if uri != "" {
			b.Transport.(*http.Transport).TLSClientConfig.Certificates = []tls.Certificate{sign(uri)}
		}
		a := b.get(s.url("vault", "/"))
		if a.StatusCode != want {
			t.Errorf("a client %q gets %d, want %d\n%s\n%s", uri, a.StatusCode, want, a.text, s.log)
		}
	}
	seen := s.grafana.requests()
	if len(seen) != 1 || seen[0].Header.Get("X-Client") != "spiffe://ops/alice" {
		t.Errorf("the application saw %d requests", len(seen))
	}
}

// clientIssuer writes a CA into clients.pem, and returns what signs certificates for clients.
func clientIssuer(t *testing.T, s *stack) func(uri string) tls.Certificate {
	t.Helper()
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	caKey := key()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		t.Fatal(err)
	}
	s.write("clients.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	return func(uri string) tls.Certificate {
		name, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		k := key()
		der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
			SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{name},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		}, ca, k.Public(), caKey)
		if err != nil {
			t.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k}
	}
}
