package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
)

func newCA(t *testing.T, dir string) *LocalCA {
	t.Helper()
	ca, err := NewLocalCA(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// verify holds a chain and key against a CA file, as a browser does.
func verify(t *testing.T, caFile, host string, chain, key []byte, now time.Time) error {
	t.Helper()
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	_, err = pair.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: roots, CurrentTime: now})
	return err
}

func TestLocalCAIsKept(t *testing.T) {
	dir := t.TempDir()
	first := newCA(t, dir)
	chain, key, err := newCA(t, dir).Certificate("grafana.localhost")
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, filepath.Join(dir, "ca.pem"), "grafana.localhost", chain, key, time.Now()); err != nil {
		t.Error(err)
	}
	if err := verify(t, filepath.Join(dir, "ca.pem"), "wiki.localhost", chain, key, time.Now()); err == nil {
		t.Error("a certificate is good for another host")
	}
	if again := newCA(t, dir); !again.cert.Equal(first.cert) {
		t.Error("the CA is another one after reopening")
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.key has mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestLocalCARenewsInTime(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, dir)
	now := time.Now()
	ca.now = func() time.Time { return now }
	first, _, err := ca.Certificate("a.localhost")
	if err != nil {
		t.Fatal(err)
	}
	now = now.Add(59 * 24 * time.Hour)
	if same, _, _ := ca.Certificate("a.localhost"); string(same) != string(first) {
		t.Error("issued anew after 59 days")
	}
	now = now.Add(2 * 24 * time.Hour)
	next, key, err := ca.Certificate("a.localhost")
	if err != nil || string(next) == string(first) {
		t.Fatalf("not issued anew after 61 of 90 days: %v", err)
	}
	if err := verify(t, filepath.Join(dir, "ca.pem"), "a.localhost", next, key, now.Add(80*24*time.Hour)); err != nil {
		t.Error(err)
	}
}

func TestBrokenCAIsReported(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"another key": func(dir string) error {
			other := newCA(t, t.TempDir())
			key, err := encodeKey(other.key)
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(dir, "ca.key"), key, 0o600)
		},
		"no PEM":    func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.pem"), []byte("x"), 0o600) },
		"no key":    func(dir string) error { return os.Remove(filepath.Join(dir, "ca.key")) },
		"empty key": func(dir string) error { return os.WriteFile(filepath.Join(dir, "ca.key"), nil, 0o600) },
	} {
		dir := t.TempDir()
		newCA(t, dir)
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if _, err := NewLocalCA(dir); err == nil || !strings.Contains(err.Error(), "local CA") {
			t.Errorf("%s: error %v, want one that names the local CA", name, err)
		}
	}
}

// write puts a certificate of the CA for the names into files.
func write(t *testing.T, ca *LocalCA, life time.Duration, names ...string) config.Certificate {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(), DNSNames: names, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
	}, ca.cert, private.Public(), ca.key)
	if err != nil {
		t.Fatal(err)
	}
	key, err := encodeKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	c := config.Certificate{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")}
	if err := os.WriteFile(c.CertFile, encodeCert(der), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.KeyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSourcePrefers(t *testing.T) {
	ca := newCA(t, t.TempDir())
	day := 24 * time.Hour
	certificates := []config.Certificate{
		write(t, ca, day, "*.Example.com", "example.com"),
		write(t, ca, 3*day, "a.example.com"),
		write(t, ca, 2*day, "a.example.com", "b.example.com", "*.deep.example.com"),
	}
	s, err := NewSource(&config.Config{TLS: config.TLS{Certificates: certificates}}, ca, nil)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"example.com": 0, "any.example.com": 0, "a.example.com": 1, "b.example.com": 2, "x.deep.example.com": 2,
		"deep.example.com": 0, "x.any.example.com": -1, "x.y.deep.example.com": -1, "com": -1, "": -1,
	} {
		pair, err := s.Pair(host)
		if want < 0 {
			if err == nil {
				t.Errorf("%q has a certificate", host)
			}
			continue
		}
		text, readErr := os.ReadFile(certificates[want].CertFile)
		if err != nil || readErr != nil || string(pair.Chain) != string(text) {
			t.Errorf("%q: another certificate than number %d, or %v", host, want, err)
		}
	}
	if _, err := NewSource(&config.Config{TLS: config.TLS{Certificates: []config.Certificate{write(t, ca, day)}}}, ca, nil); err == nil ||
		!strings.Contains(err.Error(), "names no host") {
		t.Errorf("a certificate without names: %v", err)
	}
}

func TestLocalCATakesLongHosts(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, dir)
	host := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".localhost"
	chain, key, err := ca.Certificate(host)
	if err != nil {
		t.Fatal(err)
	}
	if err := verify(t, filepath.Join(dir, "ca.pem"), host, chain, key, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestSource(t *testing.T) {
	dir := t.TempDir()
	ca := newCA(t, filepath.Join(dir, "ca"))
	other := newCA(t, filepath.Join(dir, "other"))
	chain, key, err := other.Certificate("grafana.example.com")
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "cert.key")
	if err := os.WriteFile(certFile, chain, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(keyFile, key, 0o600); err != nil {
		t.Fatal(err)
	}
	c := &config.Config{TLS: config.TLS{Certificates: []config.Certificate{{CertFile: certFile, KeyFile: keyFile}}}}
	s, err := NewSource(c, ca, nil)
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]string{
		"grafana.example.com": "other", "grafana.localhost": "ca", "localhost": "ca", "wiki.example.com": "", "notlocalhost": "",
	} {
		pair, err := s.Pair(host)
		if want == "" {
			if err == nil || !strings.Contains(err.Error(), "no certificate for "+host) {
				t.Errorf("%s: error %v, want none for it", host, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if err := verify(t, filepath.Join(dir, want, "ca.pem"), host, pair.Chain, pair.Key, time.Now()); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	for when, want := range map[time.Duration]string{
		0: "", -2 * backdate: "is not valid before", leafLife - soon + time.Hour: "expires at", 2 * leafLife: "expired at",
	} {
		got := strings.Join(s.Warnings(time.Now().Add(when)), "\n")
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("in %v: warnings %q, want %q", when, got, want)
		}
	}
	c.TLS.Certificates[0].KeyFile = filepath.Join(dir, "other", "ca.key")
	if _, err := NewSource(c, ca, nil); err == nil || !strings.Contains(err.Error(), certFile) {
		t.Errorf("a key of another certificate: %v", err)
	}
}
