package acme

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"
)

// tlsALPN is the only protocol that a challenge's handshake offers: RFC 8737, section 3.
const tlsALPN = "acme-tls/1"

// ChallengePath is what the paths of http-01 challenges begin with: RFC 8555, section 8.3.
const ChallengePath = "/.well-known/acme-challenge/"

// handshakeTimeout bounds a challenge's handshake.
const handshakeTimeout = 10 * time.Second

// acceptAgain is how long after one that failed the next connection is accepted.
const acceptAgain = 100 * time.Millisecond

// solverPorts are ports of the loopback interface. Certmagic wants to listen itself while it waits for a challenge; nobody asks there, since Envoy
// hands challenges to Client, which knows the same answers.
type solverPorts struct{ http, tls int }

// newSolverPorts finds two that are free. Where one is not any more when it is wanted, certmagic takes it for answered by whoever has it, which does
// no harm.
func newSolverPorts() (solverPorts, error) {
	var ports [2]int
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return solverPorts{}, fmt.Errorf("find a port of the loopback interface: %w", err)
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return solverPorts{ports[0], ports[1]}, nil
}

// ServeHTTP answers http-01 challenges for which a replica is waiting, and everything else with 404.
func (c *Client) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	if e := c.engineFor(strings.ToLower(host)); e != nil && e.issuer.HandleHTTPChallenge(w, r) {
		return
	}
	http.NotFound(w, r)
}

// ServeTLS answers tls-alpn-01 challenges on a listener until ctx ends. A connection is closed after the handshake.
func (c *Client) ServeTLS(ctx context.Context, l net.Listener) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	settings := &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{tlsALPN}, GetCertificate: c.challengeCertificate}
	for {
		conn, err := l.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accept a challenge: %w", err)
		}
		if err != nil { // as with no file descriptor left: it passes, and must not end the program
			time.Sleep(acceptAgain)
			continue
		}
		go func() {
			ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
			defer cancel()
			t := tls.Server(conn, settings)
			_ = t.HandshakeContext(ctx) // strangers' handshakes fail
			_ = t.Close()
		}()
	}
}

func (c *Client) challengeCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if !slices.Equal(hello.SupportedProtos, []string{tlsALPN}) {
		return nil, errors.New("not a challenge")
	}
	e := c.engineFor(strings.ToLower(hello.ServerName))
	if e == nil {
		return nil, errors.New("no challenge for this name")
	}
	return e.magic.GetCertificate(hello)
}

// engineFor is what answers for a host; nil when the host's certificate is not ours to get.
func (c *Client) engineFor(host string) *engine {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.hosts[host] == nil {
		return nil
	}
	return c.engine
}
