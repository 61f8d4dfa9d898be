package login

import (
	"encoding/json"
	"html"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
)

const (
	redirect = "http://127.0.0.1:40000/"
	state    = "state-of-the-program"
	verifier = "a-verifier-that-only-the-program-has-0123456789"
)

// newServices is a world in which the hosts of wiki and grafana have TCP services.
func newServices(t *testing.T) *world {
	w := newWorld(t)
	w.change(func(s *Settings) {
		s.Service = func(host string) bool { return host == "wiki.example.com" || host == "grafana.example.com" }
	})
	return w
}

// asks is what a program opens the browser at. Changes are name, value; "-" takes a parameter away.
func asks(origin string, changes ...string) string {
	q := url.Values{"redirect": {redirect}, "challenge": {encoded(hash([]byte(verifier)))}, "state": {state}}
	for i := 0; i < len(changes); i += 2 {
		if q.Set(changes[i], changes[i+1]); changes[i+1] == "-" {
			q.Del(changes[i])
		}
	}
	return origin + prefix + "/cli?" + q.Encode()
}

// here is what a browser sends with a form of the same origin.
var here = http.Header{"Sec-Fetch-Site": {"same-origin"}}

// submit posts a form.
func (b *browser) submit(target string, form url.Values, header http.Header) answer {
	b.Helper()
	r := b.request("POST", target)
	r.Header = header.Clone()
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	text := form.Encode()
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b.do(r)
}

// fields are those of a page's form.
func (a answer) fields() url.Values {
	form := url.Values{}
	for _, m := range regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)"`).FindAllStringSubmatch(a.body, -1) {
		form.Add(m[1], html.UnescapeString(m[2]))
	}
	return form
}

// yes says yes on a page that asks, and returns where the browser is sent.
func (b *browser) yes(page answer) string {
	b.Helper()
	to := page.Request.URL.ResolveReference(&url.URL{Path: prefix + "/cli"})
	return b.submit(to.String(), page.fields(), here).link(b)
}

// code is the one that the browser takes to the program.
func (b *browser) code(page answer) string { b.Helper(); return param(b.yes(page), "code") }

// redeemed is what a program gets for a code.
func (w *world) redeemed(origin, code, verifier string) (answer, ProgramToken) {
	w.Helper()
	got := w.browser().submit(origin+prefix+"/cli/token", url.Values{"code": {code}, "verifier": {verifier}}, http.Header{})
	var token ProgramToken
	if err := json.Unmarshal([]byte(got.body), &token); err != nil {
		w.Fatalf("%d %q: %v", got.StatusCode, got.body, err)
	}
	return got, token
}

func TestProgramIsLetConnect(t *testing.T) {
	w := newServices(t)
	b := w.modern()
	page := b.fill(b.get(b.get(asks(wiki)).link(t)), "alice") // after the page whose script keeps a fragment
	b.shows("the question", page, 200, "Let a program connect?",
		"A program on this computer asks to connect to wiki.example.com as alice@example.com. If you have not just started it, close this page.")
	next := b.yes(page)
	if !strings.HasPrefix(next, redirect+"?code=") || param(next, "state") != state {
		t.Fatalf("sent to %s", next)
	}
	got, token := w.redeemed(wiki, param(next, "code"), verifier)
	if got.StatusCode != 200 || token.Account != "alice@example.com" || !slices.Equal(got.Header["Cache-Control"], []string{"no-store"}) || len(got.Cookies()) != 0 {
		t.Fatalf("got %d %v %v", got.StatusCode, token, got.Header)
	}
	s, err := w.h.Sessions.Find(t.Context(), token.Credential, session.ForService("wiki.example.com"))
	if err != nil || s.ID != b.session(wiki).ID || !token.Expires.Equal(s.Expires) {
		t.Fatalf("the credential is of %v, %v", s, err)
	}
	for _, host := range []string{"wiki.example.com", "grafana.example.com", authHost, session.ForService("grafana.example.com")} {
		if s, err := w.h.Sessions.Find(t.Context(), token.Credential, host); err == nil {
			t.Errorf("at %s it is a cookie of %s", host, s.User.ID)
		}
	}
	b.get(auth + prefix + "/sign_out")
	if _, err := w.h.Sessions.Find(t.Context(), token.Credential, session.ForService("wiki.example.com")); err == nil {
		t.Error("it outlives the sign-out, at another host")
	}
	for _, secret := range []string{param(next, "code"), token.Credential, verifier} {
		if strings.Contains(w.log.String(), secret) {
			t.Errorf("the log has %s", secret)
		}
	}
}

// TestProgramSignsInFirst with browsers that send no Fetch Metadata, at the sign-in host's service and another's, and when a recent sign-in is asked for.
func TestProgramSignsInFirst(t *testing.T) {
	w := newServices(t)
	for _, origin := range []string{wiki, grafana} {
		b := w.browser()
		if page := b.fill(b.get(asks(origin)), "alice"); page.StatusCode != 200 || page.fields().Get("state") != state {
			t.Errorf("%s: arrived at %s: %d\n%s", origin, page.Request.URL, page.StatusCode, page.text())
		}
	}
	b := w.browser()
	b.signIn(wiki+"/", "alice")
	w.offset.Add(int64(2 * time.Minute))
	next := b.step(asks(wiki) + "&max_age=60").next(t)
	if back := param(next, "return"); !strings.HasPrefix(next, wiki+prefix+"/sign_in?max_age=60&return=") || !strings.HasPrefix(back, prefix+"/cli?") || param(back, "max_age") != "60" {
		t.Errorf("whose sign-in is too old is sent to %s", next)
	}
}

func TestProgramAsksInVain(t *testing.T) {
	w := newServices(t)
	b := w.browser()
	b.signIn(wiki+"/", "alice")
	b.get(grafana + "/")
	strange := []string{"No program can connect by this address", "The address is incomplete, or was not made by a program on this computer.", "Start the program again."}
	for name, target := range map[string]string{
		"another host":            asks(wiki, "redirect", "http://evil.example/"),
		"another host, as user":   asks(wiki, "redirect", "http://127.0.0.1:40000@evil.example/"),
		"another host, below":     asks(wiki, "redirect", "http://127.0.0.1.evil.example:40000/"),
		"a name":                  asks(wiki, "redirect", "http://localhost:40000/"),
		"another address":         asks(wiki, "redirect", "http://127.0.0.2:40000/"),
		"any address":             asks(wiki, "redirect", "http://0.0.0.0:40000/"),
		"an address as a number":  asks(wiki, "redirect", "http://2130706433:40000/"),
		"a mapped address":        asks(wiki, "redirect", "http://[::ffff:127.0.0.1]:40000/"),
		"https":                   asks(wiki, "redirect", "https://127.0.0.1:40000/"),
		"a script":                asks(wiki, "redirect", "javascript:alert(1)//127.0.0.1:40000/"),
		"in capitals":             asks(wiki, "redirect", "HTTP://127.0.0.1:40000/"),
		"a path":                  asks(wiki, "redirect", "http://127.0.0.1:40000/x"),
		"a query":                 asks(wiki, "redirect", "http://127.0.0.1:40000/?x=y"),
		"a fragment":              asks(wiki, "redirect", "http://127.0.0.1:40000/#x"),
		"a backslash":             asks(wiki, "redirect", `http://127.0.0.1:40000\@evil.example/`),
		"a second line":           asks(wiki, "redirect", "http://127.0.0.1:40000/\nhttp://evil.example/"),
		"no port":                 asks(wiki, "redirect", "http://127.0.0.1/"),
		"port 0":                  asks(wiki, "redirect", "http://127.0.0.1:0/"),
		"a port too large":        asks(wiki, "redirect", "http://127.0.0.1:65536/"),
		"a port with a zero":      asks(wiki, "redirect", "http://127.0.0.1:080/"),
		"no redirect":             asks(wiki, "redirect", "-"),
		"two redirects":           asks(wiki) + "&redirect=" + url.QueryEscape(redirect),
		"no challenge":            asks(wiki, "challenge", "-"),
		"a plain challenge":       asks(wiki, "challenge", verifier),
		"a challenge with a byte": asks(wiki, "challenge", encoded(hash([]byte(verifier)))+"A"),
		"two challenges":          asks(wiki) + "&challenge=x",
		"no state":                asks(wiki, "state", "-"),
		"a short state":           asks(wiki, "state", "0123456789"),
		"a state with a script":   asks(wiki, "state", `"><script>alert(1)</script>`),
		"a long state":            asks(wiki, "state", strings.Repeat("x", 65)),
	} {
		b.shows(name, b.step(target), 400, strange...)
		form, _ := url.Parse(target)
		q := form.Query()
		q.Set("session", session.HashID(b.session(wiki).ID))
		b.shows(name+", posted", b.submit(wiki+prefix+"/cli", q, here), 400, strange...)
	}
	for _, good := range []string{"http://127.0.0.1:1/", "http://127.0.0.1:65535/", "http://[::1]:40000/"} {
		if next := b.yes(b.get(asks(wiki, "redirect", good))); !strings.HasPrefix(next, good+"?code=") {
			t.Errorf("%s: sent to %s", good, next)
		}
	}
	for _, path := range []string{"/cli", "/cli/token"} {
		if got := b.step(auth + prefix + path); got.StatusCode != 404 {
			t.Errorf("%s at a host without a service: %d", path, got.StatusCode)
		}
	}
	if got := b.step(wiki + prefix + "/cli/token?code=x"); got.StatusCode != 405 || got.Header.Get("Allow") != "POST" {
		t.Errorf("GET of a token: %d", got.StatusCode)
	}
	frame := w.browser()
	frame.Jar, frame.header = b.Jar, http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"iframe"}, "Sec-Fetch-Site": {"cross-site"}}
	if got := frame.step(asks(wiki)); got.StatusCode != 401 || got.fields().Has("session") {
		t.Errorf("in a frame: %d\n%s", got.StatusCode, got.text())
	}
}

// TestProgramNeedsThePersonsYes: nobody else can say it.
func TestProgramNeedsThePersonsYes(t *testing.T) {
	w := newServices(t)
	b, other := w.browser(), w.browser()
	b.signIn(wiki+"/", "alice")
	other.signIn(wiki+"/", "bob")
	form := b.get(asks(wiki)).fields()
	for name, header := range map[string]http.Header{
		"another site": {"Sec-Fetch-Site": {"cross-site"}}, "a sibling": {"Sec-Fetch-Site": {"same-site"}}, "nowhere": {},
		"another origin": {"Origin": {grafana}}, "no origin": {"Origin": {"null"}}, "by the address bar": {"Sec-Fetch-Site": {"none"}},
	} {
		b.shows("from "+name, b.submit(wiki+prefix+"/cli", form, header), 403, "Nothing was allowed")
	}
	if got := b.submit(wiki+prefix+"/cli", form, http.Header{"Origin": {wiki}}); !strings.HasPrefix(got.link(t), redirect) {
		t.Errorf("from a browser without Fetch Metadata: %s", got.text())
	}
	if got := w.browser().submit(wiki+prefix+"/cli", form, here); got.StatusCode != 302 || !strings.HasPrefix(got.next(t), wiki+prefix+"/sign_in?return=") {
		t.Errorf("a stranger's yes: %d", got.StatusCode)
	}
	got := other.submit(wiki+prefix+"/cli", form, here)
	other.shows("what alice was asked, and bob's browser posts", got, 200, "Let a program connect?",
		"A program on this computer asks to connect to wiki.example.com as bob@example.com.")
	form.Set("session", "")
	b.shows("without a session", b.submit(wiki+prefix+"/cli", form, here), 200, "Let a program connect?")
	if got := b.submit(wiki+prefix+"/cli", url.Values{"x": {strings.Repeat("x", maxForm)}}, here); got.StatusCode != 400 {
		t.Errorf("a large form: %d", got.StatusCode)
	}
}

func TestProgramCodeStolen(t *testing.T) {
	w := newServices(t)
	b := w.browser()
	b.signIn(wiki+"/", "alice")
	b.get(grafana + "/")
	flow := func() string { // of a hand-off at the wiki by the same browser
		b.lose(wiki)
		return b.until(wiki+"/", wiki+prefix+"/redeem")
	}
	for name, present := range map[string]func(code string) answer{
		"with another verifier": func(code string) answer { a, _ := w.redeemed(wiki, code, "another-verifier"); return a },
		"without one":           func(code string) answer { a, _ := w.redeemed(wiki, code, ""); return a },
		"with the challenge":    func(code string) answer { a, _ := w.redeemed(wiki, code, encoded(hash([]byte(verifier)))); return a },
		"at another host":       func(code string) answer { a, _ := w.redeemed(grafana, code, verifier); return a },
		"as that of a hand-off": func(code string) answer { return b.step(with(flow(), "code", code)) },
		"after a minute": func(code string) answer {
			w.offset.Add(int64(codeLife))
			a, _ := w.redeemed(wiki, code, verifier)
			return a
		},
		"in the address": func(code string) answer {
			return b.submit(wiki+prefix+"/cli/token?code="+code+"&verifier="+verifier, nil, http.Header{})
		},
		"a hand-off's in its place": func(string) answer {
			a, _ := w.redeemed(wiki, param(flow(), "code"), verifier)
			return a
		},
	} {
		w.offset.Add(int64(2 * time.Minute)) // not a circle
		b.get(wiki + "/")
		code := b.code(b.get(asks(wiki)))
		if got := present(code); got.StatusCode != 400 {
			t.Errorf("%s: got %d %s", name, got.StatusCode, got.body)
		}
		switch name {
		case "in the address", "a hand-off's in its place": // it was not presented
			continue
		}
		if got, _ := w.redeemed(wiki, code, verifier); got.StatusCode != 400 {
			t.Errorf("%s, then by its program: %d, want it to be gone", name, got.StatusCode)
		}
	}
	for name, code := range map[string]string{"no code": "", "unknown": strings.Repeat("A", 43), "not base64url": strings.Repeat("+", 43), "a key": "../code/x"} {
		if got, _ := w.redeemed(wiki, code, verifier); got.StatusCode != 400 || !strings.Contains(got.body, `"invalid_grant"`) {
			t.Errorf("%s: got %d %s", name, got.StatusCode, got.body)
		}
	}
}

// TestProgramCodeReplayed presents a code twice, and 20 times at once.
func TestProgramCodeReplayed(t *testing.T) {
	w := newServices(t)
	b := w.browser()
	b.signIn(wiki+"/", "alice")
	code := b.code(b.get(asks(wiki)))
	if got, _ := w.redeemed(wiki, code, verifier); got.StatusCode != 200 {
		t.Fatal(got.body)
	}
	if got, _ := w.redeemed(wiki, code, verifier); got.StatusCode != 400 {
		t.Errorf("a second time: %d", got.StatusCode)
	}
	code = b.code(b.get(asks(wiki)))
	var wg sync.WaitGroup
	won := make(chan struct{}, 20)
	for range 20 {
		thief := w.browser()
		wg.Go(func() {
			if thief.submit(wiki+prefix+"/cli/token", url.Values{"code": {code}, "verifier": {verifier}}, http.Header{}).StatusCode == 200 {
				won <- struct{}{}
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d of 20 won, want 1", len(won))
	}
}

// TestProgramCodeOutlivesNoSession: neither the session nor the service may be gone.
func TestProgramCodeOutlivesNoSession(t *testing.T) {
	w := newServices(t)
	b := w.browser()
	b.signIn(wiki+"/", "alice")
	code := b.code(b.get(asks(wiki)))
	b.get(wiki + prefix + "/sign_out")
	if got, _ := w.redeemed(wiki, code, verifier); got.StatusCode != 403 || !strings.Contains(got.body, `"session_ended"`) {
		t.Errorf("after the sign-out: %d %s", got.StatusCode, got.body)
	}
	b.signIn(wiki+"/", "alice")
	code = b.code(b.get(asks(wiki)))
	w.change(func(s *Settings) { s.Service = func(string) bool { return false } })
	if got := b.submit(wiki+prefix+"/cli/token", url.Values{"code": {code}, "verifier": {verifier}}, http.Header{}); got.StatusCode != 404 {
		t.Errorf("after the service's end: %d", got.StatusCode)
	}
	w.host("wiki.example.com", config.URL{})
	if got := b.step(asks(wiki)); got.StatusCode != 421 {
		t.Errorf("after the host's: %d", got.StatusCode)
	}
}
