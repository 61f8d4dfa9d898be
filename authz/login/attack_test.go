package login

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"doorward/authz/session"
)

var stray = []string{"This sign-in cannot go on",
	"It was begun in another browser or more than five minutes ago, it is over, or this browser does not keep this site's cookies.",
	"Try again, and allow cookies for this site.", "Try again", "Status 400 Request id " + envoyID}

// atCallback is a browser whose next step is the provider's answer.
func (w *world) atCallback(target, user string) (b *browser, callback string) {
	w.Helper()
	b = w.browser()
	return b, b.callback(b.get(target), user)
}

// with returns a URL with one parameter changed; several values repeat it, none take it away.
func with(target, name string, values ...string) string {
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	q := u.Query()
	q[name] = values
	if len(values) == 0 {
		q.Del(name)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

func param(target, name string) string {
	u, _ := url.Parse(target)
	return u.Query().Get(name)
}

func TestForeignState(t *testing.T) {
	w := newWorld(t)
	b, callback := w.atCallback(auth+"/", "alice")
	state := param(callback, "state")
	for name, forged := range map[string][]string{
		"none": {}, "empty": {""}, "short": {"abc"}, "another id": {"00000000" + state[8:]}, "the id alone": {state[:8]},
		"another secret": {state[:9] + strings.Repeat("A", 22)}, "cut": {state[:len(state)-1]}, "longer": {state + "A"}, "twice": {state, state},
		"upper case": {strings.ToUpper(state[:8]) + state[8:]}, "not hexadecimal": {"../../..." + state}, "binary": {"\xff\x00\x00\x00\x00\x00\x00\x00\x00"},
	} {
		b.shows(name, b.step(with(callback, "state", forged...)), 400, stray...)
	}
	if b.session(auth) != nil {
		t.Fatal("signed in")
	}
	if got := b.get(callback); got.body != "application for alice at /" {
		t.Errorf("the attempt did not survive the attacks: %d %s", got.StatusCode, got.text())
	}
}

func TestStateReused(t *testing.T) {
	w := newWorld(t)
	b, callback := w.atCallback(auth+"/x", "alice")
	u, _ := url.Parse(auth)
	kept := b.Jar.Cookies(u)
	b.get(callback)
	if got := b.step(callback).next(t); got != auth+"/" {
		t.Errorf("the back button leads to %s, want %s/", got, auth)
	}
	again := w.browser()
	b.shows("without the cookie", again.step(callback), 400, stray...)
	again.Jar.SetCookies(u, kept) // a browser that keeps what it was told to drop
	page := again.step(callback)
	again.shows("with the cookie", page, 502, "The sign-in failed", "The answer of the sign-in service could not be verified.")
	if again.session(auth) != nil {
		t.Error("signed in twice with one answer")
	}
	if got := page.link(t); got != auth+prefix+"/sign_in?return=%2Fx" {
		t.Errorf("try again leads to %s", got)
	}
}

// TestLoginCSRF has a person open the answer that the provider gave to somebody else.
func TestLoginCSRF(t *testing.T) {
	w := newWorld(t)
	_, callback := w.atCallback(auth+"/", "bob")
	b, own := w.atCallback(auth+"/", "alice")
	b.shows("another browser's answer", b.step(callback), 400, stray...)
	mixed := with(callback, "state", param(own, "state"))
	b.shows("another's code with one's own state", b.step(mixed), 502, "The sign-in failed")
	if b.session(auth) != nil {
		t.Error("signed in as somebody else")
	}
}

func TestAttemptExpired(t *testing.T) {
	w := newWorld(t)
	b, callback := w.atCallback(auth+"/", "alice")
	w.offset.Add(int64(attemptLife))
	b.shows("a late answer", b.step(callback), 400, stray...)
	if !w.logged("level=INFO", "it has expired") {
		t.Errorf("log: %s", w.log.String())
	}
	b = w.browser()
	late := b.until(wiki+"/", auth+prefix+"/sign_in?request=")
	w.offset.Add(int64(attemptLife))
	b.shows("a late request", b.step(late), 400, "This sign-in cannot go on", "The address is incomplete, or more than five minutes old.", "Open the application again.")
}

// TestOneKindAsAnother puts each sealed value where another belongs.
func TestOneKindAsAnother(t *testing.T) {
	w := newWorld(t)
	purposes := []string{purposeState, purposeFlow, purposeRequest, purposeRounds, purposeLeave, codeKey([]byte("x"))}
	for _, sealed := range purposes {
		value := w.h.seal(sealed, map[string]string{"r": "/x"})
		for _, opened := range purposes {
			var got map[string]string
			_, err := w.h.open(opened, value, time.Minute, &got)
			if sealed == opened && (err != nil || got["r"] != "/x") || sealed != opened && (err != errSealed || got != nil) {
				t.Errorf("sealed as %s, opened as %s: %v, %v", sealed, opened, got, err)
			}
		}
	}
	b, callback := w.atCallback(auth+"/", "alice")
	u, _ := url.Parse(auth)
	state := param(callback, "state")
	name := stateCookie + state[:8]
	for _, purpose := range purposes[1:] {
		b.Jar.SetCookies(u, []*http.Cookie{{Name: name, Path: "/", Value: w.h.seal(purpose, attempt{State: hash([]byte(state)), Return: "/"})}})
		b.shows("a state cookie sealed as "+purpose, b.step(callback), 400, stray...)
	}
}

// TestSessionFixation plants a cookie before the sign-in.
func TestSessionFixation(t *testing.T) {
	w := newWorld(t)
	u, _ := url.Parse(auth)
	cookie := func(b *browser) string {
		for _, c := range b.Jar.Cookies(u) {
			if c.Name == session.CookieName {
				return c.Value
			}
		}
		return ""
	}
	b, callback := w.atCallback(auth+"/", "alice")
	planted := strings.Repeat("A", 43)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: session.CookieName, Value: planted, Path: "/"}})
	b.get(callback)
	if got := cookie(b); got == planted || got == "" || b.session(auth) == nil {
		t.Errorf("the cookie is %q", got)
	}

	// An attacker's own session, planted while somebody signs in.
	attacker := w.browser()
	attacker.signIn(auth+"/", "bob")
	b, callback = w.atCallback(auth+"/", "alice")
	b.Jar.SetCookies(u, []*http.Cookie{{Name: session.CookieName, Value: cookie(attacker), Path: "/"}})
	b.get(callback)
	if cookie(b) == cookie(attacker) || b.session(auth).User.ID != "alice" {
		t.Error("the planted session went on")
	}
	if attacker.session(auth) != nil {
		t.Error("the session that was replaced did not end")
	}
}

// TestSwitchOfPerson signs in as somebody else in a second tab: the first person's cookies on other hosts end.
func TestSwitchOfPerson(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	second := b.get(auth + "/second")
	b.signIn(wiki+"/", "alice")
	if got := b.fill(second, "bob"); got.body != "application for bob at /second" {
		t.Fatalf("%d %s", got.StatusCode, got.text())
	}
	if s := b.session(wiki); s != nil {
		t.Errorf("the wiki still sees %s", s.User.ID)
	}
	if got := b.get(wiki + "/"); got.body != "application for bob at /" {
		t.Errorf("then: %s", got.text())
	}
}

// TestNoSecretsInLog goes once through everything and looks for what must not be in the log.
func TestNoSecretsInLog(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(grafana+"/?secret-query", "alice")
	redeem := w.another(b, "/")
	full, err := w.h.Sessions.Load(t.Context(), b.session(auth).ID)
	if err != nil {
		t.Fatal(err)
	}
	secrets := []string{"s3cret", "secret-query", param(redeem, "code"), full.Tokens.ID, full.Tokens.Access, full.ID}
	for _, origin := range []string{grafana, wiki, auth} {
		for pair := range strings.SplitSeq(cookieHeader(b, origin), "; ") {
			_, value, _ := strings.Cut(pair, "=")
			secrets = append(secrets, value)
		}
	}
	w.browser().get(redeem)
	b.get(grafana + prefix + "/sign_out")
	w.browser().get(auth + prefix + "/callback?state=00000000.secret-query&code=s3cret")
	for _, secret := range secrets {
		if secret != "" && strings.Contains(w.log.String(), secret) {
			t.Errorf("the log holds %q:\n%s", secret, w.log.String())
		}
	}
}

// TestTwoSessions sends two session cookies, of which one is good: authz refuses such a request, and here it is nobody.
func TestTwoSessions(t *testing.T) {
	w := newWorld(t)
	alice, bob := w.browser(), w.browser()
	alice.signIn(auth+"/", "alice")
	bob.signIn(auth+"/", "bob")
	for header, want := range map[string]int{
		cookieHeader(alice, auth):                                    200,
		cookieHeader(alice, auth) + "; " + cookieHeader(alice, auth): 200,
		cookieHeader(alice, auth) + "; " + cookieHeader(bob, auth):   302,
	} {
		if a := w.call("GET", authHost, prefix+"/", http.Header{"Cookie": {header}}); a.StatusCode != want {
			t.Errorf("got %d, want %d", a.StatusCode, want)
		}
	}
}

// TestTwoCookies sends two cookies of one name, of which one is good: somebody has put the other one there.
func TestTwoCookies(t *testing.T) {
	w := newWorld(t)
	b, callback := w.atCallback(auth+"/", "alice")
	_, other := w.atCallback(auth+"/", "bob")
	id := param(callback, "state")[:8]
	good := cookieHeader(b, auth)
	forged := stateCookie + id + "=" + w.h.seal(purposeState, attempt{State: hash([]byte(param(other, "state"))), Return: "/"})
	for _, header := range []string{good + "; " + forged, forged + "; " + good} {
		a := w.call("GET", authHost, strings.TrimPrefix(callback, auth), http.Header{"Cookie": {header}})
		if a.StatusCode != 400 {
			t.Errorf("got %d, want 400", a.StatusCode)
		}
	}
}
