package xds

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
	"os"
	"path/filepath"
	"testing"
	"time"
)

// issuer is a CA for clients.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "clients"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{t, parsed, key}
}

// client is a certificate for a DNS name.
func (i *issuer) client(serial int64, name string, ends time.Time) tls.Certificate {
	i.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		i.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: ends, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}, i.cert, key.Public(), i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// writes puts the CA's certificate, and a revocation list that has serials, into files.
func (i *issuer) writes(caFile, crlFile string, until time.Time, serials ...int64) {
	i.t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now().Add(-2 * time.Hour), NextUpdate: until}
	for _, s := range serials {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: time.Now().Add(-time.Hour)})
	}
	crl, err := x509.CreateRevocationList(rand.Reader, list, i.cert, i.key)
	if err != nil {
		i.t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{caFile: {Type: "CERTIFICATE", Bytes: i.cert.Raw}, crlFile: {Type: "X509 CRL", Bytes: crl}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			i.t.Fatal(err)
		}
	}
}

// shows asks a host as a client that shows certificates; 0 when the handshake, which TLS 1.3 clients learn of late, was refused.
func (f *front) shows(sni, host string, certificates ...tls.Certificate) int {
	f.t.Helper()
	client := f.client(sni, true)
	client.Transport.(*http.Transport).TLSClientConfig.Certificates = certificates
	a, err := try(client, "GET", fmt.Sprintf("https://127.0.0.1:%d/", f.https), "Host", host)
	if err != nil {
		if os.IsTimeout(err) {
			f.t.Errorf("%s: %v", host, err)
		}
		return 0
	}
	return a.Status
}

// TestEnvoyStartsBesideAChainWithoutRoutes: a host that is to have client certificates and has no route yet, or one that Envoy refuses, holds up no
// other, and answers for nothing.
func TestEnvoyStartsBesideAChainWithoutRoutes(t *testing.T) {
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	us := newIssuer(t)
	us.writes(ca, filepath.Join(dir, "crl.pem"), time.Now().Add(time.Hour))
	f := newFront(t, fmt.Sprintf("  client_certificates: [{hosts: [none.localhost, bad.localhost], ca_file: %s}]\n", ca))
	up := f.upstream("up")
	plain := line("plain", "plain.localhost", up, "")
	c, err := Build(Input{
		Config: f.load(plain + line("bad", "bad.localhost", up, "")), Revision: revisionOf, Certificate: f.ca.Certificate, Page: plainPage,
	})
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, c.parts["bad.localhost"], "bad.localhost")
	begun := time.Now()
	d := f.server.Install(c)
	f.eventually("the host beside them", func() error {
		if a, err := try(f.client("plain.localhost", true), "GET", fmt.Sprintf("https://127.0.0.1:%d/", f.https), "Host", "plain.localhost"); err != nil || a.Status != 200 {
			return fmt.Errorf("%d %v", a.Status, err)
		}
		return nil
	})
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	alice := us.client(2, "alice", time.Now().Add(time.Hour))
	for _, host := range []string{"none.localhost", "bad.localhost"} {
		if got := f.shows(host, host, alice); got != 0 && got != 421 {
			t.Errorf("%s: %d", host, got)
		}
	}
	if answers := d.Wait(t.Context()); len(answers) != 1 || answers[0].State != Rejected || answers[0].Rejected[0].Resource != "bad.localhost" {
		t.Errorf("answers %+v", answers)
	}
	// Once there is a good route, it is served.
	f.serve(plain + line("bad", "bad.localhost", up, "") + line("none", "none.localhost", up, ""))
	for _, host := range []string{"none.localhost", "bad.localhost"} {
		if got := f.shows(host, host, alice); got != 200 {
			t.Errorf("%s with a route: %d", host, got)
		}
	}
	f.serve(plain)
	f.eventually("the routes go", func() error {
		if got := f.shows("none.localhost", "none.localhost", alice); got == 200 {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}

func TestEnvoyWantsClientCertificates(t *testing.T) {
	dir := t.TempDir()
	ca, crl := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "crl.pem")
	us, them := newIssuer(t), newIssuer(t)
	us.writes(ca, crl, time.Now().Add(time.Hour), 66)
	f := newFront(t, fmt.Sprintf("  client_certificates:\n    - {hosts: vault.localhost, ca_file: %s, crl_file: %[2]s, names: [\"dns:*.ops.example.com\"]}\n"+
		"    - {hosts: [one.apps.localhost], ca_file: %[1]s, optional: true}\n", ca, crl))
	up := f.upstream("up")
	later := time.Now().Add(time.Hour)
	alice := us.client(2, "alice.ops.example.com", later)
	f.serve(line("vault", "vault.localhost", up, "") + line("plain", "plain.localhost", up, "") + line("apps", "*.apps.localhost", up, "") + line("one", "one.apps.localhost", up, ""))
	for name, row := range map[string]struct {
		sni, host string
		shows     []tls.Certificate
		want      int
	}{
		"one of ours":                            {"vault.localhost", "vault.localhost", []tls.Certificate{alice}, 200},
		"nothing":                                {"vault.localhost", "vault.localhost", nil, 0},
		"another CA's":                           {"vault.localhost", "vault.localhost", []tls.Certificate{them.client(2, "alice.ops.example.com", later)}, 0},
		"one that is over":                       {"vault.localhost", "vault.localhost", []tls.Certificate{us.client(3, "alice.ops.example.com", time.Now().Add(-time.Minute))}, 0},
		"one that is revoked":                    {"vault.localhost", "vault.localhost", []tls.Certificate{us.client(66, "alice.ops.example.com", later)}, 0},
		"one with another name":                  {"vault.localhost", "vault.localhost", []tls.Certificate{us.client(4, "alice.dev.example.com", later)}, 0},
		"a host that wants none":                 {"plain.localhost", "plain.localhost", nil, 200},
		"over a connection that proved nothing":  {"plain.localhost", "vault.localhost", nil, 421},
		"in capitals over such a connection":     {"plain.localhost", "VAULT.localhost", nil, 421},
		"with a port and a dot over such a one":  {"plain.localhost", "vault.localhost.:443", nil, 421},
		"over a wildcard's":                      {"x.apps.localhost", "vault.localhost", nil, 421},
		"a proven connection for another host":   {"vault.localhost", "plain.localhost", []tls.Certificate{alice}, 421},
		"a server name in capitals":              {"VAULT.localhost", "vault.localhost", nil, 0},
		"optional, with nothing":                 {"one.apps.localhost", "one.apps.localhost", nil, 200},
		"optional, with one of ours":             {"one.apps.localhost", "one.apps.localhost", []tls.Certificate{alice}, 200},
		"optional, with another CA's":            {"one.apps.localhost", "one.apps.localhost", []tls.Certificate{them.client(5, "x", later)}, 0},
		"optional, over the wildcard's":          {"x.apps.localhost", "one.apps.localhost", nil, 421},
		"another name of the wildcard, over its": {"one.apps.localhost", "x.apps.localhost", nil, 421},
	} {
		f.authz.taken()
		if got := f.shows(row.sni, row.host, row.shows...); got != row.want {
			t.Errorf("%s: %d, want %d", name, got, row.want)
		}
		for _, check := range f.authz.taken() {
			if seen := check.GetSource().GetCertificate() != ""; row.want == 200 && seen != (len(row.shows) > 0) {
				t.Errorf("%s: ext_authz sees a certificate: %v", name, seen)
			}
		}
	}
	// Nothing of the listener changes with the list, and one that is over lets nobody in.
	us.writes(ca, crl, time.Now().Add(time.Hour), 66, 2)
	routes := line("vault", "vault.localhost", up, "")
	f.serve(routes)
	f.eventually("the new list counts", func() error {
		if got := f.shows("vault.localhost", "vault.localhost", alice); got != 0 {
			return fmt.Errorf("a revoked client gets %d", got)
		}
		return nil
	})
	us.writes(ca, crl, time.Now().Add(-time.Minute))
	f.serve(routes)
	time.Sleep(200 * time.Millisecond)
	if got := f.shows("vault.localhost", "vault.localhost", us.client(7, "bob.ops.example.com", later)); got != 0 {
		t.Errorf("by a list that is over: %d", got)
	}
	us.writes(ca, crl, time.Now().Add(time.Hour))
	f.serve(routes)
	f.eventually("a good list", func() error {
		if got := f.shows("vault.localhost", "vault.localhost", alice); got != 200 {
			return fmt.Errorf("%d", got)
		}
		return nil
	})
}
