package admin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"doorward/authz/config"
)

// authority issues certificates into files.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.cert = &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.key = a.issue("ca", a.cert)
	return a
}

// issue writes NAME.pem and NAME.key, good from an hour ago unless the template says otherwise.
func (a *authority) issue(name string, template *x509.Certificate) *ecdsa.PrivateKey {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	}
	signer := a.key
	if signer == nil {
		signer = key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	for ext, block := range map[string]*pem.Block{".pem": {Type: "CERTIFICATE", Bytes: der}, ".key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(a.path(name+ext), pem.EncodeToMemory(block), 0o600); err != nil {
			a.t.Fatal(err)
		}
	}
	return key
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// client issues a certificate for clients with names: a common name, DNS names, a URI.
func (a *authority) client(name, common, dns, uri string) {
	template := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: common}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if dns != "" {
		template.DNSNames = []string{"other", dns}
	}
	if u, err := url.Parse(uri); err == nil && uri != "" {
		template.URIs = []*url.URL{u}
	}
	a.issue(name, template)
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pem, err := os.ReadFile(a.path("ca.pem"))
	if err != nil {
		a.t.Fatal(err)
	}
	pool.AppendCertsFromPEM(pem)
	return pool
}

// network is the API on a port, with one endpoint that says who asked.
type network struct {
	*authority
	remote  *Remote
	settled config.Admin
	ahead   atomic.Int64 // of the clock
	address string
}

func newNetwork(t *testing.T, allow ...string) *network {
	t.Helper()
	n := &network{authority: newAuthority(t)}
	n.issue("server", &x509.Certificate{SerialNumber: big.NewInt(3), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	n.settled = config.Admin{Listen: "127.0.0.1:0", CertFile: n.path("server.pem"), KeyFile: n.path("server.key"), ClientCAFile: n.path("ca.pem"), Allow: allow}
	n.remote = NewRemote(func() time.Time { return time.Now().Add(time.Duration(n.ahead.Load())) })
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%q", Caller(r.Context())) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n.address = l.Addr().String()
	server := &http.Server{
		Handler:  n.remote.Guard(Handler(Config{Handlers: map[string]http.Handler{"GET /who": who, "POST /do": who}})),
		ErrorLog: log.New(io.Discard, "", 0),
	}
	go server.Serve(tls.NewListener(l, n.remote.TLS()))
	t.Cleanup(func() { server.Close() })
	return n
}

func (n *network) trust() {
	n.t.Helper()
	t, err := LoadTrust(n.settled)
	if err != nil {
		n.t.Fatal(err)
	}
	n.remote.Adopt(t)
}

// as is a client that shows the certificate of files; none for "".
func (n *network) as(name string) *Client {
	n.t.Helper()
	c := &tls.Config{RootCAs: n.pool()}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(n.path(name+".pem"), n.path(name+".key"))
		if err != nil {
			n.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	client := NewRemoteClient(n.address, c, "")
	n.t.Cleanup(client.http.CloseIdleConnections)
	return client
}

// who asks, and returns what the API calls the client, or the error.
func (c *Client) who(t *testing.T) string {
	var name string
	if err := c.Get(t.Context(), "/who", nil, &name); err != nil {
		return err.Error()
	}
	return name
}

func TestOnTheNetworkOnlyNamedClients(t *testing.T) {
	n := newNetwork(t, "ops.example.com", "spiffe://example.com/ops", "Alice Adams")
	n.trust()
	n.client("dns", "", "ops.example.com", "")
	n.client("uri", "", "", "spiffe://example.com/ops")
	n.client("common", "Alice Adams", "", "")
	n.client("case", "", "OPS.example.com", "")
	n.client("nobody", "Mallory", "", "spiffe://example.com/mallory")
	n.issue("server-only", &x509.Certificate{SerialNumber: big.NewInt(4), DNSNames: []string{"ops.example.com"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	past := time.Now().Add(-time.Minute)
	n.issue("expired", &x509.Certificate{SerialNumber: big.NewInt(5), DNSNames: []string{"ops.example.com"}, NotBefore: past.Add(-time.Hour), NotAfter: past, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	stranger := newAuthority(t)
	stranger.client("ops", "", "ops.example.com", "")
	for ext, from := range map[string]string{"stranger.pem": "ops.pem", "stranger.key": "ops.key"} {
		if err := os.Link(stranger.path(from), n.path(ext)); err != nil {
			t.Fatal(err)
		}
	}
	const bad = "ask https://ADDRESS: remote error: tls: "
	for _, row := range []struct{ files, want string }{
		{"dns", "ops.example.com"},
		{"uri", "spiffe://example.com/ops"},
		{"common", "Alice Adams"},
		{"case", "admin.allow has none of the names of the client's certificate: other, OPS.example.com"},
		{"nobody", "admin.allow has none of the names of the client's certificate: spiffe://example.com/mallory, Mallory"},
		{"", bad + "certificate required"},
		{"stranger", bad + "unknown certificate authority"},
		{"expired", bad + "expired certificate"},
		{"server-only", bad + "bad certificate"},
	} {
		if got := n.as(row.files).who(t); strings.ReplaceAll(got, n.address, "ADDRESS") != row.want {
			t.Errorf("%s: %q, want %q", row.files, got, row.want)
		}
	}
}

func TestOnTheNetworkTheTrustOfNowCounts(t *testing.T) {
	n := newNetwork(t, "ops")
	n.client("ops", "ops", "", "")
	if got := n.as("ops").who(t); !strings.Contains(got, "tls: internal error") {
		t.Errorf("before there is any trust: %q", got)
	}
	n.trust()
	c := n.as("ops") // one connection from here on
	if got := c.who(t); got != "ops" {
		t.Fatalf("allowed: %q", got)
	}
	n.settled.Allow = []string{"others"}
	n.trust()
	if got := c.who(t); got != "admin.allow has none of the names of the client's certificate: ops" {
		t.Errorf("not allowed any more: %q", got)
	}
	n.settled.Allow = []string{"ops"}
	n.trust()
	n.ahead.Store(int64(2 * time.Hour))
	if got := c.who(t); !strings.HasPrefix(got, "the client's certificate: x509: certificate has expired or is not yet valid") {
		t.Errorf("expired meanwhile: %q", got)
	}
	n.ahead.Store(0)
	n.remote.Adopt(nil)
	if got := c.who(t); got != errNoTrust.Error() {
		t.Errorf("without any trust: %q", got)
	}
}

func TestOnTheNetworkTLSIsNew(t *testing.T) {
	n := newNetwork(t, "ops")
	n.client("ops", "ops", "", "")
	n.trust()
	c := n.as("ops")
	c.http.Transport.(*http.Transport).TLSClientConfig.MaxVersion = tls.VersionTLS12
	if got := c.who(t); !strings.HasSuffix(got, "tls: protocol version not supported") {
		t.Errorf("TLS 1.2: %q", got)
	}
	res, err := http.Get("http://" + n.address + "/who")
	if err == nil {
		res.Body.Close()
	}
	if err == nil && res.StatusCode != http.StatusBadRequest {
		t.Errorf("without TLS: %s", res.Status)
	}
}

// A browser that has the certificate does not do what another site tells it to.
func TestOnTheNetworkOtherOrigins(t *testing.T) {
	n := newNetwork(t, "ops")
	n.client("ops", "ops", "", "")
	n.trust()
	c := n.as("ops")
	for _, row := range []struct {
		method, path, header, value string
		want                        error
	}{
		{"POST", "/do", "", "", nil},
		{"POST", "/do", "Sec-Fetch-Site", "same-origin", nil},
		{"POST", "/do", "Sec-Fetch-Site", "cross-site", errCrossOrigin},
		{"POST", "/do", "Sec-Fetch-Site", "same-site", errCrossOrigin},
		{"POST", "/do", "Origin", "https://evil.example", errCrossOrigin},
		{"GET", "/who", "Sec-Fetch-Site", "cross-site", nil},
	} {
		var name string
		header := make(http.Header)
		if row.header != "" {
			header.Set(row.header, row.value)
		}
		err := c.Send(t.Context(), Request{Method: row.method, Path: row.path, Header: header}, &name)
		if (err == nil) != (row.want == nil) || err != nil && err.Error() != row.want.Error() {
			t.Errorf("%s with %s: %s: %v, want %v", row.method, row.header, row.value, err, row.want)
		}
	}
}

func TestNobodyOnTheNetwork(t *testing.T) {
	n := newNetwork(t, "ops")
	n.client("ops", "ops", "", "")
	c := n.as("ops")
	c.base.Host = "127.0.0.1:1"
	if err := c.Get(t.Context(), "/who", nil, nil); !errors.Is(err, ErrNotRunning) {
		t.Errorf("%v", err)
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	c.base.Host = plain.Listener.Addr().String()
	if err := c.Get(t.Context(), "/who", nil, nil); err == nil || errors.Is(err, ErrNotRunning) {
		t.Errorf("somebody else: %v", err)
	}
	if _, err := LoadTrust(config.Admin{}); err != nil {
		t.Errorf("no admin: %v", err)
	}
}
