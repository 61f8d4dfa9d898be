package acme

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/store"
	"doorward/xds/cert"

	"github.com/caddyserver/certmagic"
)

// authority stands for what an ACME server comes to: it signs requests, or refuses to.
type authority struct {
	server, key string // its host, and what certmagic calls it
	cert        *x509.Certificate
	signer      *ecdsa.PrivateKey
	life        time.Duration

	mu     sync.Mutex // guards what follows
	issued []string
	refuse error
}

func newAuthority(t *testing.T, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{server: name, cert: parsed, signer: key, life: 90 * 24 * time.Hour}
}

func (a *authority) IssuerKey() string { return a.key }

func (a *authority) Issue(_ context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.refuse != nil {
		return nil, a.refuse
	}
	a.issued = append(a.issued, request.DNSNames...)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(int64(1 + len(a.issued))), DNSNames: request.DNSNames, NotBefore: time.Now(), NotAfter: time.Now().Add(a.life),
	}, a.cert, request.PublicKey, a.signer)
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

func (a *authority) refuses(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.refuse = err
}

func (a *authority) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.issued)
}

// replica is a client whose server is an authority.
func replica(t *testing.T, records store.Store) *Client {
	t.Helper()
	c, err := New(Config{Store: records, Seal: plainSeal{}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *Client) run(t *testing.T) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func settings(t *testing.T, server string) *config.ACME {
	t.Helper()
	directory, err := config.ParseURL("https://" + server + "/dir")
	if err != nil {
		t.Fatal(err)
	}
	return &config.ACME{Email: "ops@example.com", Directory: directory, Challenges: config.Names{config.ChallengeHTTP, config.ChallengeTLSALPN}}
}

// prepare is Prepare for an authority, in the place of a server of its name.
func (c *Client) prepare(t *testing.T, a *authority) *Prepared {
	t.Helper()
	p, err := c.Prepare(settings(t, a.server))
	if err != nil {
		t.Fatal(err)
	}
	a.key = p.engine.issuer.IssuerKey()
	p.engine.magic.Issuers = []certmagic.Issuer{a}
	return p
}

// await waits until a host has a certificate and nobody is at it.
func (c *Client) await(t *testing.T, p *Prepared, name string) cert.Pair {
	t.Helper()
	c.eventually(t, name, func(h *host) bool { return h.kept.Leaf != nil })
	pair, err := p.Pair(name)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// eventually waits until a host that nobody is at is as wanted.
func (c *Client) eventually(t *testing.T, name string, wanted func(*host) bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		c.mu.Lock()
		h := c.hosts[name]
		done := h != nil && !h.busy && wanted(h)
		c.mu.Unlock()
		if done {
			return
		}
	}
	t.Fatalf("%s: %+v", name, c.State(name))
}

// TestReplicasShareACertificate: any number of them, and one issuance.
func TestReplicasShareACertificate(t *testing.T) {
	records, ca := newStore(t), newAuthority(t, "ca.example.com")
	hosts := []string{"a.example.com", "b.example.com"}
	var clients []*Client
	var prepared []*Prepared
	for range 3 {
		c := replica(t, records)
		clients, prepared = append(clients, c), append(prepared, c.prepare(t, ca))
	}
	for i, c := range clients {
		c.Adopt(prepared[i], slices.Clone(hosts))
		c.run(t)
	}
	for _, host := range hosts {
		first := clients[0].await(t, prepared[0], host)
		for i, c := range clients[1:] {
			if other := c.await(t, prepared[i+1], host); !other.Equal(first) {
				t.Errorf("%s: two replicas have different certificates", host)
			}
		}
	}
	if ca.count() != 2 {
		t.Errorf("%d certificates were issued for two hosts", ca.count())
	}
}

// TestAStartIssuesNothing that is there already, and needs nobody for it.
func TestAStartIssuesNothing(t *testing.T) {
	records, ca := newStore(t), newAuthority(t, "ca.example.com")
	first := replica(t, records)
	p := first.prepare(t, ca)
	if _, err := p.Pair("a.example.com"); !errors.Is(err, cert.ErrPending) {
		t.Fatalf("before there is one: %v", err)
	}
	first.Adopt(p, []string{"a.example.com"})
	first.run(t)
	pair := first.await(t, p, "a.example.com")
	if got := first.Changed(); !slices.Equal(got, []string{"a.example.com"}) || first.Changed() != nil {
		t.Errorf("Changed = %v, and not once", got)
	}
	if state := first.State("a.example.com"); state.Problem != "" || !state.Renewal.After(time.Now().Add(50*24*time.Hour)) || !state.Renewal.Before(pair.Leaf.NotAfter) {
		t.Errorf("State = %+v", state)
	}

	ca.refuses(errors.New("down"))
	second := replica(t, records)
	again, err := second.prepare(t, ca).Pair("a.example.com")
	if err != nil || !again.Equal(pair) || ca.count() != 1 {
		t.Errorf("after a start: %v, %d issued", err, ca.count())
	}
}

// TestAFailureIsTriedAgain later, and is visible until then.
func TestAFailureIsTriedAgain(t *testing.T) {
	records, ca := newStore(t), newAuthority(t, "ca.example.com")
	ca.refuses(errors.New("no such name"))
	c := replica(t, records)
	p := c.prepare(t, ca)
	c.Adopt(p, []string{"a.example.com"})
	c.run(t)
	c.eventually(t, "a.example.com", func(h *host) bool { return h.problem != "" })
	state := c.State("a.example.com")
	if wait := time.Until(state.Retry); !strings.Contains(state.Problem, "no such name") || wait <= 0 || wait > firstRetry {
		t.Fatalf("State = %+v", state)
	}
	if _, err := p.Pair("a.example.com"); !errors.Is(err, cert.ErrPending) || !strings.Contains(err.Error(), "no such name") {
		t.Errorf("Pair: %v", err)
	}
	ca.refuses(nil)
	c.due("a.example.com")
	c.await(t, p, "a.example.com")
	if state := c.State("a.example.com"); state.Problem != "" || !state.Retry.IsZero() {
		t.Errorf("State = %+v after it worked", state)
	}
}

// due has a host looked after now.
func (c *Client) due(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.hosts[name].next = time.Now()
	c.rouse()
}

// TestADueCertificateIsRenewed; where that fails, the present one stays.
func TestADueCertificateIsRenewed(t *testing.T) {
	records, ca := newStore(t), newAuthority(t, "ca.example.com")
	ca.life = 40 * time.Minute // of which certmagic takes the last 50 minutes for too short to wait
	c := replica(t, records)
	p := c.prepare(t, ca)
	c.Adopt(p, []string{"a.example.com"})
	c.run(t)
	first := c.await(t, p, "a.example.com")
	ca.refuses(errors.New("down"))
	c.due("a.example.com")
	c.eventually(t, "a.example.com", func(h *host) bool { return h.problem != "" })
	if now, err := p.Pair("a.example.com"); err != nil || !now.Equal(first) || !strings.Contains(c.State("a.example.com").Problem, "down") {
		t.Errorf("a renewal that failed: %v, %+v", err, c.State("a.example.com"))
	}
	retry := c.State("a.example.com").Retry
	c.reload(t.Context(), "a.example.com") // somebody has written beside the certificate
	if state := c.State("a.example.com"); !strings.Contains(state.Problem, "down") || state.Retry != retry {
		t.Errorf("the failure is forgotten: %+v", state)
	}
	ca.refuses(nil)
	c.due("a.example.com")
	c.eventually(t, "a.example.com", func(h *host) bool { return !h.kept.Equal(first) && h.problem == "" })
}

// TestAnotherServer takes the place of the first: its certificates come, and the others stay until then.
func TestAnotherServer(t *testing.T) {
	records, old, next := newStore(t), newAuthority(t, "old.example.com"), newAuthority(t, "next.example.com")
	c := replica(t, records)
	p := c.prepare(t, old)
	c.Adopt(p, []string{"a.example.com"})
	c.run(t)
	first := c.await(t, p, "a.example.com")
	next.refuses(errors.New("down"))
	p = c.prepare(t, next)
	if pair, err := p.Pair("a.example.com"); err != nil || !pair.Equal(first) {
		t.Errorf("before it is adopted: %v", err)
	}
	c.Adopt(p, []string{"a.example.com"})
	if pair, err := p.Pair("a.example.com"); err != nil || !pair.Equal(first) {
		t.Errorf("before it has issued: %v", err)
	}
	c.eventually(t, "a.example.com", func(h *host) bool { return h.problem != "" })
	next.refuses(nil)
	c.due("a.example.com")
	c.eventually(t, "a.example.com", func(h *host) bool { return h.kept.Leaf.Issuer.CommonName == "next.example.com" })
}

// TestHostsComeAndGo: nothing is got for a host that is not there any more, and none for one that never was.
func TestHostsComeAndGo(t *testing.T) {
	records, ca := newStore(t), newAuthority(t, "ca.example.com")
	c := replica(t, records)
	p := c.prepare(t, ca)
	c.Adopt(p, nil)
	c.run(t)
	c.Change(t.Context(), []string{"a.example.com", "b.example.com"}, nil)
	c.await(t, p, "a.example.com")
	c.await(t, p, "b.example.com")
	c.Change(t.Context(), nil, []string{"a.example.com"})
	if c.State("a.example.com") != (State{}) || c.engineFor("a.example.com") != nil || c.engineFor("b.example.com") == nil {
		t.Error("a.example.com is still looked after, or b.example.com is not")
	}
	c.Change(t.Context(), []string{"a.example.com"}, nil)
	c.await(t, p, "a.example.com")
	if ca.count() != 2 {
		t.Errorf("%d certificates were issued for two hosts", ca.count())
	}
}

// TestChallengesOfStrangers: whatever they ask for, there is no answer.
func TestChallengesOfStrangers(t *testing.T) {
	c := replica(t, newStore(t))
	c.Adopt(c.prepare(t, newAuthority(t, "ca.example.com")), []string{"a.example.com"})
	for _, target := range []string{"http://a.example.com", "http://a.example.com:80", "http://A.example.com", "http://stranger.example.com", "http://[::1]"} {
		for _, path := range []string{ChallengePath, ChallengePath + "token", ChallengePath + "../x", "/other"} {
			answer := httptest.NewRecorder()
			c.ServeHTTP(answer, httptest.NewRequest("GET", target+path, nil))
			if answer.Code != 404 || strings.Contains(answer.Body.String(), "token.") {
				t.Errorf("%s%s: status %d, %s", target, path, answer.Code, answer.Body)
			}
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.ServeTLS(ctx, l) }()
	for name, protocols := range map[string][]string{
		"a.example.com": {tlsALPN}, "stranger.example.com": {tlsALPN}, "b.example.com": {tlsALPN, "h2"}, "c.example.com": nil,
	} {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true})
		if err == nil {
			conn.Close()
			t.Errorf("%s with %v: a handshake", name, protocols)
		}
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("ServeTLS = %v", err)
	}
}
