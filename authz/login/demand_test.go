package login

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
)

// two has a second provider, "partners", which knows another Alice.
func two(t *testing.T) (f, partners *fake) {
	f, partners = newFake(t), newFake(t)
	f.claims = map[string]any{"sid": "main-sid"}
	partners.claims = map[string]any{"sid": "partners-sid", "email": "alice@partner.example"}
	f.change(func(s *Settings) {
		s.IDPs[0].Label = "Example Inc."
		s.IDPs = append(s.IDPs, config.IDP{Name: "partners", Issuer: f.url(partners.issuer), ClientID: "doorward"})
	})
	return f, partners
}

func TestRouteNamesItsProvider(t *testing.T) {
	f, partners := two(t)
	f.demands = map[string]session.Demand{"wiki.example.com": {Providers: []string{"partners"}}, "grafana.example.com": {Providers: []string{"default"}}}
	b := f.browser()
	if got, want := b.get(grafana+"/x").body, "application for alice at /x"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	main := b.session(grafana)
	if got, want := b.get(wiki+"/y").body, "application for partners:alice at /y"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if s := b.session(wiki); s == nil || s.Provider != "partners" || s.Issuer != partners.issuer || s.User.Email != "alice@partner.example" || s.Browser == "" || s.Browser != main.Browser {
		t.Errorf("the session is %+v", s)
	}
	if s := b.session(grafana); s == nil || s.ID != main.ID {
		t.Error("a sign-in with another provider ended the first session")
	}
	if got, want := b.get(grafana+"/z").body, "application for alice at /z"; got != want || len(b.trail) != 1 {
		t.Errorf("got %s by %q, want %s at once", got, b.trail, want)
	}
	if got := b.get(wiki + prefix + "/sign_out"); got.StatusCode/100 == 5 {
		t.Fatal(got.text())
	}
	if b.session(grafana) != nil || b.session(wiki) != nil {
		t.Error("a sign-out left a session of this browser")
	}
	for _, s := range []*session.Session{main} {
		if _, err := f.h.Sessions.Load(t.Context(), s.ID); err == nil {
			t.Error("the session with the other provider is still there")
		}
	}
}

// A second sign-in with one provider ends the first session with it, also when the browser has signed in with another meanwhile.
func TestSignInAgainWithTheFirstProvider(t *testing.T) {
	f, _ := two(t)
	f.demands = map[string]session.Demand{"wiki.example.com": {Providers: []string{"partners"}}, "grafana.example.com": {Providers: []string{"default"}}}
	b := f.browser()
	b.get(grafana + "/")
	first := b.session(grafana)
	b.get(wiki + "/")
	other := b.session(wiki)
	b.lose(grafana)
	b.get(grafana + "/")
	if s := b.session(grafana); s == nil || s.ID == first.ID {
		t.Fatalf("the session is %+v", s)
	}
	if _, err := f.h.Sessions.Load(t.Context(), first.ID); err == nil {
		t.Error("the first session with the provider goes on")
	}
	if s := b.session(wiki); s == nil || s.ID != other.ID {
		t.Error("the session with the other provider has ended")
	}
}

func TestChoiceOfProviders(t *testing.T) {
	f, partners := two(t)
	for _, origin := range []string{auth, wiki} {
		b := f.browser()
		page := b.get(origin + "/x?a=1")
		b.shows("the choice", page, 200, "Sign in", "With which account do you want to sign in?", "Example Inc.", "127.0.0.1")
		link := auth + htmlLink(t, page.body, "provider=partners")
		arrived := b.get(link)
		if got, want := arrived.body, "application for partners:alice at /x?a=1"; got != want || arrived.Request.URL.String() != origin+"/x?a=1" {
			t.Errorf("%s: got %s at %s, want %s", origin, got, arrived.Request.URL, want)
		}
		if s := b.session(origin); s == nil || s.Issuer != partners.issuer {
			t.Errorf("%s: the session is %+v", origin, s)
		}
	}
}

// htmlLink is the link of a page that has a part.
func htmlLink(t *testing.T, body, part string) string {
	t.Helper()
	for _, piece := range strings.Split(body, `href="`)[1:] {
		link, _, _ := strings.Cut(piece, `"`)
		if strings.Contains(link, part) {
			return strings.ReplaceAll(link, "&amp;", "&")
		}
	}
	t.Fatalf("no link with %s in\n%s", part, body)
	return ""
}

// Whoever chooses a provider that the route does not ask for is asked to choose again, and one that does not exist is none.
func TestChoiceIsBounded(t *testing.T) {
	f, _ := two(t)
	b := f.browser()
	if got := b.step(auth + prefix + "/sign_in?return=%2F&idp=partners&provider=default").next(t); !strings.Contains(got, "/authorize?") || strings.HasPrefix(got, f.issuer) {
		t.Errorf("led to %s", got)
	}
	b.shows("no such provider", b.get(auth+prefix+"/sign_in?return=%2F&idp=elsewhere"), 400, "This sign-in cannot go on")
	b.shows("an unknown choice", b.get(auth+prefix+"/sign_in?return=%2F&provider=elsewhere"), 200, "Sign in")
}

func TestStepUp(t *testing.T) {
	f := newFake(t)
	now := func() int64 { return f.h.Now().Unix() }
	f.demands = map[string]session.Demand{"wiki.example.com": {MaxAge: 5 * time.Minute, ACR: []string{"gold", "platinum"}}}
	f.claims = map[string]any{"auth_time": now() - 600, "acr": "silver", "sid": "s"}
	b := f.browser()
	b.get(grafana + "/")
	before := b.session(grafana)

	asked := b.until(wiki+"/admin", f.issuer+"/authorize")
	u, err := url.Parse(asked)
	if err != nil || u.Query().Get("max_age") != "300" || u.Query().Get("acr_values") != "gold platinum" {
		t.Errorf("the provider is asked by %s, %v", asked, err)
	}
	page := b.get(wiki + "/admin")
	b.shows("a provider that does not do as asked", page, 403, "A stronger sign-in is needed")
	if s := b.session(grafana); s == nil || s.ID != before.ID {
		t.Error("the session was lost to a sign-in that was not good enough")
	}
	f.claims = map[string]any{"auth_time": now() - 2, "acr": "gold", "sid": "s"}
	if got, want := b.get(wiki+"/admin").body, "application for alice at /admin"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if s := b.session(wiki); s.ID == before.ID || s.ACR != "gold" {
		t.Errorf("the session is %+v", s)
	}
	if _, err := f.h.Sessions.Load(t.Context(), before.ID); err == nil {
		t.Error("the session before it goes on: who had its cookie would have what was proved since")
	}
	if got, want := b.get(grafana+"/x").body, "application for alice at /x"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	f.claims = map[string]any{"auth_time": nil, "acr": "gold", "sid": "s"}
	f.offset.Add(int64(6 * time.Minute))
	b.shows("a provider that does not say when", b.get(wiki+"/admin"), 403, "A stronger sign-in is needed")
}

// The page that keeps the fragment passes on what the route asks for.
func TestStepUpKeepsTheFragment(t *testing.T) {
	f := newFake(t)
	header := http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	page := f.call("GET", authHost, prefix+"/sign_in?return=%2Fx&max_age=300&acr=gold&idp=default", header)
	for _, part := range []string{"acr=gold", "max_age=300", "idp=default", "return=%2Fx", "continue=1"} {
		if !strings.Contains(page.body, part) {
			t.Errorf("the page lacks %s:\n%s", part, page.body)
		}
	}
}
