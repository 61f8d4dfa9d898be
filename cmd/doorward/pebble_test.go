package main

import (
	"context"
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
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// pebble is Let's Encrypt's ACME server for tests: a real one, that validates where it is told that everybody listens.
type pebble struct {
	t          *testing.T
	dir        string
	ca         string // file: who may be trusted to be this server
	port, info int    // of the server, and of what tells its roots
	program    *exec.Cmd
	log        *syncBuffer
}

// pebbleConfig is what differs from test to test.
type pebbleConfig struct {
	http, tls int               // where challenges are looked for
	validity  time.Duration     // of a certificate; 90 days when 0
	accounts  map[string]string // key ID -> HMAC key in base64url: without one of these there is no account
}

// newPebble starts one, or skips. With DOORWARD_E2E=1 a missing one is a failure.
func newPebble(t *testing.T, c pebbleConfig) *pebble {
	t.Helper()
	program, err := filepath.Abs("../../.tools/bin/pebble")
	if err == nil {
		_, err = os.Stat(program)
	}
	if err != nil && os.Getenv("DOORWARD_E2E") == "1" {
		t.Fatalf("pebble is missing (%v): make setup builds it", err)
	} else if err != nil {
		t.Skip("SKIPPED: this test runs a real ACME server; make test runs it (DOORWARD_E2E=1)")
	}
	p := &pebble{t: t, dir: t.TempDir(), port: freePort(t), info: freePort(t)}
	p.ca = filepath.Join(p.dir, "server.pem")
	p.identify()
	if c.validity == 0 {
		c.validity = 90 * 24 * time.Hour
	}
	text, err := json.Marshal(map[string]any{"pebble": map[string]any{
		"listenAddress": fmt.Sprintf("127.0.0.1:%d", p.port), "managementListenAddress": fmt.Sprintf("127.0.0.1:%d", p.info),
		"certificate": p.ca, "privateKey": filepath.Join(p.dir, "server.key"),
		"httpPort": c.http, "tlsPort": c.tls, "keyAlgorithm": "ecdsa",
		"externalAccountBindingRequired": c.accounts != nil, "externalAccountMACKeys": c.accounts,
		"retryAfter": map[string]int{"authz": 1, "order": 1},
		"profiles":   map[string]any{"default": map[string]any{"description": "of the test", "validityPeriod": int(c.validity.Seconds())}},
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

// identify makes the server's own certificate, which is no part of what it issues.
func (p *pebble) identify() {
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

func (p *pebble) start(path, dns string) {
	p.t.Helper()
	p.log = new(syncBuffer)
	p.program = exec.Command(path, "-config", filepath.Join(p.dir, "config.json"), "-dnsserver", dns)
	// Without the pauses and the refusals at random by which it tries clients.
	p.program.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_WFE_NONCEREJECT=0", "PEBBLE_AUTHZREUSE=0")
	p.program.Stdout, p.program.Stderr = p.log, p.log
	if err := p.program.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(p.stop)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if _, err := p.get(fmt.Sprintf("https://127.0.0.1:%d/dir", p.port)); err == nil {
			return
		} else if time.Now().After(end) {
			p.t.Fatalf("pebble does not answer: %v\n%s", err, p.log)
		}
	}
}

// stop ends the server, and with it all that it knows.
func (p *pebble) stop() {
	_ = p.program.Process.Kill()
	_ = p.program.Wait()
}

func (p *pebble) get(url string) ([]byte, error) {
	text, err := os.ReadFile(p.ca)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true}}
	answer, err := client.Get(url)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return io.ReadAll(answer.Body)
}

// roots is what trusts the certificates that the server issues.
func (p *pebble) roots() *x509.CertPool {
	p.t.Helper()
	text, err := p.get(fmt.Sprintf("https://127.0.0.1:%d/roots/0", p.info))
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
