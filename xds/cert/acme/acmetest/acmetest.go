// Package acmetest runs a real ACME server in tests: Pebble, Let's Encrypt's own for that purpose. It is in no program.
package acmetest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// Server is a running Pebble.
type Server struct {
	CA  string // file: who may be trusted to be this server
	URL string // of the directory

	t       *testing.T
	dir     string
	manager string // URL of what tells its roots, and takes orders
	program *exec.Cmd
	log     *os.File
}

// Config is what differs from test to test.
type Config struct {
	HTTP, TLS int               // ports of 127.0.0.1 at which challenges are looked for, whatever the name
	Validity  time.Duration     // of a certificate; 90 days when 0
	Accounts  map[string]string // key ID -> HMAC key in base64url: without one of these there is no account
}

// New starts a server that ends with the test, or skips the test. With DOORWARD_E2E=1 a missing Pebble is a failure.
func New(t *testing.T, c Config) *Server {
	t.Helper()
	program, err := find()
	if err != nil && os.Getenv("DOORWARD_E2E") == "1" {
		t.Fatalf("pebble is missing (%v): make setup builds it", err)
	} else if err != nil {
		t.Skip("SKIPPED: this test runs a real ACME server; make test runs it (DOORWARD_E2E=1)")
	}
	here, manager := freePort(t), freePort(t)
	p := &Server{t: t, dir: t.TempDir(), URL: "https://" + here + "/dir", manager: "https://" + manager}
	p.CA = filepath.Join(p.dir, "server.pem")
	p.identify()
	if c.Validity == 0 {
		c.Validity = 90 * 24 * time.Hour
	}
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": here, "managementListenAddress": manager,
		"certificate": p.CA, "privateKey": filepath.Join(p.dir, "server.key"),
		"httpPort": c.HTTP, "tlsPort": c.TLS, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": c.Accounts != nil, "externalAccountMACKeys": c.Accounts,
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "of the test", "validityPeriod": int(c.Validity.Seconds())}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(p.dir, "config.json"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	p.start(program, serveDNS(t))
	return p
}

// find looks for what make setup builds, from the directory of the test upwards.
func find() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		path := filepath.Join(dir, ".tools/bin/pebble")
		if _, err = os.Stat(path); err == nil {
			return path, nil
		}
		if up := filepath.Dir(dir); up != dir {
			dir, err = up, nil
		}
	}
	return "", err
}

// freePort is an address below the range from which the kernel takes ports for others (ip_local_port_range).
func freePort(t *testing.T) string {
	t.Helper()
	for {
		address := fmt.Sprintf("127.0.0.1:%d", 20000+mathrand.IntN(10000))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			return address
		}
	}
}

// identify makes the server's own certificate, which is no part of what it issues.
func (p *Server) identify() {
	p.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		p.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		p.t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"server.pem": {Type: "CERTIFICATE", Bytes: der}, "server.key": {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(filepath.Join(p.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

func (p *Server) start(path, dns string) {
	p.t.Helper()
	var err error
	if p.log, err = os.Create(filepath.Join(p.dir, "log")); err != nil {
		p.t.Fatal(err)
	}
	p.program = exec.Command(path, "-config", filepath.Join(p.dir, "config.json"), "-dnsserver", dns)
	// Without the pauses and the refusals at random by which it tries clients.
	p.program.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	p.program.Stdout, p.program.Stderr = p.log, p.log
	if err := p.program.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.Stop)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := p.get(p.URL); err == nil {
			return
		} else if time.Now().After(end) {
			p.t.Fatalf("pebble does not answer: %v", err)
		}
	}
}

// Stop ends the server, and with it all that it knows.
func (p *Server) Stop() {
	_ = p.program.Process.Kill()
	_ = p.program.Wait()
	_ = p.log.Close()
}

func (p *Server) get(url string) ([]byte, error) {
	client, err := p.client()
	if err != nil {
		return nil, err
	}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

func (p *Server) client() (*http.Client, error) {
	text, err := os.ReadFile(p.CA)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}, err
}

// Renew has the server want a certificate renewed now, which it says to who asks (ARI, RFC 9773).
func (p *Server) Renew(leaf *x509.Certificate) {
	p.t.Helper()
	window := map[string]string{"start": time.Now().Add(-2 * time.Hour).UTC().Format(time.RFC3339), "end": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}
	info, err := json.Marshal(map[string]any{"suggestedWindow": window})
	if err != nil {
		p.t.Fatal(err)
	}
	order, err := json.Marshal(map[string]string{
		"certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw})), "ariResponse": string(info),
	})
	if err != nil {
		p.t.Fatal(err)
	}
	client, err := p.client()
	if err != nil {
		p.t.Fatal(err)
	}
	answer, err := client.Post(p.manager+"/set-renewal-info/", "application/json", bytes.NewReader(order))
	if err != nil {
		p.t.Fatal(err)
	}
	defer answer.Body.Close()
	if text, _ := io.ReadAll(answer.Body); answer.StatusCode != http.StatusOK {
		p.t.Fatalf("pebble does not take it: %s %s", answer.Status, text)
	}
}

// Roots is what trusts the certificates that the server issues.
func (p *Server) Roots() *x509.CertPool {
	p.t.Helper()
	text, err := p.get(p.manager + "/roots/0")
	pool := x509.NewCertPool()
	if err != nil || !pool.AppendCertsFromPEM(text) {
		p.t.Fatalf("no root of pebble's: %v %s", err, text)
	}
	return pool
}

// serveDNS runs a server that says of every name that it is this machine, and returns its address.
func serveDNS(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") // pebble asks over TCP
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerDNS(c)
		}
	}()
	return l.Addr().String()
}

// answerDNS answers the questions on a connection, each of them after its length: RFC 1035, section 4.2.2.
func answerDNS(c net.Conn) {
	defer c.Close()
	for {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		in := make([]byte, size)
		var m dnsmessage.Message
		if _, err := io.ReadFull(c, in); err != nil || m.Unpack(in) != nil || len(m.Questions) != 1 {
			return
		}
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true, RecursionAvailable: true}, Questions: m.Questions}
		if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
			answer.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
			}}
		}
		out, err := answer.AppendPack(make([]byte, 2, 512))
		if err != nil {
			return
		}
		binary.BigEndian.PutUint16(out, uint16(len(out)-2))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}
