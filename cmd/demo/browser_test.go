package main

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// browsing bounds all that the browser does. It takes a quarter of a minute on an idle machine.
const browsing = 2 * time.Minute

// TestInABrowser runs the demo as a person does, and takes the steps by which the guide verifies a setup, with a real browser.
func TestInABrowser(t *testing.T) {
	chromium := findChromium(t)
	d := runDemo(t)
	ctx, cancel := context.WithTimeout(t.Context(), browsing)
	defer cancel()
	b := startBrowser(ctx, t, chromium, d)
	for _, step := range []struct {
		name string
		run  func(*testing.T, *browser)
	}{
		{"the route requires authentication", routeRequiresAuthentication},
		{"an allowed user gets in and is signed in by the JWT", allowedUserGetsIn},
		{"one sign-in and one sign-out for both hosts", oneSessionForBothHosts},
		{"a disallowed user is blocked", disallowedUserIsBlocked},
		{"a reader may not write", readerMayNotWrite},
		{"two tabs sign in at the same time", twoTabs},
		{"the back button does not go in a circle", backButton},
		{"a link of another site does not sign out", linkOfAnotherSite},
		{"a wrong password and a callback that is over", failedSignIns},
		{"an address where nothing is", envoysOwnPages},
		{"a fault of a page is noticed", faultsAreNoticed},
		{"viewers read, admins write, from the README alone", readmeWalkthrough}, // it changes a policy
		{"a second application is pushed, from the README alone", readmePush},
	} {
		t.Run(step.name, func(t *testing.T) { step.run(t, b) })
	}
}

// deepLink has all that a sign-in may lose.
const deepLink = "/d/x?orgId=1#panel-3"

func routeRequiresAuthentication(t *testing.T, b *browser) {
	x := b.person(t)
	b.demo.requests(t)
	x.open(b.demo.url("grafana", "/"))
	x.arrive(b.demo.form())
	x.shows("Sign in", "User name", "Password")
	x.looks("provider-login")
	if seen := b.demo.requests(t); len(seen) > 0 {
		t.Errorf("%d requests of a stranger reached an application, the first is %s %s", len(seen), seen[0].Method, seen[0].Path)
	}
	x.visit(b.demo.url("grafana", "/public/"))
	x.shows("Everybody may see /public/, signed in or not.")
	x.looks("public")
}

func allowedUserGetsIn(t *testing.T, b *browser) {
	x := b.person(t)
	x.open(b.demo.url("grafana", deepLink))
	x.signIn("alice")
	x.arrive(b.demo.url("grafana", deepLink))
	x.visit(b.demo.url("grafana", "/profile"))
	x.isProfile("Name Alice Adams Synced via JWT", "Email alice@example.com Synced via JWT", "Username alice@example.com Synced via JWT",
		"Role Admin", "Groups grafana-admins, engineering")
	x.looks("profile")
}

// envoysOwnPages are those that Envoy has to show by itself. Their style is let in by their own policy.
func envoysOwnPages(t *testing.T, b *browser) {
	x := b.person(t)
	x.visit(b.demo.url("auth", "/nothing/here"))
	x.shows("Page not found", "Nothing is served at this address.", "Status 404")
	x.looks("edge-not-found")
}

// isProfile wants the profile's rows.
func (x *tab) isProfile(want ...string) {
	x.t.Helper()
	rows, err := chromedp.Run(x.ctx, chromedp.Evaluate[[]string](
		`Array.from(document.querySelectorAll("tr"), row => row.innerText.replace(/\s+/g, " ").trim())`))
	if err != nil || !slices.Equal(rows, want) {
		x.t.Errorf("the profile is\n%s\nwant\n%s\n%v", strings.Join(rows, "\n"), strings.Join(want, "\n"), err)
	}
}

func oneSessionForBothHosts(t *testing.T, b *browser) {
	x := b.person(t)
	x.open(b.demo.url("grafana", "/"))
	x.signIn("alice")
	x.arrive(b.demo.url("grafana", "/"))
	x.visit(b.demo.url("wiki", "/"))
	x.shows("Wiki (demo) Alice Adams")
	x.looks("wiki")
	x.click("header a")
	x.arrive(b.demo.url("wiki", "/.pomerium/"))
	x.shows("You are signed in", "Alice Adams alice@example.com", "grafana-admins engineering", "Session id")
	x.looks("user")
	x.click("main a")
	x.isSignedOut()
	x.looks("signed-out")
	for _, host := range []string{"grafana", "wiki"} {
		x.open(b.demo.url(host, "/"))
		x.arrive(b.demo.form())
	}
}

// isSignedOut waits for the page that ends a sign-out, whose address holds a state.
func (x *tab) isSignedOut() {
	x.t.Helper()
	x.arrive(x.demo.url("auth", "/.pomerium/signed_out?state="))
	x.shows("You are signed out")
}

func disallowedUserIsBlocked(t *testing.T, b *browser) {
	x := b.person(t)
	b.demo.requests(t)
	x.open(b.demo.url("grafana", "/"))
	x.signIn("mallory")
	x.arrive(b.demo.url("grafana", "/"))
	x.shows("Access denied", "Mallory Moore mallory@example.com", "you are in no group that may use Grafana", "Decision id ")
	x.looks("denied")
	if seen := b.demo.requests(t); len(seen) > 0 {
		t.Errorf("%d requests of a denied user reached an application, the first is %s %s", len(seen), seen[0].Method, seen[0].Path)
	}
	x.click("main a")
	x.isSignedOut()
	x.click("main a")
	x.signIn("bob")
	x.arrive(b.demo.url("grafana", "/"))
	x.isProfile("Name Bob Brown Synced via JWT", "Email bob@example.com Synced via JWT", "Username bob@example.com Synced via JWT",
		"Role Viewer", "Groups viewers")
}

func readerMayNotWrite(t *testing.T, b *browser) {
	x := b.person(t)
	x.open(b.demo.url("wiki", "/"))
	x.signIn("bob")
	x.arrive(b.demo.url("wiki", "/"))
	x.click("button")
	x.do(chromedp.WaitVisible(chromedp.CSS("main a")))
	x.shows("Access denied", "Bob Brown bob@example.com", "only engineering may change the wiki")
	x.looks("denied-write")
}

func twoTabs(t *testing.T, b *browser) {
	x := b.person(t)
	y := x.second()
	x.open(b.demo.url("grafana", deepLink))
	y.open(b.demo.url("wiki", "/?page=2#notes"))
	x.fill("alice")
	y.fill("alice")
	clicked := make(chan error, 2)
	for _, one := range []*tab{x, y} {
		go func() { clicked <- chromedp.Do(one.ctx, chromedp.Click(chromedp.CSS("button"))) }()
	}
	for range cap(clicked) {
		if err := <-clicked; err != nil {
			t.Fatal(err)
		}
	}
	x.arrive(b.demo.url("grafana", deepLink))
	y.arrive(b.demo.url("wiki", "/?page=2#notes"))
	x.visit(b.demo.url("wiki", "/"))
	y.visit(b.demo.url("grafana", "/"))
}

// backButton goes back to the login form, which is over: that must be the end of it, and the way forward must lead to the application.
func backButton(t *testing.T, b *browser) {
	x := b.person(t)
	x.open(b.demo.url("grafana", "/profile"))
	x.signIn("alice")
	x.arrive(b.demo.url("grafana", "/profile"))
	x.run("setTimeout(() => history.back())") // after the answer, which is lost with the page
	x.arrive(b.demo.form())
	x.shows("Sign-in expired")
	x.looks("provider-expired")
	x.run("setTimeout(() => history.forward())")
	x.arrive(b.demo.url("grafana", "/profile"))
	x.shows("Alice Adams")
}

func linkOfAnotherSite(t *testing.T, b *browser) {
	x := b.person(t)
	x.open(b.demo.url("wiki", "/"))
	x.signIn("alice")
	x.arrive(b.demo.url("wiki", "/"))
	x.open(b.demo.issuer() + "/")
	x.arrive(b.demo.issuer() + "/")
	signOut := b.demo.url("wiki", "/.pomerium/sign_out")
	x.run(`location.href = "` + signOut + `"`)
	x.arrive(signOut)
	x.shows("Sign out?")
	x.looks("sign-out-question")
	y := x.second()
	y.visit(b.demo.url("wiki", "/"))
	y.shows("Wiki (demo) Alice Adams")
	x.click("button")
	x.isSignedOut()
	x.open(b.demo.url("wiki", "/"))
	x.arrive(b.demo.form())
}

func failedSignIns(t *testing.T, b *browser) {
	x := b.person(t)
	x.visit(b.demo.url("grafana", "/.pomerium/nothing"))
	x.shows("Page not found", "Status 404", "Request id ")
	x.looks("not-found")
	x.visit(b.demo.url("auth", "/.pomerium/callback?state=00000000.x&code=y"))
	x.shows("This sign-in cannot go on", "Status 400", "Request id ")
	x.looks("callback-over")
	x.click("main a")
	x.signIn("nobody")
	x.do(chromedp.WaitVisible(chromedp.CSS(".error")))
	x.shows("That name and password do not belong together.")
	x.looks("provider-refused")
	x.signIn("bob")
	x.arrive(b.demo.url("auth", "/.pomerium/"))
	x.shows("Bob Brown bob@example.com")
}

// faultsAreNoticed makes on purpose what no other step may have, so that these do not pass because nobody listens.
func faultsAreNoticed(t *testing.T, b *browser) {
	x := b.person(t)
	x.mu.Lock()
	x.careless = true
	x.mu.Unlock()
	x.run(`fetch("https://outside.invalid/").catch(() => {})`)
	x.notes("a request left the demo: https://outside.invalid/")
	x.visit(b.demo.url("grafana", "/.pomerium/nothing"))
	x.run(`document.head.append(Object.assign(document.createElement("script"), {textContent: "1"}))`)
	x.notes("violates the following Content Security Policy directive")
	x.notes("ContentSecurityPolicyIssue")
	x.run(`setTimeout(() => { throw new Error("on purpose") })`)
	x.notes("a script failed: ")
	x.run(`console.error("on purpose")`)
	x.notes("a script wrote to the console: error")
}

func TestHas(t *testing.T) {
	d := &running{demo: &demo{port: 8443}}
	for address, want := range map[string]bool{
		"https://grafana.localhost:8443/x":        true,
		"https://wiki.localhost:8443/":            true,
		"https://auth.localhost:8443/":            true,
		"http://localhost:8445/login":             true,
		"http://grafana.localhost:8443/":          false,
		"https://grafana.localhost/":              false,
		"https://grafana.localhost:8443.evil.org": false,
		"https://example.com/":                    false,
		"data:text/html,x":                        false,
	} {
		if got := d.has(address); got != want {
			t.Errorf("has(%s) = %v", address, got)
		}
	}
}
