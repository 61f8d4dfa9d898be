package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/xds/cert"
	"doorward/xds/cert/acme/acmetest"
)

// newIssued is a stack whose hosts get their certificates from an ACME server, over whichever challenges the text says: the keys below tls.acme
// but for email, directory and ca_file.
func newIssued(t *testing.T, c acmetest.Config) (*stack, *acmetest.Server, func(acme string, hosts ...string)) {
	t.Helper()
	s := prepareStack(t, twoHosts)
	c.HTTP, c.TLS = freePort(t), s.port
	p := acmetest.New(t, c)
	return s, p, func(acme string, hosts ...string) {
		text := fmt.Sprintf(`
tls: {acme: {email: ops@example.com, directory: %q, ca_file: %q, %s}}
auth_url: "https://%s:%d"
listen: {https: "127.0.0.1:%d", http: "127.0.0.1:%d"}
socket_dir: %s/run
data_dir: %s/data
routes:
`, p.URL, p.CA, acme, hosts[0], s.port, s.port, c.HTTP, s.dir, s.dir)
		for i, host := range hosts {
			text += fmt.Sprintf("  - {name: r%d, from: \"https://%s:%d\", to: %q, policy: public}\n", i, host, s.port, s.grafana.URL)
		}
		s.write("doorward.yaml", text)
	}
}

// awaitCertificate waits until a host is served with a certificate that want takes.
func (s *stack) awaitCertificate(host string, roots *x509.CertPool, want func(*x509.Certificate) bool) *x509.Certificate {
	s.t.Helper()
	for end := time.Now().Add(40 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		leaf, err := s.handshake(host, roots)
		if err == nil && want(leaf) {
			return leaf
		}
		if time.Now().After(end) {
			s.t.Fatalf("%s has no such certificate: %v\n%s", host, err, s.log)
		}
	}
}

func anyCertificate(*x509.Certificate) bool { return true }

// certificates is what doorward cert list says, by host.
func (s *stack) certificates() map[string]certificateState {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.Command(path, "cert", "list", "-o", "json", "--config", s.config()).Output()
	var list struct{ Certificates []certificateState }
	if err == nil {
		err = json.Unmarshal(out, &list)
	}
	if err != nil {
		s.t.Fatalf("cert list: %v\n%s", err, out)
	}
	all := make(map[string]certificateState)
	for _, c := range list.Certificates {
		all[c.Host] = c
	}
	return all
}

func TestCertificatesFromAnACMEServer(t *testing.T) {
	s, p, configure := newIssued(t, acmetest.Config{})
	configure("challenges: [http-01]", "a.example.com")
	s.start()
	roots := p.Roots()
	a := s.awaitCertificate("a.example.com", roots, anyCertificate)
	if state := s.certificates()["a.example.com"]; state.Source != "ACME" || state.Pending || state.Problem != "" || !state.Renewal.After(time.Now()) {
		t.Errorf("cert list: %+v", state)
	}
	s.plain(t, "a.example.com", "/.well-known/acme-challenge/not-a-token", http.StatusNotFound)
	s.plain(t, "stranger.example.com", "/.well-known/acme-challenge/not-a-token", http.StatusNotFound)
	s.plain(t, "a.example.com", "/.well-known/other", http.StatusPermanentRedirect)

	// A host more, while it runs, and by the other challenge. The first host's certificate stays.
	configure("challenges: [tls-alpn-01]", "a.example.com", "b.example.com")
	s.served()
	b := s.awaitCertificate("b.example.com", roots, anyCertificate)
	if again := s.awaitCertificate("a.example.com", roots, anyCertificate); !again.Equal(a) {
		t.Error("a.example.com has another certificate")
	}
	if _, err := s.handshake("stranger.example.com", roots); err == nil {
		t.Error("a stranger's name has a certificate")
	}
	s.write("pushed.yaml", fmt.Sprintf("routes: [{name: pushed, from: \"https://pushed.example.com:%d\", to: %q, policy: public}]\n", s.port, s.grafana.URL))
	path, _ := program()
	if out, err := exec.Command(path, "route", "apply", "-f", filepath.Join(s.dir, "pushed.yaml"), "--config", s.config()).CombinedOutput(); err != nil {
		t.Fatalf("route apply: %v\n%s", err, out)
	}
	s.awaitCertificate("pushed.example.com", roots, anyCertificate)

	// What was issued survives, and the server is not needed.
	s.stop(syscall.SIGTERM)
	p.Stop()
	s.start()
	for host, leaf := range map[string]*x509.Certificate{"a.example.com": a, "b.example.com": b} {
		if again, err := s.handshake(host, roots); err != nil || !again.Equal(leaf) {
			t.Errorf("%s after a restart: %v, the same certificate: %t", host, err, err == nil && again.Equal(leaf))
		}
	}
	s.awaitsInVain(t, configure, roots)
}

// awaitsInVain adds a host while the server is down.
func (s *stack) awaitsInVain(t *testing.T, configure func(string, ...string), roots *x509.CertPool) {
	t.Helper()
	configure("challenges: [tls-alpn-01]", "a.example.com", "b.example.com", "c.example.com")
	s.served()
	begun := time.Now()
	if _, err := s.handshake("c.example.com", roots); err == nil || time.Since(begun) > 2*time.Second {
		t.Errorf("the handshake of a host without a certificate: %v after %v", err, time.Since(begun))
	}
	var state certificateState
	for end := time.Now().Add(5 * time.Second); state.Problem == "" && time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		state = s.certificates()["c.example.com"]
	}
	if !state.Pending || !strings.Contains(state.Problem, "connection refused") || !state.Retry.After(time.Now()) {
		t.Errorf("cert list: %+v", state)
	}
	path, _ := program()
	out, err := exec.Command(path, "status", "--config", s.config()).Output()
	if err != nil || !strings.Contains(string(out), `"c.example.com: `) || strings.Contains(string(out), `"a.example.com: `) {
		t.Errorf("status: %v\n%s", err, out)
	}
	if _, err := s.handshake("a.example.com", roots); err != nil {
		t.Errorf("a host with a certificate: %v", err)
	}
	metrics := s.metrics()
	for _, line := range []string{
		`doorward_certificates{source="acme"} 3`, `doorward_certificates{source="pending"} 1`, `doorward_certificate_problems 1`,
		`doorward_certificate_expiry_seconds{source="acme"} 7.77`,
	} {
		if !strings.Contains(metrics, "\n"+line) {
			t.Errorf("the metrics have no %s", line)
		}
	}
}

// metrics are what the control socket has.
func (s *stack) metrics() string {
	s.t.Helper()
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "data", controlSocket))
	}, DisableKeepAlives: true}
	res, err := (&http.Client{Transport: transport, Timeout: 10 * time.Second}).Get("http://doorward/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}

// plain asks the plain listener.
func (s *stack) plain(t *testing.T, host, path string, want int) {
	t.Helper()
	for line := range strings.Lines(s.read("doorward.yaml")) {
		_, address, ok := strings.Cut(line, `http: "`)
		if !ok {
			continue
		}
		address, _, _ = strings.Cut(address, `"`)
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s%s: status %d, want %d", host, path, res.StatusCode, want)
		}
		return
	}
	t.Fatal("no plain listener")
}

// TestCertificatesAreRenewed has certificates that live for seconds only (a third of that is left for the renewal, on a busy machine too), from a server that wants accounts bound.
func TestCertificatesAreRenewed(t *testing.T) {
	const hmac = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"
	s, p, configure := newIssued(t, acmetest.Config{Validity: 24 * time.Second, Accounts: map[string]string{"kid-1": hmac}})
	s.write("hmac", hmac+"\n")
	configure("eab: {key_id: kid-1, hmac_key_file: hmac}", "a.example.com")
	s.start()
	roots := p.Roots()
	first := s.awaitCertificate("a.example.com", roots, anyCertificate)
	next := s.awaitCertificate("a.example.com", roots, func(leaf *x509.Certificate) bool { return !leaf.Equal(first) })
	if !next.NotAfter.After(first.NotAfter) || time.Now().After(first.NotAfter) {
		t.Errorf("renewed at %v: until %v, before that until %v", time.Now(), next.NotAfter, first.NotAfter)
	}
	if bytes.Equal(next.RawSubjectPublicKeyInfo, first.RawSubjectPublicKeyInfo) {
		t.Error("the next certificate has the same key")
	}
}

// TestAReplacedCertificateFileIsServed: the next handshake has it, for an exact name and for those below a wildcard.
func TestAReplacedCertificateFileIsServed(t *testing.T) {
	s := prepareStack(t, twoHosts)
	authority, err := cert.NewAuthority(filepath.Join(s.dir, "authority"), "CA of the test")
	if err != nil {
		t.Fatal(err)
	}
	issue := func(file string, names ...string) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		chain, err := authority.Issue(x509.Certificate{DNSNames: names}, key.Public(), time.Now(), time.Now().Add(90*24*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		s.write(file, string(chain)+string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	}
	issue("exact.pem", "a.example.com")
	issue("wildcard.pem", "*.apps.example.com")
	s.write("doorward.yaml", fmt.Sprintf(`
tls: {certificates: [{cert_file: exact.pem, key_file: exact.pem}, {cert_file: wildcard.pem, key_file: wildcard.pem}]}
auth_url: "https://a.example.com:%[1]d"
listen: {https: "127.0.0.1:%[1]d", http: "off"}
socket_dir: %[2]s/run
data_dir: %[2]s/data
routes:
  - {name: a, from: "https://a.example.com:%[1]d", to: %[3]q, policy: public}
  - {name: apps, from: "https://*.apps.example.com:%[1]d", to: %[3]q, policy: public}
`, s.port, s.dir, s.grafana.URL))
	s.start()
	for file, names := range map[string][2]string{"exact.pem": {"a.example.com", "a.example.com"}, "wildcard.pem": {"*.apps.example.com", "one.apps.example.com"}} {
		before := s.awaitCertificate(names[1], authority.Pool(), anyCertificate)
		issue(file, names[0])
		s.awaitCertificate(names[1], authority.Pool(), func(leaf *x509.Certificate) bool { return !leaf.Equal(before) })
	}
}

// handshake returns the certificate that a host is served with, or why there is none.
func (s *stack) handshake(host string, roots *x509.CertPool) (*x509.Certificate, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), 5*time.Second)
	defer cancel()
	dialer := &tls.Dialer{Config: &tls.Config{ServerName: host, RootCAs: roots, NextProtos: []string{"h2", "http/1.1"}}}
	c, err := dialer.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0], nil
}
