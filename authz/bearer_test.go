package authz

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/bearer"
	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/store/bolt"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// programs are sessions by their token.
type programs map[string]*session.Session

func (p programs) Find(_ context.Context, token string, a *bearer.Allowed) (*session.Session, error) {
	if token == "broken" {
		return nil, errors.New("the store cannot be asked")
	}
	if s := p[token]; s != nil && a.ServiceTokens {
		return s, nil
	}
	return nil, bearer.ErrInvalid
}

// takesTokens is a route that does, and its door. Of the programs, robot is staff and drone is not.
func takesTokens(t *testing.T, change func(*config.Route)) *door {
	r := routeTo(t, "grafana", "grafana")
	r.Bearer = &config.Bearer{ServiceTokens: true}
	if change != nil {
		change(&r)
	}
	d := newDoor(t, map[string]string{"grafana.rego": rego, "open.rego": "package open\n\nallow := true\n", "header.rego": headerPolicy}, r)
	over := someone("over", "staff")
	over.Expires = time.Now().Add(lastMoment / 2)
	robot := someone("service:robot", "staff")
	robot.Provider = bearer.Provider
	d.Bearer = programs{"robot": robot, "jwt": someone("ci:robot", "staff"), "drone": someone("service:drone"), "over": over}
	return d
}

// headerPolicy shows what a policy sees of Authorization.
const headerPolicy = `package header

allow := true

headers := {"x-seen": object.get(input.request.headers, "authorization", "nothing")}
`

const authorization = "authorization"

func TestBearer(t *testing.T) {
	const invalid = `Bearer realm="grafana.example.com", error="invalid_token"`
	for _, row := range []struct {
		name      string
		change    func(*config.Route)
		headers   []string
		want      int
		challenge string
	}{
		{"a good token", nil, []string{authorization, "Bearer robot"}, 200, ""},
		{"the scheme in other letters, and two spaces", nil, []string{authorization, "bEARER  robot"}, 200, ""},
		{"a token that the policy does not allow", nil, []string{authorization, "Bearer drone"}, 403, ""},
		{"an unknown token", nil, []string{authorization, "Bearer mallory"}, 401, invalid},
		{"an unknown token of a navigation", nil, append([]string{authorization, "Bearer mallory"}, navigation...), 401, invalid},
		{"an unknown token beside a good cookie", nil, []string{authorization, "Bearer mallory", cookie, signedIn("alice")}, 401, invalid},
		{"an unknown token where strangers are let in", func(r *config.Route) { r.Policy, r.AllowAnonymous = "open", true }, []string{authorization, "Bearer mallory"}, 401, invalid},
		{"an unknown token where strangers get 403", func(r *config.Route) { r.Unauthenticated = config.Forbidden }, []string{authorization, "Bearer mallory"}, 401, invalid},
		{"no token where strangers are let in", func(r *config.Route) { r.Policy, r.AllowAnonymous = "open", true }, nil, 200, ""},
		{"a good token beside a cookie of somebody who may not", nil, []string{authorization, "Bearer robot", cookie, signedIn("bob")}, 200, ""},
		{"a token that may not beside a cookie that may", nil, []string{authorization, "Bearer drone", cookie, signedIn("alice")}, 403, ""},
		{"a token that ends now", nil, []string{authorization, "Bearer over"}, 401, invalid},
		{"no token in the header", nil, []string{authorization, "Bearer"}, 401, invalid},
		{"a tab before the token, which is no separator", nil, []string{authorization, "Bearer\trobot", cookie, signedIn("alice")}, 401, invalid},
		{"two headers", nil, []string{authorization, "Bearer robot", authorization, "Bearer robot"}, 401, invalid},
		{"a bearer token and another scheme", nil, []string{authorization, "Bearer robot", authorization, "Basic eDp5"}, 401, invalid},
		{"two tokens in one header", nil, []string{authorization, "Bearer robot, Bearer drone"}, 401, invalid},
		{"letters that no token has", nil, []string{authorization, "Bearer röbot"}, 401, invalid},
		{"bytes that are no text", nil, []string{authorization, "Bearer \xff"}, 401, invalid},
		{"another scheme, and nobody", nil, []string{authorization, "Basic eDp5"}, 401, `Bearer realm="grafana.example.com"`},
		{"another scheme beside a cookie", nil, []string{authorization, "Basic eDp5", cookie, signedIn("alice")}, 200, ""},
		{"the store is down", nil, []string{authorization, "Bearer broken"}, 503, ""},
		{"a route that takes none", func(r *config.Route) { r.Bearer = nil }, []string{authorization, "Bearer robot"}, 401, `Bearer realm="grafana.example.com"`},
		{"a route that takes none, beside a cookie", func(r *config.Route) { r.Bearer = nil }, []string{authorization, "Bearer mallory", cookie, signedIn("alice")}, 200, ""},
		{"a route that asks for a fresh sign-in", func(r *config.Route) { r.MaxAge = config.Duration(time.Hour) }, []string{authorization, "Bearer robot"}, 401,
			`Bearer realm="grafana.example.com", error="insufficient_user_authentication", max_age="3600"`},
		{"that, where strangers are let in", func(r *config.Route) {
			r.Policy, r.AllowAnonymous, r.MaxAge = "open", true, config.Duration(time.Hour)
		}, append([]string{authorization, "Bearer robot"}, navigation...), 401,
			`Bearer realm="grafana.example.com", error="insufficient_user_authentication", max_age="3600"`},
		{"a route for one provider's users", func(r *config.Route) { r.IDP = config.Names{"partners"} }, []string{authorization, "Bearer robot"}, 200, ""},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := takesTokens(t, row.change)
			response := d.check(d.ask(row.headers...))
			if got := status(response); got != row.want {
				t.Errorf("status %d, want %d", got, row.want)
			}
			if got := headerOf(response.GetDeniedResponse().GetHeaders(), "www-authenticate"); got != row.challenge {
				t.Errorf("challenge %q, want %q", got, row.challenge)
			}
			if strings.Contains(d.log.String(), "Bearer ") || strings.Contains(d.log.String(), "mallory") {
				t.Errorf("the token is in the log: %s", d.log)
			}
		})
	}
}

func TestBearerWithoutAFinderDenies(t *testing.T) {
	d := takesTokens(t, nil)
	d.Bearer = nil
	if got := status(d.check(d.ask(authorization, "Bearer robot"))); got != 503 {
		t.Errorf("status %d, want 503", got)
	}
}

// TestBearerDoesNotReachTheUpstream: nor a policy; an Authorization that is none of Doorward's business reaches both.
func TestBearerDoesNotReachTheUpstream(t *testing.T) {
	removed := func(ok *authv3.OkHttpResponse) bool { return slices.Contains(ok.GetHeadersToRemove(), authorization) }
	asHeader := map[string]config.IdentityHeader{"Authorization": {Values: []config.Template{"Bearer ${jwt}"}}}
	forwards := func(r *config.Route) { r.Bearer.ForwardToken = true }
	for _, row := range []struct {
		name    string
		change  func(*config.Route)
		value   string
		removed bool
		set     string // the beginning of what is put in its place
		seen    string
	}{
		{"a bearer token", nil, "Bearer robot", true, "", "nothing"},
		{"another scheme", nil, "Basic eDp5", false, "", "Basic eDp5"},
		{"a route that takes none", func(r *config.Route) { r.Bearer = nil }, "Bearer robot", false, "", "Bearer robot"},
		{"a token of Doorward's on a route that forwards those of issuers", forwards, "Bearer robot", true, "", "nothing"},
		{"an issuer's token on a route that forwards them", forwards, "Bearer jwt", false, "", "nothing"},
		{"the identity JWT in its place", func(r *config.Route) { r.IdentityHeaders = asHeader }, "Bearer robot", false, "Bearer jwt iss=", "nothing"},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := takesTokens(t, func(r *config.Route) {
				r.Policy = "header"
				if row.change != nil {
					row.change(r)
				}
			})
			ask := d.ask(authorization, row.value)
			if !strings.HasPrefix(row.value, "Bearer") || row.seen != "nothing" {
				ask = d.ask(authorization, row.value, cookie, signedIn("alice"))
			}
			ok := d.check(ask).GetOkResponse()
			if removed(ok) != row.removed {
				t.Errorf("taken away: %v, want %v", !row.removed, row.removed)
			}
			if got := headerOf(ok.GetHeaders(), authorization); !strings.HasPrefix(got, row.set) || row.set == "" && got != "" {
				t.Errorf("in its place is %q", got)
			}
			if got := headerOf(ok.GetHeaders(), "x-seen"); got != row.seen {
				t.Errorf("the policy saw %q, want %q", got, row.seen)
			}
		})
	}
}

func TestBearerIsTheUser(t *testing.T) {
	d := takesTokens(t, nil)
	ok := d.check(d.ask(authorization, "Bearer robot", cookie, "a=1; "+signedIn("bob"))).GetOkResponse()
	if got := headerOf(ok.GetHeaders(), "x-pomerium-jwt-assertion"); !strings.Contains(got, "sub=service:robot ") {
		t.Errorf("the assertion is %q", got)
	}
	if got := headerOf(ok.GetHeaders(), cookie); got != "a=1" {
		t.Errorf("the upstream's cookies are %q", got)
	}
	if log := d.log.String(); !strings.Contains(log, `"subject":"service:robot"`) || !strings.Contains(log, session.HashID("service:robot")) {
		t.Errorf("the record does not say who: %s", log)
	}
}

// TestEnvoySendsAuthorizationWhereRoutesTakeTokens, and a route that takes them does not decide without it.
func TestEnvoySendsAuthorizationWhereRoutesTakeTokens(t *testing.T) {
	if d := takesTokens(t, func(r *config.Route) { r.Bearer = nil }); slices.Contains(d.g.Headers(), authorization) {
		t.Error("it is sent although no route takes tokens")
	}
	d := takesTokens(t, nil)
	if !slices.Contains(d.g.Headers(), authorization) {
		t.Error("it is not sent")
	}
	d.g.Sending("", ownHeaders)
	d.Adopt(d.g)
	if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 503 {
		t.Errorf("status %d when Envoy did not send it, want 503", got)
	}
}

// FuzzBearerHeader holds that nothing that stands in Authorization lets anybody in but the token itself, and that no answer to it is a redirect.
func FuzzBearerHeader(f *testing.F) {
	for _, seed := range []string{"Bearer robot", "bearer robot ", "Bearer", "Bearer robot,Bearer drone", "Basic eDp5", "Bearer\trobot", "", "Bearer \xff"} {
		f.Add(seed, "")
	}
	f.Add("Basic eDp5", "Bearer robot")
	f.Fuzz(func(t *testing.T, first, second string) {
		d := fuzzDoor(t)
		headers := append([]string{authorization, first}, navigation...)
		if second != "" {
			headers = append(headers, authorization, second)
		}
		got := status(d.check(d.ask(headers...)))
		scheme, token, _ := strings.Cut(first, " ")
		isBearer := strings.EqualFold(scheme, "bearer")
		switch {
		case got == 200 && (!isBearer || strings.Trim(token, " ") != "robot" || second != ""):
			t.Errorf("%q and %q were let in", first, second)
		case got == 302 && isBearer:
			t.Errorf("%q and %q were redirected", first, second)
		}
	})
}

// fuzzDoor is made once, since compiling a policy takes longer than all else.
func fuzzDoor(t *testing.T) *door {
	fuzzOnce.Do(func() { fuzzed = takesTokens(t, nil) })
	d := *fuzzed
	d.t, d.ctx = t, t.Context()
	d.log.Reset()
	return &d
}

var (
	fuzzOnce sync.Once
	fuzzed   *door
)

// TestProgramsDoNotGetEachOthers: tokens that differ in nothing but their name, with what is kept of decisions and of JWTs, and real tokens behind them.
func TestProgramsDoNotGetEachOthers(t *testing.T) {
	dir := t.TempDir()
	db, err := bolt.Open(filepath.Join(dir, "db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	sealer, err := session.OpenSealer(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	service, err := bearer.NewServiceTokens(bearer.Config{Store: db, Sealer: sealer, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	r := routeTo(t, "grafana", "p")
	r.Bearer = &config.Bearer{ServiceTokens: true}
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow if count(input.user.groups) == 1\n\nheaders := {\"x-who\": input.user.id}\n"}, r)
	d.Bearer = &bearer.Finder{Service: service}
	create := func(name string) string {
		token, err := service.Create(t.Context(), bearer.Request{Name: name, Routes: []string{"grafana"}, Groups: []string{"g"}, Life: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		return token
	}
	tokens := map[string]string{}
	for n := range 20 {
		name := fmt.Sprint("p", n)
		tokens[name] = create(name)
	}
	holds := func() {
		for name, token := range tokens {
			ok := d.check(d.ask(authorization, "Bearer "+token, cookie, signedIn("alice"))).GetOkResponse().GetHeaders()
			if who, jwt := headerOf(ok, "x-who"), headerOf(ok, "x-pomerium-jwt-assertion"); who != "service:"+name || !strings.Contains(jwt, " sub=service:"+name+" ") {
				t.Errorf("%s is %q, %q", name, who, jwt)
			}
		}
	}
	for range 3 {
		holds()
	}
	if d.minter.minted != len(tokens) {
		t.Errorf("%d JWTs were signed for %d programs", d.minter.minted, len(tokens))
	}
	before := tokens["p0"]
	if err := service.Revoke(t.Context(), "p0"); err != nil {
		t.Fatal(err)
	}
	tokens["p0"] = create("p0")
	holds()
	if got := status(d.check(d.ask(authorization, "Bearer "+before))); got != 401 {
		t.Errorf("the token that was revoked: status %d, want 401", got)
	}
}
