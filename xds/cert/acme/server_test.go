package acme

import (
	"encoding/json"
	"net"
	"net/http"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/xds/cert/acme/acmetest"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
)

// TestARealServer issues, and says in between that it wants a certificate renewed (ARI), to which a client listens when it may ask again.
func TestARealServer(t *testing.T) {
	challenges, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := acmetest.New(t, acmetest.Config{HTTP: challenges.Addr().(*net.TCPAddr).Port})
	c := replica(t, newStore(t))
	go func() { _ = http.Serve(challenges, c) }()
	t.Cleanup(func() { challenges.Close() })
	s := settings(t, "unused")
	s.CAFile, s.Challenges = server.CA, config.Names{config.ChallengeHTTP}
	if s.Directory, err = config.ParseURL(server.URL); err != nil {
		t.Fatal(err)
	}
	p, err := c.Prepare(s)
	if err != nil {
		t.Fatal(err)
	}
	c.Adopt(p, []string{"a.example.com"})
	c.run(t)
	first := c.await(t, p, "a.example.com")
	if renewal := c.State("a.example.com").Renewal; renewal.Before(time.Now().Add(30 * 24 * time.Hour)) {
		t.Errorf("it is to be renewed at %v", renewal)
	}
	server.Renew(first.Leaf)
	c.askAgain(t, "a.example.com")
	c.due("a.example.com")
	c.eventually(t, "a.example.com", func(h *host) bool { return !h.kept.Equal(first) })
	if state := c.State("a.example.com"); state.Problem != "" || state.Renewal.Before(time.Now()) {
		t.Errorf("State = %+v", state)
	}
}

// askAgain has the time come at which a server may be asked again when it wants a certificate renewed.
func (c *Client) askAgain(t *testing.T, name string) {
	t.Helper()
	key := certmagic.StorageKeys.SiteMeta(c.engine.issuer.IssuerKey(), name)
	text, err := c.storage.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	var resource certmagic.CertificateResource
	var issued acme.Certificate
	if json.Unmarshal(text, &resource) != nil || json.Unmarshal(resource.IssuerData, &issued) != nil || issued.RenewalInfo == nil {
		t.Fatalf("the server has said nothing of renewals: %s", text)
	}
	past := time.Now().Add(-time.Minute)
	issued.RenewalInfo.RetryAfter = &past
	if resource.IssuerData, err = json.Marshal(issued); err != nil {
		t.Fatal(err)
	}
	if text, err = json.Marshal(resource); err != nil {
		t.Fatal(err)
	}
	if err := c.storage.Store(t.Context(), key, text); err != nil {
		t.Fatal(err)
	}
}
