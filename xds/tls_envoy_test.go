package xds

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// TestTLSProfiles holds what a client can agree on with each profile.
func TestTLSProfiles(t *testing.T) {
	const host = "a.localhost"
	for _, profile := range []string{"intermediate", "modern"} {
		t.Run(profile, func(t *testing.T) {
			f := newFront(t, "  profile: "+profile+"\n")
			f.serve(line("a", host, f.upstream("u"), ""))
			agreed := func(c *tls.Config) string {
				c.ServerName = host
				conn, _, err := f.handshake(c)
				if err != nil {
					return "refused"
				}
				defer conn.Close()
				s := conn.ConnectionState()
				return fmt.Sprintf("%s %s %s", tls.VersionName(s.Version), s.CurveID, tls.CipherSuiteName(s.CipherSuite))
			}
			const old = "TLS 1.2 X25519 TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"
			rows := []struct {
				name, intermediate, modern string
				offer                      tls.Config
			}{
				{"a browser of today", "TLS 1.3 X25519MLKEM768 TLS_AES_128_GCM_SHA256", "TLS 1.3 X25519MLKEM768 TLS_AES_128_GCM_SHA256", tls.Config{}},
				{"without the group that withstands a quantum computer", "TLS 1.3 X25519 TLS_AES_128_GCM_SHA256", "TLS 1.3 X25519 TLS_AES_128_GCM_SHA256",
					tls.Config{CurvePreferences: []tls.CurveID{tls.X25519}}},
				{"P-384 only", "TLS 1.3 CurveP384 TLS_AES_128_GCM_SHA256", "TLS 1.3 CurveP384 TLS_AES_128_GCM_SHA256", tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP384}}},
				{"P-521 only", "refused", "refused", tls.Config{CurvePreferences: []tls.CurveID{tls.CurveP521}}},
				{"TLS 1.2", old, "refused", tls.Config{MaxVersion: tls.VersionTLS12}},
				{"TLS 1.1", "refused", "refused", tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}},
				{"TLS 1.2 with CBC", "refused", "refused", tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{
					tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA, tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
				}}},
				{"TLS 1.2 without forward secrecy", "refused", "refused", tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{
					tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA,
				}}},
			}
			for i := range rows {
				r := &rows[i]
				want := r.intermediate
				if profile == "modern" {
					want = r.modern
				}
				if got := agreed(&r.offer); got != want {
					t.Errorf("%s: %s, want %s", r.name, got, want)
				}
			}
		})
	}
}

// TestEnvoyShowsTheOCSPResponse of a certificate that has one, and serves one that has none as it is.
func TestEnvoyShowsTheOCSPResponse(t *testing.T) {
	f := newFront(t, "")
	chain, key, staple := stapled(t, "a.localhost")
	c := f.load(line("a", "a.localhost", f.upstream("u"), "") + line("b", "b.localhost", f.upstream("u"), ""))
	change, err := Build(Input{
		Config: c, Revision: revisionOf, Page: plainPage,
		Certificate: func(host string) ([]byte, []byte, error) {
			if host == "a.localhost" {
				return chain, key, nil
			}
			return f.ca.Certificate(host)
		},
		Staple: func(host string) []byte {
			if host == "a.localhost" {
				return staple
			}
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.apply(flat(t, change)); err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string][]byte{"a.localhost": staple, "b.localhost": nil} {
		conn, _, err := f.handshake(&tls.Config{ServerName: host, InsecureSkipVerify: true})
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		if got := conn.OCSPResponse(); !bytes.Equal(got, want) {
			t.Errorf("%s: an OCSP response of %d bytes, want %d", host, len(got), len(want))
		}
		conn.Close()
	}
}

// stapled is a certificate of a CA of its own, with that CA's word that it is good.
func stapled(t *testing.T, host string) (chain, key, staple []byte) {
	t.Helper()
	signer, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), DNSNames: []string{host},
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	issuer := signedBy(t, template, template, signer, signer)
	own, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leafTemplate := *template
	leafTemplate.SerialNumber, leafTemplate.IsCA = big.NewInt(2), false
	leaf := signedBy(t, &leafTemplate, issuer, own, signer)
	staple, err = ocsp.CreateResponse(issuer, issuer, ocsp.Response{
		Status: ocsp.Good, SerialNumber: leaf.SerialNumber, ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour),
	}, signer)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(own)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*x509.Certificate{leaf, issuer} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return chain, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), staple
}

func signedBy(t *testing.T, template, issuer *x509.Certificate, own, signer *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, own.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}
