package login

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const logoutEvent = "http://schemas.openid.net/event/backchannel-logout"

// logoutClaims are those of a good logout token, with changes; nil takes away.
func (f *fake) logoutClaims(changes map[string]any) map[string]any {
	now := f.h.Now()
	return change(map[string]any{
		"iss": f.issuer, "aud": "doorward", "iat": now.Unix(), "exp": now.Add(2 * time.Minute).Unix(), "jti": randomText(),
		"events": map[string]any{logoutEvent: map[string]any{}}, "sid": "s1", "sub": "alice",
	}, changes)
}

// logoutToken signs them with a type in the header, "" for none.
func (f *fake) logoutToken(claims map[string]any, typ string) string {
	f.Helper()
	payload, err := json.Marshal(claims)
	if err != nil {
		f.Fatal(err)
	}
	options := &jose.SignerOptions{}
	if typ != "" {
		options.WithType(jose.ContentType(typ))
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.RS256, Key: jose.JSONWebKey{Key: providerRSA(), KeyID: "1"}}, options)
	if err != nil {
		f.Fatal(err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		f.Fatal(err)
	}
	token, _ := jws.CompactSerialize()
	return token
}

// post sends a body to the back channel.
func (f *fake) post(contentType, body string) answer {
	f.Helper()
	r := httptest.NewRequest("POST", auth+prefix+"/backchannel_logout", strings.NewReader(body))
	r.Header.Set("X-Doorward-Sni", authHost)
	r.Header.Set("Content-Type", contentType)
	w := httptest.NewRecorder()
	f.h.ServeHTTP(w, r)
	return answer{w.Result(), w.Body.String()}
}

func (f *fake) backChannel(token string) answer {
	f.Helper()
	return f.post("application/x-www-form-urlencoded", url.Values{"logout_token": {token}}.Encode())
}

// signedInBrowser is a browser with a session s1 of alice.
func (f *fake) signedInBrowser() *browser {
	f.Helper()
	f.claims = map[string]any{"sid": "s1"}
	b := f.browser()
	b.get(grafana + "/")
	if b.session(grafana) == nil {
		f.Fatal("not signed in")
	}
	return b
}

func TestBackChannelLogout(t *testing.T) {
	for name, row := range map[string]struct {
		claims map[string]any
		typ    string
		others bool // the same person's session s2 ends too
	}{
		"by sid and subject":                {nil, "logout+jwt", false},
		"by sid alone":                      {map[string]any{"sub": nil}, "logout+jwt", false},
		"by subject alone":                  {map[string]any{"sid": nil}, "logout+jwt", true},
		"with an older type":                {nil, "JWT", false},
		"without a type":                    {nil, "", false},
		"for several audiences":             {map[string]any{"aud": []string{"other", "doorward"}}, "logout+jwt", false},
		"with something in the event":       {map[string]any{"events": map[string]any{logoutEvent: map[string]any{"x": 1}, "other": 1}}, "logout+jwt", false},
		"by a provider whose clock is fast": {map[string]any{"iat": time.Now().Add(30 * time.Second).Unix()}, "logout+jwt", false},
	} {
		f := newFake(t)
		b := f.signedInBrowser()
		f.claims["sid"] = "s2"
		second := f.browser()
		second.get(grafana + "/")
		got := f.backChannel(f.logoutToken(f.logoutClaims(row.claims), row.typ))
		if got.StatusCode != 200 || got.body != "" || got.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got %d %s", name, got.StatusCode, got.body)
		}
		if b.session(grafana) != nil || b.session(auth) != nil {
			t.Errorf("%s: the session goes on", name)
		}
		if ended := second.session(grafana) == nil; ended != row.others {
			t.Errorf("%s: the other session has ended: %t, want %t", name, ended, row.others)
		}
	}
}

// TestBackChannelChecks leaves out or spoils one thing that the specification asks for in each row. The session goes on.
func TestBackChannelChecks(t *testing.T) {
	now := time.Now()
	for name, row := range map[string]struct {
		claims map[string]any
		typ    string
		shown  string
	}{
		"another issuer":                {map[string]any{"iss": "https://elsewhere.example"}, "logout+jwt", "logout_token cannot be verified"},
		"no issuer":                     {map[string]any{"iss": nil}, "logout+jwt", "logout_token cannot be verified"},
		"another audience":              {map[string]any{"aud": "other"}, "logout+jwt", "logout_token cannot be verified"},
		"no audience":                   {map[string]any{"aud": nil}, "logout+jwt", "logout_token cannot be verified"},
		"expired":                       {map[string]any{"exp": now.Add(-time.Second).Unix()}, "logout+jwt", "logout_token cannot be verified"},
		"no expiry":                     {map[string]any{"exp": nil}, "logout+jwt", "logout_token cannot be verified"},
		"good for too long":             {map[string]any{"exp": now.Add(2 * time.Hour).Unix()}, "logout+jwt", "logout_token cannot be verified"},
		"issued later":                  {map[string]any{"iat": now.Add(5 * time.Minute).Unix()}, "logout+jwt", "logout_token cannot be verified"},
		"no time of issue":              {map[string]any{"iat": nil}, "logout+jwt", "logout_token cannot be verified"},
		"no id":                         {map[string]any{"jti": nil}, "logout+jwt", "logout_token cannot be verified"},
		"no event":                      {map[string]any{"events": nil}, "logout+jwt", "logout_token cannot be verified"},
		"another event":                 {map[string]any{"events": map[string]any{"x": map[string]any{}}}, "logout+jwt", "logout_token cannot be verified"},
		"an event that is no object":    {map[string]any{"events": map[string]any{logoutEvent: true}}, "logout+jwt", "logout_token cannot be verified"},
		"a nonce, as an ID token has":   {map[string]any{"nonce": "n"}, "logout+jwt", "logout_token cannot be verified"},
		"neither sid nor subject":       {map[string]any{"sid": nil, "sub": nil}, "logout+jwt", "logout_token cannot be verified"},
		"a token of another kind":       {nil, "at+jwt", "logout_token has the wrong type"},
		"a token of another kind, long": {nil, "application/secevent+jwt", "logout_token has the wrong type"},
	} {
		f := newFake(t)
		b := f.signedInBrowser()
		f.refusesLogout(name, b, f.backChannel(f.logoutToken(f.logoutClaims(row.claims), row.typ)), row.shown)
	}
}

func (f *fake) refusesLogout(name string, b *browser, got answer, shown string) {
	f.Helper()
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || got.StatusCode != 400 || body.Error != "invalid_request" || body.Description != shown || got.Header.Get("Cache-Control") != "no-store" {
		f.Errorf("%s: got %d %s, want %q", name, got.StatusCode, got.body, shown)
	}
	if b.session(grafana) == nil {
		f.Errorf("%s: the session has ended", name)
	}
}

func TestBackChannelSignatures(t *testing.T) {
	f := newFake(t)
	b := f.signedInBrowser()
	payload, _ := json.Marshal(f.logoutClaims(nil))
	good := f.logoutToken(f.logoutClaims(nil), "logout+jwt")
	parts := strings.Split(good, ".")
	other, _ := json.Marshal(f.logoutClaims(map[string]any{"sub": "bob"}))
	for name, token := range map[string]string{
		"unsigned":                 unsigned(payload),
		"signed with the secret":   signed(t, jose.HS256, []byte("s3cret-s3cret-s3cret-s3cret-s3cret"), payload),
		"the payload of another":   parts[0] + "." + base64.RawURLEncoding.EncodeToString(other) + "." + parts[2],
		"a signature that is none": parts[0] + "." + parts[1] + ".AAAA",
	} {
		f.refusesLogout(name, b, f.backChannel(token), "logout_token cannot be verified")
	}
	for name, token := range map[string]string{"no token": "x", "two parts": "a.b", "no JSON": "YQ.YQ.YQ", "five parts, as encrypted": "a.b.c.d.e"} {
		f.refusesLogout(name, b, f.backChannel(token), "logout_token is not a signed token")
	}
	for name, body := range map[string]string{"nothing": "", "an empty one": "logout_token=", "two": "logout_token=" + good + "&logout_token=" + good} {
		f.refusesLogout(name, b, f.post("application/x-www-form-urlencoded", body), "logout_token must be there once")
	}
	f.refusesLogout("JSON", b, f.post("application/json", `{"logout_token":"x"}`), "the body must be a form")
	f.refusesLogout("in the query", b, f.post("application/x-www-form-urlencoded", strings.Repeat("x", maxLogoutBody+1)), "the form cannot be read")
	// An ID token of the same provider for the same client is no logout token.
	f.refusesLogout("an ID token", b, f.backChannel(f.idToken(map[string]any{
		"iss": f.issuer, "aud": "doorward", "sub": "alice", "sid": "s1", "exp": time.Now().Add(time.Minute).Unix(), "iat": time.Now().Unix(), "jti": "x",
	})), "logout_token cannot be verified")
}

// A token that was used ends no later session.
func TestBackChannelReplayed(t *testing.T) {
	f := newFake(t)
	f.signedInBrowser()
	token := f.logoutToken(f.logoutClaims(map[string]any{"sid": nil}), "logout+jwt")
	if got := f.backChannel(token); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	f.offset.Add(int64(time.Second))
	b := f.signedInBrowser()
	f.refusesLogout("again", b, f.backChannel(token), "logout_token was used before")
}

// While the provider's keys cannot be had the token is neither believed nor refused for good.
func TestBackChannelWithTheProviderDown(t *testing.T) {
	f := newFake(t)
	f.down.Store(true)
	token := f.logoutToken(f.logoutClaims(nil), "logout+jwt")
	if got := f.backChannel(token); got.StatusCode != 503 || !strings.Contains(got.body, "temporarily_unavailable") {
		t.Errorf("got %d %s", got.StatusCode, got.body)
	}
	f.down.Store(false)
	f.offset.Add(int64(discoveryBackoff))
	if got := f.backChannel(token); got.StatusCode != 200 {
		t.Errorf("the same token later: %d %s", got.StatusCode, got.body)
	}
}

// A back-channel logout that comes before the callback of the same provider session wins.
func TestBackChannelRacesACallback(t *testing.T) {
	f := newFake(t)
	f.claims = map[string]any{"sid": "s1"}
	b := f.browser()
	callback := b.until(auth+"/x", auth+prefix+"/callback")
	if got := f.backChannel(f.logoutToken(f.logoutClaims(nil), "logout+jwt")); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	b.shows("the callback", b.step(callback), 403, "You were signed out")
}

func TestBackChannelIsAtTheAuthHostAlone(t *testing.T) {
	f := newFake(t)
	for _, path := range []string{"/backchannel_logout", "/frontchannel_logout?iss=" + url.QueryEscape(f.issuer) + "&sid=s1"} {
		if got := f.call("GET", "wiki.example.com", prefix+path, nil); got.StatusCode != 404 {
			t.Errorf("%s: got %d", path, got.StatusCode)
		}
	}
	if got := f.call("GET", authHost, prefix+"/backchannel_logout", nil); got.StatusCode != 405 || got.Header.Get("Allow") != "POST" {
		t.Errorf("got %d, allow %q", got.StatusCode, got.Header.Get("Allow"))
	}
}

func TestFrontChannelLogout(t *testing.T) {
	f := newFake(t)
	b := f.signedInBrowser()
	frame := func(query url.Values) answer {
		return f.call("GET", authHost, prefix+"/frontchannel_logout?"+query.Encode(), http.Header{"Sec-Fetch-Dest": {"iframe"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Site": {"cross-site"}})
	}
	for name, query := range map[string]url.Values{
		"no sid":         {"iss": {f.issuer}},
		"no issuer":      {"sid": {"s1"}},
		"another issuer": {"iss": {"https://elsewhere.example"}, "sid": {"s1"}},
		"two sids":       {"iss": {f.issuer}, "sid": {"s1", "s2"}},
		"a long sid":     {"iss": {f.issuer}, "sid": {strings.Repeat("s", maxSubject+1)}},
	} {
		if got := frame(query); got.StatusCode != 400 || b.session(grafana) == nil {
			t.Errorf("%s: got %d", name, got.StatusCode)
		}
	}
	if got := frame(url.Values{"iss": {f.issuer}, "sid": {"another"}}); got.StatusCode != 200 || b.session(grafana) == nil {
		t.Errorf("another session: got %d", got.StatusCode)
	}
	got := frame(url.Values{"iss": {f.issuer}, "sid": {"s1"}})
	if want := "default-src 'none'; frame-ancestors " + f.issuer; got.StatusCode != 200 || got.Header.Get("Content-Security-Policy") != want || got.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("got %d, %q, want %q", got.StatusCode, got.Header.Get("Content-Security-Policy"), want)
	}
	if b.session(grafana) != nil || b.session(auth) != nil {
		t.Error("the session goes on")
	}
}

// Sessions that are not known are remembered as signed out, for a sign-in under way, but not more of them than a bound.
func TestFrontChannelLeavesLittleBehind(t *testing.T) {
	f := newFake(t)
	for range 300 {
		f.call("GET", authHost, prefix+"/frontchannel_logout?iss="+url.QueryEscape(f.issuer)+"&sid="+randomText(), nil)
	}
	items, err := f.h.Store.List(t.Context(), "signed-out/", "", 1000)
	if err != nil || len(items) == 0 || len(items) > 110 {
		t.Errorf("%d are remembered, %v", len(items), err)
	}
	b := f.signedInBrowser()
	if got := f.call("GET", authHost, prefix+"/frontchannel_logout?iss="+url.QueryEscape(f.issuer)+"&sid=s1", nil); got.StatusCode != 200 || b.session(grafana) != nil {
		t.Error("a session that is known is not signed out when the bound is reached")
	}
}

func TestAllowance(t *testing.T) {
	now := time.Unix(1000, 0)
	a := newAllowance(3, time.Second)
	takes := func() (n int) {
		for a.take(now) {
			n++
		}
		return n
	}
	if got := takes(); got != 3 {
		t.Errorf("at first %d, want 3", got)
	}
	now = now.Add(2 * time.Second)
	if got := takes(); got != 2 {
		t.Errorf("after two seconds %d, want 2", got)
	}
	now = now.Add(time.Hour)
	if got := takes(); got != 3 {
		t.Errorf("after an hour %d, want 3", got)
	}
}
