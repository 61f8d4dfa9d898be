package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// TestKeycloakInABrowser holds Doorward against a provider that many run, with a real browser.
func TestKeycloakInABrowser(t *testing.T) {
	chromium := findChromium(t)
	r, k := runWithKeycloak(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*browsing)
	defer cancel()
	b := startBrowser(ctx, t, chromium, r)
	early := b.person(t)
	t.Run("a person signs in", func(t *testing.T) { early.of(t).signInAtKeycloak(k, "alice", "/careful/") })
	stale := time.Now().Add(61 * time.Second) // by then the route wants a fresh sign-in
	for _, step := range []struct {
		name string
		run  func(*testing.T, *browser, *keycloak)
	}{
		{"a second host needs no second sign-in", secondHost},
		{"two tabs sign in at once", twoTabsAtKeycloak},
		{"a changed group is seen within the refresh interval", changedGroup},
		{"signing out ends Keycloak's session", signOutEverywhere},
		{"Keycloak's administrator signs a person out, and an open WebSocket ends", adminSignsOut},
		{"the choice between two providers", choice},
		{"who is denied", deniedByGroup},
		{"what went wrong", errorPages},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(t, b, k) })
	}
	t.Run("a route that wants a fresh sign-in", func(t *testing.T) {
		time.Sleep(time.Until(stale))
		stepUp(t, early.of(t), k)
	})
}

// of lets another test use the tab.
func (x *tab) of(t *testing.T) *tab {
	x.t = t // whose end is nearer than that of the tab's own
	return x
}

// form is where Keycloak's login form begins.
func (k *keycloak) form(realm string) string {
	return k.origin + "/realms/" + realm + "/protocol/openid-connect/auth?client_id="
}

// signInAtKeycloak opens a page of the first host and signs in on the way.
func (x *tab) signInAtKeycloak(k *keycloak, name, path string) {
	x.t.Helper()
	x.open(x.demo.url("grafana", path))
	x.arrive(k.form("main"))
	x.fill(name)
	x.click("#kc-login")
	x.arrive(x.demo.url("grafana", path))
}

// becomes waits until the page says a text, loading it anew when reload says so.
func (x *tab) becomes(text string, within time.Duration, reload string) {
	x.t.Helper()
	for begun := time.Now(); !strings.Contains(x.text(), text); time.Sleep(100 * time.Millisecond) {
		if time.Since(begun) > within {
			x.t.Fatalf("the page does not say %q within %v:\n%s", text, within, x.text())
		}
		if reload != "" {
			x.visit(reload)
		}
	}
}

func secondHost(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	x.open(b.demo.url("grafana", "/"))
	x.arrive(k.form("main"))
	x.looks("keycloak-login")
	x.fill("alice")
	x.click("#kc-login")
	x.arrive(b.demo.url("grafana", "/"))
	x.shows("alice@example.com in engineering, grafana-admins")
	x.visit(b.demo.url("wiki", "/page?q=1#part"))
	x.shows("alice@example.com")
	x.visit(b.demo.url("grafana", "/.pomerium/"))
	x.shows("You are signed in", "Alice Adams", "alice@example.com", "grafana-admins")
	x.looks("keycloak-user")
}

func twoTabsAtKeycloak(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	y := x.second()
	x.open(b.demo.url("grafana", "/d/x?orgId=1#panel-3"))
	x.arrive(k.form("main"))
	y.open(b.demo.url("wiki", "/?page=2#notes"))
	y.arrive(k.form("main"))
	x.fill("alice")
	y.fill("alice")
	clicked := make(chan error, 2)
	for _, one := range []*tab{x, y} {
		go func() { clicked <- chromedp.Do(one.ctx, chromedp.Click(chromedp.CSS("#kc-login"))) }()
	}
	for range cap(clicked) {
		if err := <-clicked; err != nil {
			t.Fatal(err)
		}
	}
	x.arriveOrRepeat(k, "alice", b.demo.url("grafana", "/d/x?orgId=1#panel-3"))
	y.arriveOrRepeat(k, "alice", b.demo.url("wiki", "/?page=2#notes"))
	y.shows("alice@example.com")
	// A form that is sent after another tab has signed in, in a browser without scripts, where Keycloak cannot take it away.
	z := b.person(t)
	w := z.second()
	z.open(b.demo.url("grafana", "/"))
	z.arrive(k.form("main"))
	w.scripts(false)
	w.open(b.demo.url("wiki", "/"))
	w.arrive(k.form("main"))
	w.fill("bob")
	z.fill("bob")
	z.click("#kc-login")
	z.arrive(b.demo.url("grafana", "/"))
	w.click("#kc-login")
	w.arrive(b.demo.url("wiki", "/"))
	w.shows("bob@example.com")
}

// arriveOrRepeat waits for an address. Keycloak now and then refuses one of two forms of a browser that it gets at the very same moment and shows
// it once more ("Invalid username or password"); a person then fills it in again, and so does this, once.
func (x *tab) arriveOrRepeat(k *keycloak, name, want string) {
	x.t.Helper()
	for begun := time.Now(); time.Since(begun) < arriveWithin/2; time.Sleep(50 * time.Millisecond) {
		place, err := chromedp.Run(x.ctx, chromedp.Evaluate[string](`document.readyState == "complete" ? location.href : ""`))
		if err != nil || place == "" {
			continue
		}
		if place == want {
			return
		}
		if strings.HasPrefix(place, k.origin) && strings.Contains(x.text(), "Invalid username or password") {
			x.fill(name)
			x.click("#kc-login")
			break
		}
	}
	x.arrive(want)
}

func changedGroup(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	x.signInAtKeycloak(k, "bob", "/")
	x.shows("bob@example.com in viewers")
	membership := fmt.Sprintf("/main/users/%s/groups/%s", k.user("bob"), k.idOf("/main/groups?exact=true&search=engineering"))
	k.admin(http.MethodPut, membership, map[string]any{}, nil)
	x.becomes("bob@example.com in engineering, viewers", 10*time.Second, b.demo.url("grafana", "/"))
	k.admin(http.MethodDelete, membership, nil, nil)
	x.becomes("bob@example.com in viewers", 10*time.Second, b.demo.url("grafana", "/"))
}

func signOutEverywhere(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	x.signInAtKeycloak(k, "alice", "/")
	x.open(b.demo.url("grafana", "/.pomerium/sign_out"))
	x.isSignedOut()
	x.looks("keycloak-signed-out")
	for _, host := range []string{"grafana", "wiki"} {
		x.open(b.demo.url(host, "/"))
		x.arrive(k.form("main"))
		x.do(chromedp.WaitVisible(chromedp.CSS("#password")))
	}
}

func adminSignsOut(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	x.signInAtKeycloak(k, "bob", "/")
	x.run("live()")
	x.becomes("socket open", arriveWithin, "")
	// A refused refresh would end the session too, so that it has ended is not enough.
	const told = `"msg":"signed out by the provider"`
	before := read(b.demo.path("doorward.log"))
	k.admin(http.MethodPost, "/main/users/"+k.user("bob")+"/logout", map[string]any{}, nil)
	x.becomes("socket closed", 5*time.Second, "")
	if after := strings.TrimPrefix(read(b.demo.path("doorward.log")), before); !strings.Contains(after, told) {
		t.Errorf("the back channel did not reach us:\n%s", after)
	}
	x.open(b.demo.url("grafana", "/"))
	x.arrive(k.form("main"))
}

func choice(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	x.open(b.demo.url("wiki", "/anybody/"))
	x.do(chromedp.WaitVisible(chromedp.CSS("main")))
	x.becomes("Partner companies", arriveWithin, "")
	x.shows("Example staff")
	x.looks("keycloak-choice")
	x.run(`[...document.querySelectorAll("a, button")].find(e => e.innerText.includes("Partner companies")).click()`)
	x.arrive(k.form("partners"))
	x.fill("bob")
	x.click("#kc-login")
	x.arrive(b.demo.url("wiki", "/anybody/"))
	x.shows("bob@example.com")
	y := x.second()
	y.open(b.demo.url("grafana", "/")) // which wants the other provider
	y.arrive(k.form("main"))
}

func deniedByGroup(t *testing.T, b *browser, k *keycloak) {
	x := b.person(t)
	x.signInAtKeycloak(k, "mallory", "/")
	x.shows("Access denied", "mallory@example.com", "you are in no group that may use Grafana")
	x.looks("keycloak-denied")
	other := b.person(t)
	other.open(b.demo.url("wiki", "/"))
	other.arrive(k.form("main"))
	other.fill("mallory")
	other.click("#kc-login")
	other.arrive(b.demo.url("wiki", "/"))
	other.visit(b.demo.url("auth", "/.pomerium/"))
	other.looks("keycloak-user-sessions")
}

func errorPages(t *testing.T, b *browser, _ *keycloak) {
	x := b.person(t)
	x.visit(b.demo.url("auth", "/.pomerium/callback?state=00000000.x&code=y"))
	x.shows("This sign-in cannot go on")
	x.looks("keycloak-error")
}

// stepUp has a session older than the route allows: Keycloak asks again, and the session goes on where it was.
func stepUp(t *testing.T, x *tab, k *keycloak) {
	x.visit(x.demo.url("grafana", "/"))
	x.open(x.demo.url("grafana", "/careful/"))
	x.arrive(k.form("main"))
	x.do(chromedp.SendKeys(chromedp.CSS("#password"), "alice"))
	x.looks("keycloak-again")
	x.click("#kc-login")
	x.arrive(x.demo.url("grafana", "/careful/"))
	x.shows("alice@example.com")
	x.visit(x.demo.url("wiki", "/"))
}

// stopGroup ends a process group that a test started, and waits until nothing of it is left.
func stopGroup(pid int) {
	_ = syscall.Kill(-pid, syscall.SIGTERM) // that it is gone is as good
	for begun := time.Now(); syscall.Kill(-pid, 0) == nil && time.Since(begun) < 10*time.Second; time.Sleep(50 * time.Millisecond) {
	}
	_ = syscall.Kill(-pid, syscall.SIGKILL)
}
