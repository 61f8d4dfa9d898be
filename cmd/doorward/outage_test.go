package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// programHeaders are those of a request that is not redirected to sign-in.
var programHeaders = []string{"Accept", "application/json", "Sec-Fetch-Mode", "cors"}

// TestProviderOutage: while the provider is gone, whoever is signed in works on, on hosts that they did not visit before too, until their
// session's own end; who is not is told why; and when it is back all goes on without anybody's doing.
func TestProviderOutage(t *testing.T) {
	s := prepareStack(t, twoHosts)
	config := strings.Replace(s.read("doorward.yaml"), "client_secret: hush", "client_secret: hush\n  scopes: [openid, profile, email, offline_access]", 1)
	s.write("doorward.yaml", config+"\nsession: {refresh_interval: 1s, lifetime: 12s}\n")
	refreshed := s.countRefreshes()
	s.start()
	bob, ends := s.browser(), time.Now().Add(12*time.Second)
	bob.signIn(s.url("grafana", "/"), "bob")
	s.write("doorward.yaml", config+"\nsession: {refresh_interval: 1s, lifetime: 1h}\n")
	s.served()
	alice := s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	s.eventually("a session is refreshed", func() bool { return refreshed.Load() > 0 })

	s.idp.Close()
	const tried = "a session could not be refreshed: it goes on as it is"
	s.eventually("a refresh is tried of which nothing comes", func() bool { return strings.Count(s.log.String(), tried) >= 4 })
	for _, host := range []string{"grafana", "wiki"} {
		if page := alice.get(s.url(host, "/")); page.StatusCode != 200 || page.Request.URL.String() != s.url(host, "/") {
			t.Errorf("%s with the provider gone: %d at %s, want 200", host, page.StatusCode, page.Request.URL)
		}
	}
	stranger := s.browser()
	s.eventually("a new sign-in comes to a page of ours", func() bool {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("grafana", "/"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", "text/html")
		res, err := stranger.Do(req)
		if err != nil {
			return false // the provider's last answer is some seconds old, and the browser was sent there
		}
		res.Body.Close()
		return res.StatusCode == 503
	})
	page := stranger.get(s.url("grafana", "/"))
	if page.StatusCode != 503 || !strings.Contains(page.text, "Sign-in is not available") || !strings.Contains(page.text, "Try again") {
		t.Errorf("a new sign-in with the provider gone: %d\n%s", page.StatusCode, page.text)
	}
	time.Sleep(time.Until(ends))
	if got := bob.get(s.url("grafana", "/"), programHeaders...); got.StatusCode != 401 {
		t.Errorf("after the session's own end: %d, want 401", got.StatusCode)
	}
	if got := alice.get(s.url("grafana", "/"), programHeaders...); got.StatusCode != 200 {
		t.Errorf("before the session's own end: %d, want 200", got.StatusCode)
	}

	s.reopenProvider()
	before := refreshed.Load()
	s.eventually("a session is refreshed again", func() bool { return refreshed.Load() > before })
	if got := alice.get(s.url("wiki", "/"), programHeaders...); got.StatusCode != 200 {
		t.Errorf("after the refresh: %d, want 200", got.StatusCode)
	}
	if page := stranger.signIn(s.url("grafana", "/"), "mallory"); page.StatusCode != 403 || page.Request.URL.String() != s.url("grafana", "/") {
		t.Errorf("a new sign-in with the provider back: %d at %s", page.StatusCode, page.Request.URL)
	}
	if page := bob.get(s.url("grafana", "/")); page.StatusCode != 200 || page.Request.URL.String() != s.url("grafana", "/") {
		t.Errorf("another session with the provider back: %d at %s", page.StatusCode, page.Request.URL)
	}
	s.stop(syscall.SIGTERM)
	if strings.Contains(s.log.String(), "the provider no longer knows the session") {
		t.Errorf("an outage was taken for a refusal:\n%s", s.log)
	}
}

// countRefreshes counts those that the provider has answered.
func (s *stack) countRefreshes() *atomic.Int64 {
	n, inner := new(atomic.Int64), s.idp.Config.Handler
	s.idp.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refresh := r.URL.Path == "/oauth/token" && r.FormValue("grant_type") == "refresh_token"
		inner.ServeHTTP(w, r)
		if refresh {
			n.Add(1)
		}
	})
	return n
}

// reopenProvider starts the provider again after s.idp.Close, at its address and with all that it knew.
func (s *stack) reopenProvider() {
	s.t.Helper()
	l, err := net.Listen("tcp", s.idp.Listener.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	address := s.idp.URL
	s.idp = &httptest.Server{Listener: l, Config: &http.Server{Handler: s.idp.Config.Handler}}
	s.idp.Start()
	s.idp.URL = address
	s.t.Cleanup(s.idp.Close)
}

// eventually waits, for long enough on a busy machine.
func (s *stack) eventually(what string, done func() bool) {
	s.t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within 30 s: %s\n%s", what, s.log)
		}
	}
}
