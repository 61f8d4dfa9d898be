package login

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
)

func TestSignIn(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	form := b.get(grafana + "/d/x?a=1&b=%2F//&c=%22+%c3%bc")
	idp := strings.TrimPrefix(w.issuer, "http://")
	want := []string{
		"GET grafana.example.com/d/x", "GET grafana.example.com/.pomerium/sign_in", "GET auth.example.com/.pomerium/sign_in",
		"GET " + idp + "/authorize", "GET " + idp + "/login",
	}
	if !slices.Equal(b.trail, want) {
		t.Errorf("to the form by\n%q\nwant\n%q", b.trail, want)
	}
	b.trail = nil
	arrived := b.fill(form, "alice")
	want = []string{
		"POST " + idp + "/login", "GET " + idp + "/authorize/callback", "GET auth.example.com/.pomerium/callback",
		"GET grafana.example.com/.pomerium/redeem", "GET grafana.example.com/d/x",
	}
	if !slices.Equal(b.trail, want) {
		t.Errorf("from the form by\n%q\nwant\n%q", b.trail, want)
	}
	if got, want := arrived.body, "application for alice at /d/x?a=1&b=%2F//&c=%22+%c3%bc"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, origin := range []string{grafana, auth} {
		if got, want := b.cookies(origin, ""), []string{"__Host-doorward", "__Host-doorward-rounds"}; origin == grafana && !slices.Equal(got, want) ||
			origin == auth && !slices.Equal(got, want[:1]) {
			t.Errorf("cookies left at %s: %q", origin, got)
		}
	}
	here := session.HashID(b.session(grafana).ID)
	for _, host := range []string{"auth", "grafana"} {
		if !w.logged("level=INFO", `msg="signed in"`, "session="+here, "subject=alice", "provider=default", "host="+host+".example.com", "request_id="+envoyID) {
			t.Errorf("the sign-in at %s is not in the log:\n%s", host, w.log.String())
		}
	}
}

func TestSession(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	before := w.h.Now()
	b.signIn(grafana+"/", "alice")
	s := b.session(grafana)
	if s == nil || b.session(auth) == nil || b.session(auth).ID != s.ID {
		t.Fatal("the two hosts do not have one session")
	}
	full, err := w.h.Sessions.Load(t.Context(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	if full.Tokens.ID == "" || full.Tokens.Access == "" || time.Until(full.Tokens.Expiry) < time.Minute {
		t.Errorf("tokens are missing: expiry %v", full.Tokens.Expiry)
	}
	if d := s.Expires.Sub(s.Created) - 14*time.Hour; d > 0 || d < -time.Minute {
		t.Errorf("lives from %v to %v", s.Created, s.Expires)
	}
	if s.AuthTime.Before(before.Add(-2*time.Second)) || s.AuthTime.After(w.h.Now()) || s.SID == "" {
		t.Errorf("auth time %v, sid %q", s.AuthTime, s.SID)
	}
	got, want := *s, session.Session{
		ID: s.ID, Version: s.Version, Provider: "default", Issuer: w.issuer, Subject: "alice", SID: s.SID,
		User: session.User{
			ID: "alice", Email: "alice@example.com", EmailVerified: true, Name: "Alice Adams", Groups: []string{"grafana-admins", "engineering"},
			Claims: map[string]any{
				"sub": "alice", "email": "alice@example.com", "email_verified": true, "name": "Alice Adams", "preferred_username": "alice",
				"groups": []any{"grafana-admins", "engineering"}, "client_id": "doorward",
			},
		},
		Created: s.Created, Expires: s.Expires, AuthTime: s.AuthTime, AMR: []string{"pwd"}, Agent: s.Agent,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%#v\nwant\n%#v", got, want)
	}
}

// TestSecondHost holds that one sign-in serves all hosts.
func TestSecondHost(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(grafana+"/", "alice")
	arrived := b.get(wiki + "/page?x=y")
	if got, want := arrived.body, "application for alice at /page?x=y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	want := []string{
		"GET wiki.example.com/page", "GET wiki.example.com/.pomerium/sign_in", "GET auth.example.com/.pomerium/sign_in",
		"GET wiki.example.com/.pomerium/redeem", "GET wiki.example.com/page",
	}
	if !slices.Equal(b.trail, want) {
		t.Errorf("by\n%q\nwant\n%q", b.trail, want)
	}
	if b.session(wiki).ID != b.session(grafana).ID {
		t.Error("the hosts have different sessions")
	}
}

func TestAuthHost(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	if got, want := b.signIn(auth+"/x?y", "bob").body, "application for bob at /x?y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := b.get(auth + prefix + "/sign_in?return=%2Fz"); got.Request.URL.String() != auth+"/z" {
		t.Errorf("signed in already, sign_in led to %s", got.Request.URL)
	}
}

// TestAuthOnly is an auth host without an application: its user page is all there is to go to.
func TestAuthOnly(t *testing.T) {
	w := newWorld(t)
	w.change(func(s *Settings) { s.AuthOnly = true })
	b, callback := w.atCallback(auth+prefix+"/sign_in", "alice")
	if got := b.get(callback).Request.URL.String(); got != auth+prefix+"/" {
		t.Errorf("a sign-in that names nothing to return to led to %s", got)
	}
	if got := b.step(callback).next(t); got != auth+prefix+"/" {
		t.Errorf("the back button leads to %s", got)
	}
	if got := b.get(grafana + prefix + "/sign_in").Request.URL.String(); got != grafana+"/" {
		t.Errorf("at another host: %s", got)
	}
}

// TestRedirectHeaders steps through a sign-in: every answer of ours keeps its address to itself and out of caches.
func TestRedirectHeaders(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	target := grafana + prefix + "/sign_in?return=%2F"
	for range 2 {
		a := b.step(target)
		b.holdsHeaders(target, a)
		target = a.next(t)
	}
	target = b.callback(b.get(target), "alice")
	for _, path := range []string{"/callback", "/redeem"} {
		a := b.step(target)
		b.holdsHeaders(target, a)
		if !strings.Contains(target, path) {
			t.Errorf("at %s, want %s", target, path)
		}
		target = a.next(t)
	}
}

func TestCookies(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	a := b.step(grafana + prefix + "/sign_in?return=" + strings.Repeat("%2Fx", 400))
	holds := func(a answer, prefix string, lifetime int) {
		t.Helper()
		for _, c := range a.Cookies() {
			if strings.HasPrefix(c.Name, prefix) && c.Value != "" {
				if !c.Secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Path != "/" || c.Domain != "" || c.MaxAge > lifetime || c.MaxAge < lifetime-5 {
					t.Errorf("cookie %s", c.Raw)
				}
				if n := len(c.Name) + len(c.Value); n > 2048 {
					t.Errorf("%s has %d bytes", c.Name, n)
				}
				return
			}
		}
		t.Errorf("no cookie %s in %q", prefix, a.Header["Set-Cookie"])
	}
	holds(a, "__Host-doorward-flow-", 300)
	a = b.step(a.next(t))
	holds(a, "__Host-doorward-state-", 300)
	a = b.step(b.callback(b.get(a.next(t)), "alice"))
	holds(a, "__Host-doorward", 14*3600)
	a = b.step(a.next(t))
	holds(a, "__Host-doorward", 14*3600)
	holds(a, "__Host-doorward-rounds", 60)
}

// TestModern is the way of a browser that can run the page which keeps the fragment.
func TestModern(t *testing.T) {
	w := newWorld(t)
	b := w.modern()
	page := b.get(grafana + "/d/x?a=1&b=2")
	b.shows("sign_in", page, 200, "Signing you in")
	if len(b.cookies(grafana, "")) != 0 {
		t.Error("an attempt was begun before the page went on")
	}
	for _, want := range []string{
		`data-return="/d/x?a=1&amp;b=2" data-limit="800" data-keep="/.pomerium/sign_in?continue=1&amp;return=%2F.pomerium%2Freturn%3Fattempt%3D"`,
	} {
		if !strings.Contains(page.body, want) {
			t.Errorf("no %s in\n%s", want, page.body)
		}
	}
	if got := b.fill(b.get(page.link(t)), "alice"); got.body != "application for alice at /d/x?a=1&b=2" {
		t.Errorf("arrived with %s", got.body)
	}

	kept := b.get(grafana + prefix + "/sign_in?continue=1&return=" + url.QueryEscape(prefix+"/return?attempt=0123456789abcdef0123456789abcdef"))
	b.shows("return", kept, 200, "You are signed in")
	if got, want := kept.Request.URL.String(), grafana+prefix+"/return?attempt=0123456789abcdef0123456789abcdef"; got != want {
		t.Errorf("arrived at %s, want %s", got, want)
	}
}

// TestLongReturn is what a client gets that cannot keep a long URL itself.
func TestLongReturn(t *testing.T) {
	w := newWorld(t)
	for _, origin := range []string{grafana, auth} {
		b := w.browser()
		arrived := b.fill(b.get(origin+"/"+strings.Repeat("x", 1500)), "alice")
		if got := arrived.Request.URL.String(); got != origin+"/" {
			t.Errorf("arrived at %s, want %s/", got, origin)
		}
		b = w.browser()
		long := origin + "/" + strings.Repeat("x", maxReturn-1)
		if got := b.fill(b.get(long), "alice").Request.URL.String(); got != long {
			t.Errorf("%d bytes did not survive", maxReturn)
		}
	}
}

func TestUserPage(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	page := b.signIn(wiki+prefix+"/", "alice")
	s := b.session(wiki)
	date := func(at time.Time) string { return at.UTC().Format("2 January 2006, 15:04 UTC") }
	b.shows("user page", page, 200, "You are signed in", "Alice Adams alice@example.com", "Groups", "grafana-admins", "engineering", "Session",
		"Signed in", date(s.Created), "Ends at the latest", date(s.Expires), "Account id", "alice", "Session id", session.HashID(s.ID), "Sign out")
	if got, want := page.link(t), wiki+prefix+"/sign_out"; got != want {
		t.Errorf("signs out at %s, want %s", got, want)
	}
	if got := b.step(wiki + prefix).next(t); got != wiki+prefix+"/" {
		t.Errorf("without the slash: %s", got)
	}
}

// TestTabs opens several tabs before signing in, on two hosts, and finishes all of them.
func TestTabs(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	first, second, third := b.get(grafana+"/1"), b.get(grafana+"/2"), b.get(wiki+"/3")
	if got := len(b.cookies(auth, "__Host-doorward-state-")); got != 3 {
		t.Errorf("%d attempts, want 3", got)
	}
	if got := b.fill(second, "alice"); got.body != "application for alice at /2" {
		t.Errorf("second tab: %s", got.text())
	}
	id, cookie := b.session(grafana).ID, b.session(auth).ID
	if got := b.get(first.Request.URL.String()); got.body != "application for alice at /1" {
		t.Errorf("first tab: %s", got.text())
	}
	if got := b.get(third.Request.URL.String()); got.body != "application for alice at /3" {
		t.Errorf("third tab: %s", got.text())
	}
	for _, origin := range []string{grafana, wiki, auth} {
		if s := b.session(origin); s == nil || s.ID != id || s.ID != cookie {
			t.Errorf("%s has another session than the second tab made", origin)
		}
	}
	if got := b.cookies(auth, "__Host-doorward-"); len(got) != 0 {
		t.Errorf("left over: %q", got)
	}
}

func TestAtMostFiveAttempts(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	var forms []answer
	for i := range 7 {
		w.offset.Add(int64(time.Second))
		forms = append(forms, b.get(wiki+"/"+string(rune('a'+i))))
	}
	for origin, prefix := range map[string]string{auth: stateCookie, wiki: flowCookie} {
		if got := len(b.cookies(origin, prefix)); got != 5 {
			t.Errorf("%d cookies %s at %s, want 5", got, prefix, origin)
		}
	}
	if got := b.fill(forms[2], "alice"); got.body != "application for alice at /c" {
		t.Errorf("the fifth from last: %s", got.text())
	}

	b = w.browser()
	forms = nil
	for range 6 {
		w.offset.Add(int64(time.Second))
		forms = append(forms, b.get(wiki+"/"))
	}
	b.shows("the sixth from last", b.fill(forms[0], "alice"), 400, "This sign-in cannot go on",
		"It was begun in another browser or more than five minutes ago, it is over, or this browser does not keep this site's cookies.",
		"Try again, and allow cookies for this site.", "Try again", "Status 400 Request id "+envoyID)
}

// TestCircle loses the session's cookie each time, as an application that clears cookies would.
func TestCircle(t *testing.T) {
	for _, direct := range []bool{true, false} {
		w := newWorld(t)
		origin := wiki
		if direct {
			origin = auth
		}
		b := w.browser()
		b.signIn(origin+"/d?x", "alice")
		b.lose(origin)
		if got := b.get(origin + "/d?x"); got.body != "application for alice at /d?x" {
			t.Errorf("second round: %d %s", got.StatusCode, got.text())
		}
		b.lose(origin)
		page := b.get(origin + "/d?x")
		b.shows("third round", page, 400, "Sign-in goes in a circle",
			"You have signed in several times within a minute, and each time your browser came back without the session's cookie.",
			"Allow cookies for this site, or leave private browsing; check that the clock of this device is right; and if the application clears "+
				"this site's cookies, tell whoever runs it.", "Try again")
		if got := b.get(page.link(t)); got.body != "application for alice at /d?x" {
			t.Errorf("try again: %d %s", got.StatusCode, got.text())
		}
	}
}

// TestNoCircle signs in often, but not in a circle.
func TestNoCircle(t *testing.T) {
	for name, c := range map[string]struct {
		wait    time.Duration
		targets []string
	}{
		"at other addresses": {0, []string{"/a", "/b", "/a", "/c", "/b"}},
		"not so often":       {40 * time.Second, []string{"/a", "/a", "/a", "/a", "/a"}},
	} {
		w := newWorld(t)
		b := w.browser()
		b.signIn(auth+"/", "alice")
		for i, target := range c.targets {
			w.offset.Add(int64(c.wait))
			b.lose(auth)
			if got := b.get(auth + target); got.body != "application for alice at "+target {
				t.Errorf("%s, sign-in %d: %d %s", name, i, got.StatusCode, got.text())
			}
		}
	}
}

// TestCircleOfFragments is a circle in which the browser keeps a fragment under a new name each time.
func TestCircleOfFragments(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	for i, want := range []int{200, 200, 400} {
		b.lose(auth)
		a := b.get(auth + prefix + "/sign_in?continue=1&return=" + url.QueryEscape(prefix+"/return?attempt="+strings.Repeat(string(rune('0'+i)), 32)))
		if a.StatusCode != want {
			t.Errorf("round %d: got %d %s, want %d", i, a.StatusCode, a.text(), want)
		}
	}
}

func TestHostGone(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	form := b.get(wiki + "/")
	w.host("wiki.example.com", config.URL{})
	callback := b.callback(form, "alice")
	if got := b.step(callback).next(t); got != auth+prefix+"/" {
		t.Errorf("sent to %s", got)
	}
	if b.session(auth) == nil {
		t.Error("not signed in at the auth host")
	}
}
