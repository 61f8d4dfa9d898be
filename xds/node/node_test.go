package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/store/bolt"
	"doorward/xds/cert"
)

// site is a doorward's side: the records, and a door on loopback at which one service says who has called it.
type site struct {
	*Nodes
	t    *testing.T
	addr string
	log  *logBuffer
	mu   sync.Mutex // guards at
	at   time.Time
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	db, err := bolt.Open(filepath.Join(dir, "doorward.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	ca, err := cert.NewAuthority(filepath.Join(dir, "nodes"), "CA of nodes")
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t, log: new(logBuffer), at: time.Now()}
	s.Nodes, err = New(Config{Store: db, CA: ca, Log: slog.New(slog.NewTextHandler(s.log, nil)), Now: s.now})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().String()
	d := s.Open(l, "127.0.0.1", ProtocolHTTP, ProtocolRenewal)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 4)
	go func() { done <- d.Run(ctx) }()
	go func() { done <- s.Run(ctx) }()
	go func() { done <- serve(d.Listener(ProtocolRenewal), s.RenewalHandler()) }()
	go func() {
		done <- serve(d.Listener(ProtocolHTTP), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p := FromContext(r.Context())
			_, _ = io.WriteString(w, p.Name+" of "+p.Group)
		}))
	}()
	t.Cleanup(func() {
		cancel()
		_, _ = d.Listener(ProtocolHTTP).Close(), d.Listener(ProtocolRenewal).Close()
		for range cap(done) {
			if err := <-done; err != nil && !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
	})
	return s
}

func serve(l net.Listener, h http.Handler) error {
	return (&http.Server{Handler: h, ConnContext: ConnContext}).Serve(l)
}

func (s *site) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *site) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.at.Add(d)
}

// bootstrap certifies a node as the operator does.
func (s *site) bootstrap(name, group string, life time.Duration) []byte {
	s.t.Helper()
	key, err := NewKey()
	if err != nil {
		s.t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		s.t.Fatal(err)
	}
	_, certificate, err := s.Certify(s.t.Context(), name, group, life, request)
	if err != nil {
		s.t.Fatal(err)
	}
	pair, err := key.Pair(certificate)
	if err != nil {
		s.t.Fatal(err)
	}
	return pair
}

// dial connects as an Envoy does. The handshake of TLS 1.3 is over for a client before it knows that it is refused, so one request is made.
func (s *site) dial(pair []byte, protocol string) (*tls.Conn, string) {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(s.Root())
	config := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", NextProtos: []string{protocol}}
	if pair != nil {
		own, err := tls.X509KeyPair(pair, pair)
		if err != nil {
			s.t.Fatal(err)
		}
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &own, nil } // whatever the server asks for
	}
	c, err := tls.Dial("tcp", s.addr, config)
	if err != nil {
		return nil, err.Error()
	}
	s.t.Cleanup(func() { c.Close() })
	return c, ask(c)
}

func ask(c *tls.Conn) string {
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		return err.Error()
	}
	text := make([]byte, 4096)
	n, err := c.Read(text)
	if err != nil {
		return err.Error()
	}
	_, body, _ := strings.Cut(string(text[:n]), "\r\n\r\n")
	return body
}

func TestWhoIsLetIn(t *testing.T) {
	t.Parallel()
	s, other := newSite(t), newSite(t)
	good := s.bootstrap("edge-1", "eu", time.Hour)
	replaced := s.bootstrap("edge-2", "", time.Hour)
	s.bootstrap("edge-2", "us", time.Hour)
	revoked := s.bootstrap("edge-3", "eu", time.Hour)
	if err := s.Revoke(t.Context(), "edge-3"); err != nil {
		t.Fatal(err)
	}
	ours := serverPair(t, s)
	for _, row := range []struct {
		name, protocol string
		pair           []byte
		want, logged   string
	}{
		{"a node", ProtocolHTTP, good, "edge-1 of eu", ""},
		{"nobody", ProtocolHTTP, nil, "remote error: tls: certificate required", "client didn't provide a certificate"},
		{"another CA", ProtocolHTTP, other.bootstrap("edge-1", "eu", time.Hour), "remote error: tls: unknown certificate authority", "certificate signed by unknown authority"},
		{"a certificate that is Doorward's own", ProtocolHTTP, ours, "remote error: tls: bad certificate", "incompatible key usage"},
		{"replaced", ProtocolHTTP, replaced, "remote error: tls: bad certificate", `node \"edge-2\" has been issued anew`},
		{"revoked", ProtocolHTTP, revoked, "remote error: tls: bad certificate", `node \"edge-3\" is revoked`},
		{"not spoken here", "h2", good, "remote error: tls: no application protocol", "client requested unsupported application protocols"},
	} {
		s.pass(2 * tellEvery)
		s.log.reset()
		if _, got := s.dial(row.pair, row.protocol); got != row.want {
			t.Errorf("%s: %q, want %q", row.name, got, row.want)
		}
		for end := time.Now().Add(2 * time.Second); !strings.Contains(s.log.String(), row.logged) && time.Now().Before(end); {
			time.Sleep(time.Millisecond) // who is refused may know it before the log does
		}
		if log := s.log.String(); !strings.Contains(log, row.logged) || row.logged == "" && log != "" {
			t.Errorf("%s: the log has no %q:\n%s", row.name, row.logged, log)
		}
	}
}

// serverPair is a certificate of the same CA, for another use.
// TestOneStrangerKeepsNoNodeOut: connections that say nothing take the handshakes of their own address alone.
func TestOneStrangerKeepsNoNodeOut(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pair := s.bootstrap("edge-1", "eu", time.Hour)
	stranger := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	closed := make(chan error, 2*fromOne)
	for range 2 * fromOne {
		c, err := stranger.DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			_ = c.SetReadDeadline(time.Now().Add(handshakeTime / 2))
			_, err := c.Read(make([]byte, 1))
			closed <- err
		}()
	}
	if _, got := s.dial(pair, ProtocolHTTP); got != "edge-1 of eu" {
		t.Errorf("a node beside them: %q", got)
	}
	refused := 0
	for range cap(closed) {
		if err := <-closed; !errors.Is(err, os.ErrDeadlineExceeded) {
			refused++
		}
	}
	if refused != fromOne {
		t.Errorf("%d of a stranger's connections are closed at once, want %d", refused, fromOne)
	}
}

func serverPair(t *testing.T, s *site) []byte {
	t.Helper()
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := s.ca.Issue(x509.Certificate{DNSNames: []string{"x"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}},
		key.private.Public(), s.now(), s.now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	pair, err := key.Pair(chain)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func TestAnExpiredCertificateLetsNobodyIn(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pair := s.bootstrap("edge-1", "eu", time.Minute)
	open, got := s.dial(pair, ProtocolHTTP)
	if got != "edge-1 of eu" {
		t.Fatal(got)
	}
	s.pass(59 * time.Second)
	if got := ask(open); got != "edge-1 of eu" {
		t.Errorf("before its end: %q", got)
	}
	s.pass(2 * time.Second)
	if _, got := s.dial(pair, ProtocolHTTP); got != "remote error: tls: expired certificate" && got != "remote error: tls: bad certificate" {
		t.Errorf("%q", got)
	}
	closed(t, open)
	if _, err := Renew(t.Context(), s.addr, pair, s.Root()); err == nil {
		t.Error("renewed after its end")
	}
}

// closed fails unless the other side closes within about the time between two looks.
func closed(t *testing.T, c *tls.Conn) {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(2 * lookEvery))
	_, err := c.Read(make([]byte, 1))
	var timeout net.Error
	if err == nil || errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("the connection is still open (%v)", err)
	}
}

func TestRenewalKeepsWhatIsOpen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	first := s.bootstrap("edge-1", "eu", time.Minute)
	open, _ := s.dial(first, ProtocolHTTP)
	if _, err := Renew(t.Context(), s.addr, first, s.Root()); err == nil || !strings.Contains(err.Error(), "wait a second") {
		t.Errorf("a renewal within the same second: %v", err)
	}
	s.pass(40 * time.Second)
	second, err := Renew(t.Context(), s.addr, first, s.Root())
	if err != nil {
		t.Fatal(err)
	}
	s.pass(30 * time.Second)
	time.Sleep(lookEvery + lookEvery/2)
	if got := ask(open); got != "edge-1 of eu" {
		t.Errorf("what was open under the first certificate: %q", got)
	}
	if _, got := s.dial(second, ProtocolHTTP); got != "edge-1 of eu" {
		t.Errorf("with the second certificate: %q", got)
	}
	if _, got := s.dial(first, ProtocolHTTP); !strings.HasPrefix(got, "remote error: tls: ") {
		t.Errorf("with the first certificate: %q", got)
	}
	list, err := s.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Generation != 1 || list[0].Expires.Sub(s.now()) < 25*time.Second {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestRevocationEndsWhatIsOpen(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	pair, others := s.bootstrap("edge-1", "eu", time.Hour), s.bootstrap("edge-2", "eu", time.Hour)
	open, _ := s.dial(pair, ProtocolHTTP)
	stays, _ := s.dial(others, ProtocolHTTP)
	start := time.Now()
	if err := s.Revoke(t.Context(), "edge-1"); err != nil {
		t.Fatal(err)
	}
	closed(t, open)
	if took := time.Since(start); took > time.Second {
		t.Errorf("it took %v", took)
	}
	if got := ask(stays); got != "edge-2 of eu" {
		t.Errorf("another node: %q", got)
	}
	if _, err := Renew(t.Context(), s.addr, pair, s.Root()); err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Errorf("renewal of a revoked node: %v", err)
	}
	if _, got := s.dial(s.bootstrap("edge-1", "us", time.Hour), ProtocolHTTP); got != "edge-1 of us" {
		t.Errorf("bootstrapped anew: %q", got)
	}
	if _, got := s.dial(pair, ProtocolHTTP); got != "remote error: tls: bad certificate" {
		t.Errorf("the revoked certificate after that: %q", got)
	}
	if err := s.Revoke(t.Context(), "edge-9"); !errors.Is(err, ErrUnknown) {
		t.Errorf("revoking nobody: %v", err)
	}
}

func TestWhatIsNotCertified(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	key, err := NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	forged := append([]byte(nil), request...)
	forged[len(forged)-1] ^= 1
	for _, row := range []struct {
		node    string
		life    time.Duration
		request []byte
		want    string
	}{
		{"", time.Hour, request, `refused: "" is no name for a node; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen, and begins and ends with a letter or digit`},
		{"a/b", time.Hour, request, `refused: "a/b" is no name for a node; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen, and begins and ends with a letter or digit`},
		{"a", time.Second, request, "refused: a certificate of a node lives from 5s to 2160h0m0s, not 1s"},
		{"a", time.Hour, forged, "refused: the certificate request is not signed by its key: x509: ECDSA verification failure"},
	} {
		if _, _, err := s.Certify(t.Context(), row.node, "", row.life, row.request); err == nil || err.Error() != row.want {
			t.Errorf("%q: %v, want %s", row.node, err, row.want)
		}
	}
	if list, err := s.List(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestStrangersTakeNoMoreThanTheirShare: connections that say nothing hold their places for a while, and are closed.
func TestStrangersTakeNoMoreThanTheirShare(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	var idle []net.Conn
	for i := range handshakes {
		from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+i/fromOne))}}
		c, err := from.DialContext(t.Context(), "tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		idle = append(idle, c)
	}
	more, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer more.Close()
	_ = more.SetReadDeadline(time.Now().Add(2 * time.Second))
	if _, err := more.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one more is let wait: %v", err)
	}
	_ = idle[0].SetReadDeadline(time.Now().Add(handshakeTime + 2*time.Second))
	if _, err := idle[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !strings.Contains(err.Error(), "reset") {
		t.Errorf("one that says nothing: %v", err)
	}
	if _, got := s.dial(s.bootstrap("edge-1", "eu", time.Hour), ProtocolHTTP); got != "edge-1 of eu" {
		t.Errorf("a node after that: %q", got)
	}
}

// logBuffer is a log that is read while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

func (b *logBuffer) reset() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}
