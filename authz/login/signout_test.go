package login

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"doorward/authz/session"
)

// TestSignOut ends the session on every host and at the provider, by one click on one host.
func TestSignOut(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(grafana+"/", "alice")
	b.get(wiki + "/")
	hash := session.HashID(b.session(wiki).ID)
	page := b.get(wiki + prefix + "/sign_out")
	want := []string{
		"GET wiki.example.com/.pomerium/sign_out", "GET " + strings.TrimPrefix(w.issuer, "http://") + "/end_session", "GET auth.example.com/.pomerium/signed_out",
	}
	if !slices.Equal(b.trail, want) {
		t.Errorf("by\n%q\nwant\n%q", b.trail, want)
	}
	b.shows("signed out", page, 200, "You are signed out", "Your session has ended. On a shared computer, close the browser as well.", "Sign in again")
	if got := page.link(t); got != wiki+"/" {
		t.Errorf("signs in again at %s, want %s/", got, wiki)
	}
	for _, origin := range []string{grafana, wiki, auth} {
		if b.session(origin) != nil {
			t.Errorf("still signed in at %s", origin)
		}
	}
	for _, origin := range []string{wiki, auth} {
		if got := b.cookies(origin, ""); len(got) != 0 {
			t.Errorf("cookies left at %s: %q", origin, got)
		}
	}
	if again := b.get(page.link(t)); !strings.Contains(again.body, `name="password"`) {
		t.Errorf("the provider's session did not end: %d %s", again.StatusCode, again.text())
	}
	if !w.logged("level=INFO", `msg="signed out"`, "session="+hash, "subject=alice", "host=wiki.example.com") {
		t.Errorf("not in the log:\n%s", w.log.String())
	}
	b.signIn(grafana+"/", "alice") // at once
}

func TestSignOutRequest(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(grafana+"/", "alice")
	full, err := w.h.Sessions.Load(t.Context(), b.session(grafana).ID)
	if err != nil {
		t.Fatal(err)
	}
	a := b.step(grafana + prefix + "/sign_out")
	b.holdsHeaders("sign_out", a)
	u, _ := url.Parse(a.next(t))
	q := u.Query()
	if q.Get("state") == "" {
		t.Error("no state")
	}
	q.Del("state")
	u.RawQuery = ""
	if want := w.issuer + "/end_session"; u.String() != want {
		t.Errorf("to %s, want %s", u, want)
	}
	want := url.Values{"client_id": {"doorward"}, "post_logout_redirect_uri": {auth + prefix + "/signed_out"}, "id_token_hint": {full.Tokens.ID}}
	if q.Encode() != want.Encode() {
		t.Errorf("asked with %v, want %v", q, want)
	}
}

// TestSignOutWithoutProvider ends our session whatever the provider does.
func TestSignOutWithoutProvider(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(grafana+"/", "alice")
	w.h.providers = providers{now: w.h.Now, known: map[providerKey]*provider{}} // as after a restart
	w.down.Store(true)
	page := b.get(grafana + prefix + "/sign_out")
	b.shows("provider down", page, 200, "You are signed out")
	if got := page.Request.URL.String(); got != grafana+prefix+"/signed_out" || page.link(t) != grafana+"/" {
		t.Errorf("arrived at %s with a link to %s", got, page.link(t))
	}
	if b.session(auth) != nil {
		t.Error("still signed in")
	}
	w.down.Store(false)

	b = w.browser()
	w.offset.Add(1e9)
	b.signIn(grafana+"/", "alice")
	w.change(func(s *Settings) { s.IDPs[0].Issuer = w.url("https://elsewhere.example") })
	b.shows("another provider configured", b.get(grafana+prefix+"/sign_out"), 200, "You are signed out")
	if b.session(auth) != nil {
		t.Error("still signed in")
	}

	b = w.browser()
	b.shows("a stranger", b.get(grafana+prefix+"/sign_out"), 200, "You are signed out")
}

// TestCrossSiteSignOut holds that another site can ask for a sign-out, but not make one.
func TestCrossSiteSignOut(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(grafana+"/", "alice")
	for name, header := range map[string]http.Header{
		"a link of another site":        {"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}},
		"an image of a page of ours":    {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"image"}},
		"a frame":                       {"Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}},
		"a prefetch of a page of ours":  {"Sec-Fetch-Site": {"same-origin"}, "Sec-Purpose": {"prefetch"}},
		"a script of a sibling":         {"Sec-Fetch-Site": {"same-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"empty"}},
		"a script of another site":      {"Sec-Fetch-Site": {"cross-site"}, "Sec-Fetch-Mode": {"no-cors"}, "Sec-Fetch-Dest": {"empty"}},
		"a prerender of a page of ours": {"Sec-Fetch-Site": {"same-origin"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Purpose": {"prefetch;prerender"}},
	} {
		b.header = header
		page := b.get(grafana + prefix + "/sign_out?redirect_uri=%2Fbye")
		b.shows(name, page, 200, "Sign out?", "A link asks to end your session. It ends here and on every other host that you use with it.", "Sign out")
		if want := `<form method="post" action="/.pomerium/sign_out?redirect_uri=https%3A%2F%2Fgrafana.example.com%2Fbye">`; !strings.Contains(page.body, want) {
			t.Errorf("%s: no %s in\n%s", name, want, page.body)
		}
		if b.session(grafana) == nil {
			t.Fatalf("%s signed out", name)
		}
	}
	for name, header := range map[string]http.Header{
		"another site, by Fetch Metadata":  {"Sec-Fetch-Site": {"cross-site"}},
		"a sibling":                        {"Sec-Fetch-Site": {"same-site"}, "Origin": {wiki}},
		"another site, by Origin":          {"Origin": {"https://evil.example"}},
		"an origin that begins alike":      {"Origin": {grafana + ".evil.example"}},
		"an opaque origin":                 {"Origin": {"null"}},
		"nothing said":                     {},
		"Fetch Metadata against an Origin": {"Sec-Fetch-Site": {"cross-site"}, "Origin": {grafana}},
	} {
		b.header = header
		b.shows(name, b.do(b.request("POST", grafana+prefix+"/sign_out")), 403, "Not signed out", "Another site tried to sign you out.",
			"If you want to sign out, do it here.", "Try again")
		if b.session(grafana) == nil {
			t.Fatalf("%s signed out", name)
		}
	}
	for name, header := range map[string]http.Header{
		"the form of our page":                      {"Sec-Fetch-Site": {"same-origin"}, "Origin": {"null"}},
		"the form, in a browser without Fetch Meta": {"Origin": {grafana}},
	} {
		b.header = http.Header{}
		if b.session(grafana) == nil {
			b.signIn(grafana+"/", "alice")
		}
		b.header = header
		page := b.do(b.request("POST", grafana+prefix+"/sign_out"))
		b.shows(name, page, 200, "Signing you out", "Your session here has ended.", "Continue")
		if want := `<meta http-equiv="refresh" content="0; url=` + w.issuer; !strings.Contains(page.body, want) {
			t.Errorf("%s: no %s in\n%s", name, want, page.body)
		}
		if got := page.link(t); !strings.HasPrefix(got, w.issuer+"/end_session?") {
			t.Errorf("%s: goes on to %s", name, got)
		}
		if b.session(grafana) != nil || b.session(auth) != nil {
			t.Errorf("%s: still signed in", name)
		}
		b.header = http.Header{}
		b.get(page.link(t))
	}
}

func TestAfterSignOut(t *testing.T) {
	w := newWorld(t)
	for given, want := range map[string]string{
		"redirect_uri=%2Fbye%3Fa%3Db":                                   grafana + "/bye?a=b",
		"pomerium_redirect_uri=%2Fbye":                                  grafana + "/bye",
		"redirect_uri=https%3A%2F%2Fwiki.example.com":                   wiki + "/",
		"redirect_uri=https%3A%2F%2Fwiki.example.com%2Fbye":             wiki + "/bye",
		"redirect_uri=https%3A%2F%2Fwiki.example.com%2F.pomerium%2F":    wiki + "/.pomerium/",
		"redirect_uri=https%3A%2F%2Fevil.example%2F":                    "",
		"redirect_uri=https%3A%2F%2Fwiki.example.com.evil.example%2F":   "",
		"redirect_uri=https%3A%2F%2Fwiki.example.com%40evil.example%2F": "",
		"redirect_uri=https%3A%2F%2Fwiki.example.com%3A8443%2F":         "",
		"redirect_uri=http%3A%2F%2Fwiki.example.com%2F":                 "",
		"redirect_uri=%2F%2Fevil.example%2F":                            "",
		"redirect_uri=%2F%5Cevil.example%2F":                            "",
		"redirect_uri=javascript%3Aalert(1)":                            "",
		"redirect_uri=%2F.pomerium%2Fsign_out":                          "",
		"redirect_uri=%2Fa&redirect_uri=%2Fb":                           "",
		"redirect_uri=":                                                 "",
		"":                                                              "",
	} {
		b := w.browser()
		b.signIn(grafana+"/", "alice")
		target := b.until(grafana+prefix+"/sign_out?"+given, auth+prefix+"/signed_out")
		a := b.step(target)
		if want == "" {
			b.shows(given, a, 200, "You are signed out")
			if got := a.link(t); got != grafana+"/" {
				t.Errorf("%s: link to %s", given, got)
			}
			continue
		}
		if a.StatusCode != 302 || a.Header.Get("Location") != want {
			t.Errorf("%s: got %d %s, want %s", given, a.StatusCode, a.Header.Get("Location"), want)
		}
	}
	for _, state := range []string{"", "x", strings.Repeat("A", 200), w.h.seal(purposeRequest, leave{URL: "https://evil.example", Go: true})} {
		b := w.browser()
		b.shows("a state not ours", b.step(auth+prefix+"/signed_out?state="+state), 200, "You are signed out")
	}
}

// TestSignOutEndsLostSessions: the browser has lost a cookie and signed in again, in the same session of the provider's.
func TestSignOutEndsLostSessions(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	lost := b.session(auth)
	b.lose(auth)
	b.get(auth + "/other")
	if again := b.session(auth); again == nil || again.ID == lost.ID || again.SID != lost.SID {
		t.Fatalf("got %v after %v", again, lost)
	}
	b.get(auth + prefix + "/sign_out")
	if _, err := w.h.Sessions.Load(t.Context(), lost.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("the lost session: %v", err)
	}
}

// TestSignOutAfterProviderChange: the new provider is not told of the old one's session.
func TestSignOutAfterProviderChange(t *testing.T) {
	f, other := newFake(t), newFake(t)
	b := f.browser()
	b.get(auth + "/")
	f.change(func(s *Settings) { s.IDPs[0].Issuer = f.url(other.issuer) })
	if got := b.step(auth + prefix + "/sign_out").next(t); got != auth+prefix+"/signed_out" {
		t.Errorf("signs out at %s", got)
	}
}

// TestSignedOutKeepsSession: the page alone signs nobody out.
func TestSignedOutKeepsSession(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	b.get(auth + prefix + "/signed_out")
	if b.session(auth) == nil {
		t.Error("signed out")
	}
}

// TestSignOutWinsHandOff signs out between the making of a code and its redemption.
func TestSignOutWinsHandOff(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	redeem := b.until(wiki+"/", wiki+prefix+"/redeem")
	if err := w.h.Sessions.Revoke(t.Context(), b.session(auth).ID); err != nil {
		t.Fatal(err)
	}
	b.shows("a hand-off", b.get(redeem), 403, "You were signed out", "The session ended while you were on the way here.", "Try again")
	if b.session(wiki) != nil {
		t.Error("signed in at the wiki")
	}
}

// TestSignOutWinsCallback has the provider's session signed out between the provider's answer and the callback.
func TestSignOutWinsCallback(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	s := b.session(auth)
	b.lose(auth) // so that the provider is asked again, in the same session of its own
	callback := b.until(auth+"/other", auth+prefix+"/callback")
	if err := w.h.Sessions.RevokeSID(t.Context(), s.Issuer, s.SID); err != nil {
		t.Fatal(err)
	}
	b.shows("a callback", b.get(callback), 403, "You were signed out", "The sign-in service ended your session while you were signing in.", "Try again")
	if b.session(auth) != nil {
		t.Error("signed in")
	}
	if got := b.get(auth + "/other"); got.body != "application for alice at /other" {
		t.Errorf("a sign-in begun later: %d %s", got.StatusCode, got.text())
	}
}
