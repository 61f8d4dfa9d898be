package authz

import (
	"maps"
	"strings"
	"testing"

	"doorward/authz/config"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// corsHeaders are those of an answer, as NAME=VALUE in lines.
func corsHeaders(options []*corev3.HeaderValueOption) map[string]string {
	found := map[string]string{}
	for _, h := range options {
		if name := h.GetHeader().GetKey(); name == "vary" || strings.HasPrefix(name, "access-control-") {
			found[name] = h.GetHeader().GetValue()
		}
	}
	return found
}

// shared is a route whose answers pages of app.example.com may read.
func shared(t *testing.T, change func(*config.Route)) *door {
	r := routeTo(t, "grafana", "grafana")
	r.CORS = &config.CORS{
		AllowOrigins: config.Names{"https://App.example.com:443", "https://other.example.com:8443"}, AllowMethods: config.Names{"GET", "PUT"},
		AllowHeaders: config.Names{"authorization", "x-a"}, ExposeHeaders: config.Names{"etag"}, AllowCredentials: true, MaxAge: config.Duration(60e9),
	}
	if change != nil {
		change(&r)
	}
	return newDoor(t, map[string]string{"grafana.rego": rego, "own.rego": ownCORS}, r)
}

// ownCORS is a policy that would have every page read the answer.
const ownCORS = `package own

allow if "staff" in input.user.groups

response_headers := {"access-control-allow-origin": "*", "vary": "accept", "x-kept": "1"}
`

func TestCORS(t *testing.T) {
	const origin, asked = "origin", "access-control-request-method"
	const app = "https://app.example.com"
	answer := map[string]string{
		"access-control-allow-origin": app, "access-control-allow-credentials": "true", "access-control-allow-methods": "GET, PUT", "access-control-allow-headers": "authorization, x-a",
		"access-control-max-age": "60", "vary": "Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
	}
	readable := map[string]string{"access-control-allow-origin": app, "access-control-allow-credentials": "true", "access-control-expose-headers": "etag", "vary": "Origin"}
	unreadable := map[string]string{"vary": "Origin"}
	everyone := func(r *config.Route) {
		r.CORS = &config.CORS{AllowOrigins: config.Names{"*"}, AllowMethods: config.Names{"GET"}, MaxAge: 0}
	}
	for _, row := range []struct {
		name    string
		change  func(*config.Route)
		method  string
		headers []string
		status  int
		want    map[string]string
	}{
		{"a preflight", nil, "OPTIONS", []string{origin, app, asked, "PUT"}, 204, answer},
		{"a preflight where strangers get 403", func(r *config.Route) { r.Unauthenticated = config.Forbidden }, "OPTIONS", []string{origin, app, asked, "PUT"}, 204, answer},
		{"a preflight with a session, which is not looked at", nil, "OPTIONS", []string{origin, app, asked, "PUT", cookie, signedIn("broken")}, 204, answer},
		{"a preflight from another port of an origin", nil, "OPTIONS", []string{origin, "https://app.example.com:8443", asked, "PUT"}, 401, unreadable},
		{"a preflight over http", nil, "OPTIONS", []string{origin, "http://app.example.com", asked, "PUT"}, 401, unreadable},
		{"a preflight from below an origin", nil, "OPTIONS", []string{origin, "https://evil.app.example.com", asked, "PUT"}, 401, unreadable},
		{"a preflight from an origin that begins so", nil, "OPTIONS", []string{origin, app + ".evil.com", asked, "PUT"}, 401, unreadable},
		{"a preflight of null", nil, "OPTIONS", []string{origin, "null", asked, "PUT"}, 401, unreadable},
		{"a preflight without origin", nil, "OPTIONS", []string{asked, "PUT"}, 401, unreadable},
		{"a preflight with two origins", nil, "OPTIONS", []string{origin, app, origin, app, asked, "PUT"}, 401, unreadable},
		{"OPTIONS that asks about no method", nil, "OPTIONS", []string{origin, app}, 401, readable},
		{"OPTIONS that asks about an empty method", nil, "OPTIONS", []string{origin, app, asked, ""}, 401, readable},
		{"GET that asks about a method", nil, "GET", []string{origin, app, asked, "PUT"}, 401, readable},
		{"a preflight on a route without cors", func(r *config.Route) { r.CORS = nil }, "OPTIONS", []string{origin, app, asked, "PUT"}, 401, map[string]string{}},
		{"a fetch without a session", nil, "GET", []string{origin, app, "sec-fetch-mode", "cors"}, 401, readable},
		{"a fetch from elsewhere", nil, "GET", []string{origin, "https://evil.example.com", "sec-fetch-mode", "cors"}, 401, unreadable},
		{"a fetch that the policy denies", nil, "GET", []string{origin, app, cookie, signedIn("bob")}, 403, readable},
		{"a fetch that is allowed", nil, "GET", []string{origin, app, cookie, signedIn("alice")}, 200, readable},
		{"a fetch from elsewhere that is allowed", nil, "GET", []string{origin, "https://evil.example.com", cookie, signedIn("alice")}, 200, unreadable},
		{"no origin, which caches keep apart", nil, "GET", []string{cookie, signedIn("alice")}, 200, unreadable},
		{"a fetch while the store is down", nil, "GET", []string{origin, app, cookie, signedIn("broken")}, 503, readable},
		{"a policy that says otherwise", func(r *config.Route) { r.Policy = "own" }, "GET", []string{origin, "https://evil.example.com", cookie, signedIn("alice")}, 200, map[string]string{"vary": "accept, Origin"}},
		{"a policy that says otherwise, of somebody it denies", func(r *config.Route) { r.Policy = "own" }, "GET", []string{origin, "https://evil.example.com", cookie, signedIn("bob")}, 403,
			map[string]string{"vary": "accept, Origin"}},
		{"every origin", everyone, "GET", []string{origin, "https://anybody.example.com"}, 401, map[string]string{"access-control-allow-origin": "*", "vary": "Origin"}},
		{"every origin but null", everyone, "GET", []string{origin, "null"}, 401, unreadable},
		{"every origin with credentials, which no configuration has", func(r *config.Route) { everyone(r); r.CORS.AllowCredentials = true }, "GET", []string{origin, "https://anybody.example.com"}, 401, unreadable},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := shared(t, row.change)
			a := d.ask(row.headers...)
			a.method = row.method
			response := d.check(a)
			options := response.GetDeniedResponse().GetHeaders()
			if row.status == 200 {
				options = response.GetOkResponse().GetResponseHeadersToAdd()
			}
			if got := status(response); got != row.status {
				t.Errorf("status %d, want %d", got, row.status)
			}
			if got := corsHeaders(options); !maps.Equal(got, row.want) {
				t.Errorf("got %v\nwant %v", got, row.want)
			}
			if row.status == 204 && (len(response.GetDeniedResponse().GetBody()) > 0 || !strings.Contains(d.log.String(), `"outcome":"allow","status":204`)) {
				t.Errorf("the body is %q, the log %s", response.GetDeniedResponse().GetBody(), d.log)
			}
		})
	}
}

// TestPreflightIsHeldToItsHost: what is answered without a session is no way around what else is asked of a request.
func TestPreflightIsHeldToItsHost(t *testing.T) {
	d := shared(t, nil)
	for _, row := range []struct {
		change func(*ask)
		want   int
	}{
		{func(a *ask) { a.host = "wiki.example.com" }, 421},
		{func(a *ask) { a.sni = "wiki.example.com" }, 421},
		{func(a *ask) { a.revision = "0123456789abcdef" }, 503},
	} {
		a := d.ask("origin", "https://app.example.com", "access-control-request-method", "PUT")
		a.method = "OPTIONS"
		row.change(&a)
		if got := status(d.check(a)); got != row.want {
			t.Errorf("status %d, want %d", got, row.want)
		}
	}
}

// TestUnsafeMethodsAreNeverRedirected: a form that followed the redirect would be sent again as a GET, or to the provider.
func TestUnsafeMethodsAreNeverRedirected(t *testing.T) {
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow := false\n\nredirect := \"/welcome\"\n"},
		routeTo(t, "grafana", "any_authenticated_user"), routeTo(t, "welcome", "p"))
	html := []string{"accept", "text/html,application/xhtml+xml,*/*;q=0.8"}
	for method, want := range map[string]int{
		"GET": 302, "HEAD": 302, "POST": 401, "PUT": 401, "PATCH": 401, "DELETE": 401, "OPTIONS": 401, "TRACE": 401, "PROPFIND": 401, "get": 401,
	} {
		for name, headers := range map[string][]string{"fetch metadata": navigation, "Accept alone": html} {
			a := d.ask(headers...)
			a.method = method
			if got := status(d.check(a)); got != want {
				t.Errorf("%s with %s: status %d, want %d", method, name, got, want)
			}
			a = d.ask(append([]string{cookie, signedIn("alice")}, headers...)...)
			a.method, a.route, a.revision = method, "welcome", d.g.Revision("welcome")
			if got := status(d.check(a)); (got == 302) != (want == 302) {
				t.Errorf("%s with %s, where the policy redirects: status %d", method, name, got)
			}
		}
	}
}
