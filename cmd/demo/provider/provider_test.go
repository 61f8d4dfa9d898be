package provider

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"reflect"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"golang.org/x/oauth2"
)

const (
	callback = "https://auth.localhost:8443/.pomerium/callback"
	afterOut = "https://grafana.localhost:8443/.pomerium/signed_out"
)

// world is a provider behind a real server, a browser with a cookie jar, and the relying party's settings.
type world struct {
	*Provider
	t       *testing.T
	browser *http.Client
	party   oauth2.Config
	now     atomic.Int64 // added to the clock, in nanoseconds
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { w.Provider.ServeHTTP(rw, r) }))
	issuer := "http://" + server.Listener.Addr().String()
	var err error
	w.Provider, err = New(Config{
		Issuer: issuer,
		Client: Client{ID: "doorward", Secret: "s3cret", RedirectURIs: []string{callback},
			PostLogoutRedirectURIs: []string{"https://*.localhost:8443/.pomerium/*"}},
		Users: []User{
			{Username: "alice", Password: "alice", Name: "Alice Adams", Email: "alice@example.com", Groups: []string{"grafana-admins", "engineering"}},
			{Username: "mallory", Password: "mallory", Name: "Mallory Moore", Email: "mallory@example.com"},
		},
		Now: func() time.Time { return time.Now().Add(time.Duration(w.now.Load())) },
	})
	if err != nil {
		t.Fatal(err)
	}
	server.Start()
	t.Cleanup(server.Close)
	w.browser = newBrowser(t)
	w.party = oauth2.Config{ClientID: "doorward", ClientSecret: "s3cret", RedirectURL: callback,
		Scopes:   []string{"openid", "profile", "email"},
		Endpoint: oauth2.Endpoint{AuthURL: issuer + "/authorize", TokenURL: issuer + "/oauth/token"}}
	return w
}

// newBrowser keeps cookies and stops before it leaves the provider.
func newBrowser(t *testing.T) *http.Client {
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &http.Client{Jar: jar, Timeout: 10 * time.Second, CheckRedirect: func(r *http.Request, _ []*http.Request) error {
		if r.URL.Scheme == "https" {
			return http.ErrUseLastResponse
		}
		return nil
	}}
}

// visit is a page, or the redirect by which the browser leaves.
type visit struct {
	status   int
	body     string
	location *url.URL
	header   http.Header
}

func (w *world) do(req *http.Request) visit {
	w.t.Helper()
	resp, err := w.browser.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	location, _ := resp.Location()
	return visit{resp.StatusCode, string(body), location, resp.Header}
}

func (w *world) get(target string) visit {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return w.do(req)
}

// fill posts the login form of a page.
func (w *world) fill(form visit, username, password string) visit {
	w.t.Helper()
	id := regexp.MustCompile(`name="id" value="([0-9a-f]{32})"`).FindStringSubmatch(form.body)
	if id == nil {
		w.t.Fatalf("no login form: %d %s", form.status, form.body)
	}
	values := url.Values{"id": {id[1]}, "username": {username}, "password": {password}}
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.issuer+"/login", strings.NewReader(values.Encode()))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return w.do(req)
}

// start begins a sign-in with PKCE.
func (w *world) start(verifier string, options ...oauth2.AuthCodeOption) visit {
	w.t.Helper()
	options = append(options, oauth2.S256ChallengeOption(verifier), oauth2.SetAuthURLParam("nonce", "n1"))
	return w.get(w.party.AuthCodeURL("st4te", options...))
}

// tokens signs in and redeems the code.
func (w *world) tokens(username string) *oauth2.Token {
	w.t.Helper()
	verifier := oauth2.GenerateVerifier()
	left := w.fill(w.start(verifier), username, username)
	token, err := w.party.Exchange(w.t.Context(), left.code(w.t), oauth2.VerifierOption(verifier))
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// code is the authorization code of a redirect to the callback.
func (v visit) code(t *testing.T) string {
	t.Helper()
	if v.status != http.StatusFound || v.location == nil || !strings.HasPrefix(v.location.String(), callback+"?") {
		t.Fatalf("the browser was not sent to the callback: %d to %v\n%s", v.status, v.location, v.body)
	}
	if state := v.location.Query().Get("state"); state != "st4te" {
		t.Errorf("state %q came back", state)
	}
	return v.location.Query().Get("code")
}

// claims verifies an ID token against the published keys.
func (w *world) claims(token *oauth2.Token) map[string]any {
	w.t.Helper()
	raw, _ := token.Extra("id_token").(string)
	parsed, err := jwt.ParseSigned(raw, []jose.SignatureAlgorithm{jose.RS256})
	if err != nil {
		w.t.Fatal(err)
	}
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(w.get(w.issuer+"/keys").body), &keys); err != nil {
		w.t.Fatal(err)
	}
	claims := map[string]any{}
	if err := parsed.Claims(keys, &claims); err != nil {
		w.t.Fatal(err)
	}
	return claims
}

func TestSignIn(t *testing.T) {
	w := newWorld(t)
	claims := w.claims(w.tokens("alice"))
	want := map[string]any{"iss": w.issuer, "sub": "alice", "name": "Alice Adams", "preferred_username": "alice", "email": "alice@example.com",
		"email_verified": true, "nonce": "n1"}
	for name, value := range want {
		if claims[name] != value {
			t.Errorf("claim %s is %v, want %v", name, claims[name], value)
		}
	}
	if got := claims["groups"]; !reflect.DeepEqual(got, []any{"grafana-admins", "engineering"}) {
		t.Errorf("groups are %v", got)
	}
	if got := claims["aud"]; !reflect.DeepEqual(got, []any{"doorward"}) {
		t.Errorf("aud is %v", got)
	}
	if sid, _ := claims["sid"].(string); len(sid) != 32 {
		t.Errorf("sid is %v", claims["sid"])
	}
}

func TestSomebodyWithoutGroupsHasAnEmptyArray(t *testing.T) {
	w := newWorld(t)
	token := w.tokens("mallory")
	if got := w.claims(token)["groups"]; !reflect.DeepEqual(got, []any{}) {
		t.Errorf("groups are %v, want an empty array", got)
	}
}

func TestUserinfo(t *testing.T) {
	w := newWorld(t)
	token := w.tokens("alice")
	info := w.userinfo(token.AccessToken)
	if info.status != http.StatusOK {
		t.Fatalf("userinfo: %d %s", info.status, info.body)
	}
	var got map[string]any
	if err := json.Unmarshal([]byte(info.body), &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"sub": "alice", "name": "Alice Adams", "preferred_username": "alice", "email": "alice@example.com", "email_verified": true,
		"groups": []any{"grafana-admins", "engineering"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("userinfo is %v\nwant %v", got, want)
	}
}

func (w *world) userinfo(accessToken string) visit {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodGet, w.issuer+"/userinfo", nil)
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+accessToken)
	return w.do(req)
}

func TestAWrongPasswordShowsTheFormAgain(t *testing.T) {
	w := newWorld(t)
	form := w.start(oauth2.GenerateVerifier())
	for _, r := range []struct{ username, password string }{{"alice", "bob"}, {"nobody", ""}, {"", ""}} {
		got := w.fill(form, r.username, r.password)
		if got.status != http.StatusUnauthorized || !strings.Contains(got.body, `role="alert">That name and password do not belong together.`) {
			t.Errorf("%q with %q: %d\n%s", r.username, r.password, got.status, got.body)
		}
	}
	if w.Sessions() != 0 {
		t.Errorf("%d sessions", w.Sessions())
	}
	w.fill(form, "alice", "alice").code(t)
}

func TestTheFormIsOurs(t *testing.T) {
	w := newWorld(t)
	form := w.start(oauth2.GenerateVerifier(), oauth2.SetAuthURLParam("login_hint", `"><script>x`))
	if strings.Contains(form.body, "<script") {
		t.Errorf("the hint is not escaped: %s", form.body)
	}
	for name, want := range map[string]string{"Content-Security-Policy": "frame-ancestors 'none'", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"} {
		if got := form.header.Get(name); !strings.Contains(got, want) {
			t.Errorf("%s is %q, want %q in it", name, got, want)
		}
	}
}

// TestASecondSignInDoesNotAsk and the ways in which it does.
func TestASecondSignInDoesNotAsk(t *testing.T) {
	w := newWorld(t)
	w.tokens("alice")
	verifier := oauth2.GenerateVerifier()
	if code := w.start(verifier).code(t); code == "" {
		t.Error("no code")
	}
	form := w.start(verifier, oauth2.SetAuthURLParam("prompt", "login"))
	if !strings.Contains(form.body, "<form") {
		t.Errorf("prompt=login did not ask: %d to %v", form.status, form.location)
	}
	w.now.Store(int64(time.Minute))
	if form := w.start(verifier, oauth2.SetAuthURLParam("max_age", "30")); !strings.Contains(form.body, "<form") {
		t.Errorf("max_age=30 after a minute did not ask: %d to %v", form.status, form.location)
	}
	w.start(verifier, oauth2.SetAuthURLParam("max_age", "90")).code(t)
	w.now.Store(int64(13 * time.Hour))
	if form := w.start(verifier); !strings.Contains(form.body, "<form") {
		t.Errorf("an expired session was enough: %d to %v", form.status, form.location)
	}
}

func TestPromptNone(t *testing.T) {
	w := newWorld(t)
	silent := oauth2.SetAuthURLParam("prompt", "none")
	got := w.start(oauth2.GenerateVerifier(), silent)
	if got.location == nil || got.location.Query().Get("error") != "login_required" {
		t.Errorf("without a session: %d to %v", got.status, got.location)
	}
	w.tokens("alice")
	w.start(oauth2.GenerateVerifier(), silent).code(t)
}

func TestACodeIsGoodOnceAndWithItsVerifier(t *testing.T) {
	w := newWorld(t)
	verifier := oauth2.GenerateVerifier()
	code := w.fill(w.start(verifier), "alice", "alice").code(t)
	exchange := func(code, verifier string) error {
		_, err := w.party.Exchange(t.Context(), code, oauth2.VerifierOption(verifier))
		return err
	}
	if err := exchange(code, verifier); err != nil {
		t.Fatal(err)
	}
	if err := exchange(code, verifier); err == nil {
		t.Error("the code was good twice")
	}
	if err := exchange(w.start(verifier).code(t), oauth2.GenerateVerifier()); err == nil {
		t.Error("another verifier was good")
	}
	w.party.ClientSecret = "wrong"
	if err := exchange(w.start(verifier).code(t), verifier); err == nil {
		t.Error("a wrong secret was good")
	}
}

func TestForeignRequestsAreRefused(t *testing.T) {
	w := newWorld(t)
	for name, change := range map[string]func(*oauth2.Config){
		"redirect": func(c *oauth2.Config) { c.RedirectURL = "https://evil.example/callback" },
		"client":   func(c *oauth2.Config) { c.ClientID = "other" },
	} {
		party := w.party
		change(&party)
		if got := w.get(party.AuthCodeURL("st4te")); got.status != http.StatusBadRequest || got.location != nil {
			t.Errorf("%s: %d to %v", name, got.status, got.location)
		}
	}
	if got := w.get(w.issuer + "/login?id=unknown"); got.status != http.StatusBadRequest || !strings.Contains(got.body, "or it is older than ten minutes") {
		t.Errorf("unknown request: %d %s", got.status, got.body)
	}
	old := w.start(oauth2.GenerateVerifier())
	w.now.Store(int64(11 * time.Minute))
	if got := w.fill(old, "alice", "alice"); got.status != http.StatusBadRequest {
		t.Errorf("an old form: %d to %v", got.status, got.location)
	}
}

// TestSignOut ends the session by the hint, with its tokens.
func TestSignOut(t *testing.T) {
	w := newWorld(t)
	w.party.Scopes = append(w.party.Scopes, "offline_access")
	token := w.tokens("alice")
	raw, _ := token.Extra("id_token").(string)
	out := func(to string) visit {
		return w.get(w.issuer + "/end_session?" + url.Values{"id_token_hint": {raw}, "post_logout_redirect_uri": {to}, "state": {"x"}}.Encode())
	}
	if got := out("https://evil.example/"); got.status != http.StatusBadRequest || w.Sessions() != 1 {
		t.Errorf("a foreign address: %d, %d sessions left", got.status, w.Sessions())
	}
	w.browser = newBrowser(t) // another browser: the hint alone says which session
	got := out(afterOut)
	if got.status != http.StatusFound || got.location.String() != afterOut+"?state=x" {
		t.Errorf("sent to %v with %d, want %s", got.location, got.status, afterOut)
	}
	if w.Sessions() != 0 {
		t.Errorf("%d sessions left", w.Sessions())
	}
	if got := w.userinfo(token.AccessToken); got.status != http.StatusForbidden {
		t.Errorf("userinfo after the sign-out: %d", got.status)
	}
	if _, err := w.refreshed(token); err == nil {
		t.Error("the refresh token is still good")
	}
	if got := w.get(w.issuer + "/end_session"); got.status != http.StatusOK || !strings.Contains(got.body, "You are signed out") {
		t.Errorf("without a hint: %d %s", got.status, got.body)
	}
}

func TestRefreshTokensRotate(t *testing.T) {
	w := newWorld(t)
	w.party.Scopes = append(w.party.Scopes, "offline_access")
	first := w.tokens("alice")
	second, err := w.refreshed(first)
	if err != nil {
		t.Fatal(err)
	}
	if second.RefreshToken == first.RefreshToken || second.RefreshToken == "" {
		t.Errorf("the refresh token is %q after %q", second.RefreshToken, first.RefreshToken)
	}
	if a, b := w.claims(first)["sid"], w.claims(second)["sid"]; a != b {
		t.Errorf("sid changed from %v to %v", a, b)
	}
	if _, err := w.refreshed(first); err == nil {
		t.Error("the first refresh token is good a second time")
	}
}

func (w *world) refreshed(token *oauth2.Token) (*oauth2.Token, error) {
	old := *token
	old.Expiry = time.Now().Add(-time.Minute)
	return w.party.TokenSource(context.Background(), &old).Token()
}

func TestConfigIsChecked(t *testing.T) {
	_, err := New(Config{Issuer: "localhost/path", Users: []User{{Username: "a:b", Password: "x"}}})
	want := `provider: issuer "localhost/path" must be a URL without a path` + "\n" +
		"provider: the client needs an id, a secret and a redirect URI\n" +
		`provider: user "a:b" needs a name without a colon and a password`
	if err == nil || err.Error() != want {
		t.Errorf("New: %v\nwant %s", err, want)
	}
}
