package main

import (
	"context"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"doorward/cmd/demo/upstream"
)

// guideStack is the guide's case: the application behind the first host verifies the identity JWT as Grafana does, with the guide's settings.
// Each of change may spoil the settings.
func guideStack(t *testing.T, change func(*upstream.Settings)) *stack {
	t.Helper()
	s := prepareStack(t, twoHosts)
	settings := upstream.Settings{
		HeaderName: "X-Pomerium-Jwt-Assertion", EmailClaim: "email", UsernameClaim: "email", AutoSignUp: true, CacheTTL: time.Hour,
		JWKSetURL:         s.url("grafana", "/.well-known/pomerium/jwks.json"),
		ExpectClaims:      map[string]any{"aud": "grafana.localhost", "iss": "grafana.localhost"},
		RoleAttributePath: "role",
		TLSClientCA:       filepath.Join(s.dir, "data", "ca", "ca.pem"),
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	if change != nil {
		change(&settings)
	}
	app, err := upstream.NewGrafana(settings, s.url("grafana", "/.pomerium/sign_out"))
	if err != nil {
		t.Fatal(err)
	}
	s.grafana.app = app
	s.start()
	return s
}

// TestGuide is the guide's "Verify the setup", step by step.
func TestGuide(t *testing.T) {
	s := guideStack(t, nil)
	t.Run("1. the route requires authentication", func(t *testing.T) {
		page := s.browser().get(s.url("grafana", "/"))
		if !strings.HasPrefix(page.Request.URL.String(), s.idp.URL+"/login") {
			t.Errorf("a fresh browser came to %s, want the provider's login", page.Request.URL)
		}
		if n := len(s.grafana.requests()); n != 0 {
			t.Errorf("the application saw %d requests", n)
		}
	})
	alice := s.browser()
	t.Run("2. an allowed user gets in", func(t *testing.T) {
		page := alice.signIn(s.url("grafana", "/profile?tab=1"), "alice")
		if page.StatusCode != 200 || page.Request.URL.String() != s.url("grafana", "/profile?tab=1") {
			t.Errorf("alice came to %s with %d\n%s", page.Request.URL, page.StatusCode, s.log)
		}
	})
	t.Run("3. JWT SSO works", func(t *testing.T) {
		page := alice.get(s.url("grafana", "/profile"))
		if n := strings.Count(page.text, "Synced via JWT"); n != 3 {
			t.Errorf("%d of name, e-mail and username are synced via JWT\n%s", n, page.text)
		}
		for _, want := range []string{"Alice Adams", `id="email">alice@example.com<`, `id="login">alice@example.com<`, "Admin"} {
			if !strings.Contains(page.text, want) {
				t.Errorf("the profile lacks %s\n%s", want, page.text)
			}
		}
	})
	t.Run("4. a disallowed user is blocked", func(t *testing.T) {
		before := len(s.grafana.requests())
		page := s.browser().signIn(s.url("grafana", "/"), "mallory")
		if page.StatusCode != 403 {
			t.Errorf("mallory got %d\n%s", page.StatusCode, page.text)
		}
		for _, r := range s.grafana.requests()[before:] {
			t.Errorf("the application saw %s", r.RequestURI)
		}
	})
	t.Run("sign-out as the application does it", func(t *testing.T) {
		alice.get(s.url("grafana", "/logout"))
		if got := alice.get(s.url("grafana", "/api/user"), "Accept", "application/json", "Sec-Fetch-Mode", "cors"); got.StatusCode != 401 {
			t.Errorf("after Grafana's sign-out: status %d", got.StatusCode)
		}
		if page := alice.get(s.url("grafana", "/")); !strings.HasPrefix(page.Request.URL.String(), s.idp.URL+"/login") {
			t.Errorf("signed straight back in: %s", page.Request.URL)
		}
	})
}

// TestGuideFailureOwnLoginForm is the guide's first failure mode: the application shows its own login form, because the JWT does not verify. The
// application says why, and it never takes the person for somebody.
func TestGuideFailureOwnLoginForm(t *testing.T) {
	for name, row := range map[string]struct {
		change func(*upstream.Settings)
		why    string
	}{
		"the JWKS URL is not reachable":       {func(s *upstream.Settings) { s.JWKSetURL = "https://grafana.localhost:1/jwks.json" }, "refused"},
		"the CA is not known":                 {func(s *upstream.Settings) { s.TLSClientCA = "" }, "certificate"},
		"a JWT for another application":       {func(s *upstream.Settings) { s.ExpectClaims = map[string]any{"aud": "wiki.localhost"} }, "aud"},
		"the header has another name there":   {func(s *upstream.Settings) { s.HeaderName = "X-Jwt-Assertion" }, ""},
		"accounts are not made by themselves": {func(s *upstream.Settings) { s.AutoSignUp = false }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := guideStack(t, row.change)
			page := s.browser().signIn(s.url("grafana", "/profile"), "alice")
			if strings.Contains(page.text, "Synced via JWT") || !strings.Contains(page.text, row.why) {
				t.Errorf("got %d\n%s\nwant a login form that says %q", page.StatusCode, page.text, row.why)
			}
		})
	}
}

// TestGuideFailureNoKeys is the second: "no keys found". A Doorward that cannot sign does not start, and one that runs never serves an empty
// set or a JSON error in its place, which Grafana would keep for an hour.
func TestGuideFailureNoKeys(t *testing.T) {
	s := prepareStack(t, twoHosts)
	s.write("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n")
	s.write("doorward.yaml", s.read("doorward.yaml")+"\njwt: {signing_key_file: key.pem}\n")
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "up", "--config", s.config(), "--envoy", s.envoyBin).CombinedOutput()
	if err == nil || ctx.Err() != nil || !strings.Contains(string(out), "signing_key_file") {
		t.Errorf("with a broken key it started or did not say why: %v\n%s", err, out)
	}
	s.writeConfig(twoHosts)
	s.start()
	b := s.browser()
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodDelete} {
		req, err := http.NewRequestWithContext(t.Context(), method, s.url("grafana", "/.well-known/pomerium/jwks.json"), nil)
		if err != nil {
			t.Fatal(err)
		}
		got := b.do(req)
		if isJSON := strings.Contains(got.Header.Get("Content-Type"), "json"); isJSON != (method == http.MethodGet) {
			t.Errorf("%s: status %d with %s", method, got.StatusCode, got.Header.Get("Content-Type"))
		}
		if method == http.MethodGet && !strings.Contains(got.text, `"kid"`) {
			t.Errorf("the key set is empty: %s", got.text)
		}
	}
}

// TestGuideFailureLoopAndCertificate is the third: a redirect loop, or a certificate error.
func TestGuideFailureLoopAndCertificate(t *testing.T) {
	s := newStack(t, twoHosts)
	if got := s.status("unknown", "/"); got != 0 {
		t.Errorf("a host without a route got an answer: %d", got)
	}
	// The browser keeps no session cookie: the provider signs it in each time, and it comes back without one.
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	b.Jar = forgetful{b.Jar}
	b.CheckRedirect = func(_ *http.Request, via []*http.Request) error {
		if len(via) > 60 {
			return http.ErrUseLastResponse
		}
		return nil
	}
	page := b.get(s.url("grafana", "/"))
	if page.StatusCode < 400 || !strings.Contains(strings.ToLower(page.text), "cookie") {
		t.Errorf("a loop ended at %s with %d, want a page that names the cookie\n%.600s", page.Request.URL, page.StatusCode, page.text)
	}
}

// forgetful loses the session cookie, as a browser does that is told to.
type forgetful struct{ http.CookieJar }

func (f forgetful) Cookies(u *url.URL) (kept []*http.Cookie) {
	for _, c := range f.CookieJar.Cookies(u) {
		if c.Name != "__Host-doorward" {
			kept = append(kept, c)
		}
	}
	return kept
}
