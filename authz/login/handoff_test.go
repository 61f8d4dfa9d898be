package login

import (
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/session"
	"doorward/authz/store"
)

var notRedeemed = []string{"The sign-in was not completed here",
	"It was begun in another browser or more than a few minutes ago, or this browser does not keep this site's cookies.",
	"Try again, and allow cookies for this site.", "Try again", "Status 400 Request id " + envoyID}

// TestCodeReplayed presents a hand-off's code twice, and 20 times at once.
func TestCodeReplayed(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	redeem := b.until(wiki+"/x", wiki+prefix+"/redeem")
	u, _ := url.Parse(wiki)
	kept := b.Jar.Cookies(u)
	if got := b.get(redeem); got.body != "application for alice at /x" {
		t.Fatal(got.text())
	}
	if got := b.step(redeem).next(t); got != wiki+"/" {
		t.Errorf("the back button leads to %s", got)
	}
	thief := w.browser()
	thief.Jar.SetCookies(u, kept)
	thief.shows("a second time", thief.step(redeem), 400, notRedeemed...)

	redeem = w.another(b, "/y")
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	header := http.Header{"Cookie": {cookieHeader(b, wiki)}}
	for range 20 {
		wg.Go(func() {
			a := w.call("GET", "wiki.example.com", strings.TrimPrefix(redeem, wiki), header)
			for _, c := range a.Cookies() {
				if c.Name == session.CookieName && c.Value != "" {
					mu.Lock()
					won++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if won != 1 {
		t.Errorf("%d of 20 won, want 1", won)
	}
}

// another takes the wiki's session cookie away and goes up to the next redemption.
func (w *world) another(b *browser, path string) string {
	b.lose(wiki)
	return b.until(wiki+path, wiki+prefix+"/redeem")
}

func cookieHeader(b *browser, origin string) string {
	u, _ := url.Parse(origin)
	var pairs []string
	for _, c := range b.Jar.Cookies(u) {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	return strings.Join(pairs, "; ")
}

func TestCodeStolen(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	for name, present := range map[string]func(redeem string) answer{
		"by another browser": func(redeem string) answer { return w.browser().step(redeem) },
		"by a browser with a hand-off of its own": func(redeem string) answer {
			thief := w.browser()
			thief.until(wiki+"/", auth+prefix+"/sign_in?request=")
			flow := thief.cookies(wiki, flowCookie)[0]
			return thief.step(with(redeem, "flow", strings.TrimPrefix(flow, flowCookie)))
		},
		"at another host": func(redeem string) answer { return b.step(strings.Replace(redeem, wiki, grafana, 1)) },
		"at another host, with a hand-off there": func(redeem string) answer {
			b.until(grafana+"/", auth+prefix+"/sign_in?request=")
			flow := b.cookies(grafana, flowCookie)[0]
			return b.step(with(strings.Replace(redeem, wiki, grafana, 1), "flow", strings.TrimPrefix(flow, flowCookie)))
		},
		"with the flow cookie of another host": func(redeem string) answer {
			return w.call("GET", "grafana.example.com", strings.TrimPrefix(redeem, wiki), http.Header{"Cookie": {cookieHeader(b, wiki)}})
		},
		"without a flow":   func(redeem string) answer { return b.step(with(redeem, "flow")) },
		"with two flows":   func(redeem string) answer { return b.step(with(redeem, "flow", param(redeem, "flow"), "00000000")) },
		"with a wild flow": func(redeem string) answer { return b.step(with(redeem, "flow", "../../..")) },
		"after a minute": func(redeem string) answer {
			w.offset.Add(int64(codeLife))
			return b.step(redeem)
		},
	} {
		redeem := w.another(b, "/")
		a := present(redeem)
		if a.StatusCode != 400 || !strings.HasPrefix(a.text(), strings.Join(notRedeemed, "\n")) {
			t.Errorf("%s: got %d %s", name, a.StatusCode, a.text())
		}
		// Whatever came out, the code is gone.
		b.shows(name+", then by whom it was for", b.step(redeem), 400, notRedeemed...)
	}
	for name, code := range map[string][]string{"no code": {}, "empty": {""}, "short": {"abc"}, "unknown": {strings.Repeat("A", 43)}, "not base64url": {strings.Repeat("+", 43)}, "a key": {"../code/x"}} {
		redeem := w.another(b, "/")
		b.shows(name, b.step(with(redeem, "code", code...)), 400, notRedeemed...)
		if got := b.step(redeem).next(t); got != wiki+"/" {
			t.Errorf("%s: the true code was spoiled: %s", name, got)
		}
		w.offset.Add(int64(2 * time.Minute)) // not a circle
	}
}

// TestHandOffToStranger opens the request of one browser in another that is signed in: nothing reaches the first.
func TestHandOffToStranger(t *testing.T) {
	w := newWorld(t)
	attacker, victim := w.browser(), w.browser()
	victim.signIn(auth+"/", "alice")
	ask := attacker.until(wiki+"/", auth+prefix+"/sign_in?request=")
	victim.shows("the victim's browser", victim.get(ask), 400, notRedeemed...)
	if victim.session(wiki) != nil || attacker.session(wiki) != nil {
		t.Error("somebody is signed in at the wiki")
	}
}

func TestForgedRequest(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	good := request{Host: "wiki.example.com", Nonce: hash([]byte("n")), Flow: "00000000"}
	page := []string{"This sign-in cannot go on", "The address is incomplete, or more than five minutes old.", "Open the application again."}
	for name, sealed := range map[string]string{
		"nothing": "", "noise": strings.Repeat("A", 200), "not base64url": "%2B%2B",
		"another host":       w.h.seal(purposeRequest, request{Host: "evil.example", Nonce: good.Nonce, Flow: good.Flow}),
		"the auth host":      w.h.seal(purposeRequest, request{Host: authHost, Nonce: good.Nonce, Flow: good.Flow}),
		"a wild flow":        w.h.seal(purposeRequest, request{Host: good.Host, Nonce: good.Nonce, Flow: "x&code=y"}),
		"sealed as state":    w.h.seal(purposeState, good),
		"sealed as flow":     w.h.seal(purposeFlow, good),
		"sealed as sign-out": w.h.seal(purposeLeave, good),
		"sealed as rounds":   w.h.seal(purposeRounds, good),
		"with a byte more":   w.h.seal(purposeRequest, good) + "A",
	} {
		b.shows(name, b.step(auth+prefix+"/sign_in?request="+sealed), 400, page...)
	}
	sealed := w.h.seal(purposeRequest, good)
	b.shows("at another host", b.step(grafana+prefix+"/sign_in?request="+sealed), 400, page...)
	b.shows("twice", b.step(auth+prefix+"/sign_in?request="+sealed+"&request="+sealed), 400, page...)
	if got := b.step(auth + prefix + "/sign_in?request=" + sealed).next(t); !strings.HasPrefix(got, wiki+prefix+"/redeem?code=") {
		t.Errorf("the true one led to %s", got)
	}
}

// TestHandOffBoundToHost gives one host what was made for another, with a nonce that fits.
func TestHandOffBoundToHost(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	b.signIn(auth+"/", "alice")
	nonce := []byte("n")
	for name, c := range map[string]struct {
		asked, flow string
		status      int
	}{
		"all for this host":           {"grafana.example.com", "grafana.example.com", 302},
		"a code for another host":     {"wiki.example.com", "grafana.example.com", 400},
		"a flow of another host":      {"grafana.example.com", "wiki.example.com", 400},
		"a flow of no host":           {"grafana.example.com", "", 400},
		"both for one, at another":    {"wiki.example.com", "wiki.example.com", 400},
		"a code for the auth host":    {authHost, "grafana.example.com", 400},
		"a code for a host not known": {"evil.example", "grafana.example.com", 400},
	} {
		code := []byte(strings.Repeat(name[:1], 32))
		key := codeKey(code)
		grant := w.h.seal(key, grant{Session: b.session(auth).ID, Host: c.asked, Nonce: hash(nonce)})
		if _, err := w.h.Store.Apply(t.Context(), store.Op{Key: key, Value: []byte(grant), Expect: store.Any}); err != nil {
			t.Fatal(err)
		}
		cookie := flowCookie + "00000000=" + w.h.seal(purposeFlow, flow{Host: c.flow, Nonce: nonce, Return: "/x"})
		a := w.call("GET", "grafana.example.com", prefix+"/redeem?flow=00000000&code="+encoded(code), http.Header{"Cookie": {cookie}})
		if a.StatusCode != c.status {
			t.Errorf("%s: got %d, want %d", name, a.StatusCode, c.status)
		}
	}
}
