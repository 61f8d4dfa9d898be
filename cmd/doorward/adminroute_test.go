package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"doorward/authz/admin"
	"doorward/authz/token"
	"doorward/xds"
)

// TestAdminRouteBelievesItsOwnTokensOnly: what Envoy says of a request is not enough.
func TestAdminRouteBelievesItsOwnTokensOnly(t *testing.T) {
	p := newPushes(t)
	p.write("doorward.yaml", pushBase+`  - {name: admin, from: "https://admin.localhost:8443", to: "doorward://admin", policy: any_authenticated_user}
`)
	p.open()
	mint := func(host string) string {
		text, _, err := p.ring.Mint(token.Claims{Issuer: host, Audience: host, Subject: "42", Email: "alice@example.com", NotAfter: time.Now().Add(time.Hour)})
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	api := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "api for ", admin.Caller(r.Context())) })
	next := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "sign-in") })
	const (
		refused = `403 {"error":"the admin API does not know who asks"}`
		served  = "200 api for alice@example.com"
		cross   = `403 {"error":"a page of another origin may not change anything here"}`
		noType  = `415 {"error":"a request that may change something has the Content-Type application/json or application/yaml, also without a body"}`
	)
	good := mint("admin.localhost")
	for _, row := range []struct {
		name, method, host, route string
		tokens                    []string
		header                    string // name: value
		want                      string
	}{
		{"no route", "GET", "admin.localhost", "", []string{good}, "", "200 sign-in"},
		{"a good token", "GET", "admin.localhost", "admin", []string{good}, "", served},
		{"a host in capitals, with a port", "GET", "ADMIN.localhost:8443", "admin", []string{good}, "", served},
		{"no token", "GET", "admin.localhost", "admin", nil, "", refused},
		{"two tokens", "GET", "admin.localhost", "admin", []string{good, good}, "", refused},
		{"the token of another host", "GET", "admin.localhost", "admin", []string{mint("fixed.localhost")}, "", refused},
		{"another host", "GET", "fixed.localhost", "admin", []string{mint("fixed.localhost")}, "", refused},
		{"a route to something else", "GET", "fixed.localhost", "fixed", []string{mint("fixed.localhost")}, "", refused},
		{"a route that there is not", "GET", "admin.localhost", "none", []string{good}, "", refused},
		{"a change by a program", "POST", "admin.localhost", "admin", []string{good}, "Content-Type: application/json", served},
		{"a change without a type", "DELETE", "admin.localhost", "admin", []string{good}, "", noType},
		{"a change by a form", "POST", "admin.localhost", "admin", []string{good}, "Content-Type: text/plain", noType},
		{"a change by the own page", "POST", "admin.localhost", "admin", []string{good}, "Sec-Fetch-Site: same-origin", served},
		{"a change by the own page of a browser that says only the origin", "POST", "admin.localhost", "admin", []string{good}, "Origin: https://admin.localhost:8443", served},
		{"a change by a page beside it", "POST", "admin.localhost", "admin", []string{good}, "Sec-Fetch-Site: same-site", cross},
		{"a change by another page", "POST", "admin.localhost", "admin", []string{good}, "Origin: https://evil.example", cross},
	} {
		r := httptest.NewRequest(row.method, "/v1/routes", nil)
		r.Host = row.host
		if row.route != "" {
			r.Header.Set(xds.HeaderAdmin, row.route)
		}
		r.Header[p.loaded.JWT.Header] = row.tokens
		if name, value, ok := strings.Cut(row.header, ": "); ok {
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set(name, value)
		}
		w := httptest.NewRecorder()
		p.adminOr(api, next).ServeHTTP(w, r)
		if got := fmt.Sprintf("%d %s", w.Code, strings.TrimSpace(w.Body.String())); got != row.want {
			t.Errorf("%s: %s, want %s", row.name, got, row.want)
		}
	}
}

// TestAdminBehindItsOwnRoute changes routes through Envoy, as who the policy lets, and as nobody else.
func TestAdminBehindItsOwnRoute(t *testing.T) {
	s := prepareStack(t, twoHosts)
	s.write("policies/admins.rego", "package admins\n\nallow if \"grafana-admins\" in input.user.groups\n\nallow if {\n\tinput.user.id == \"service:ci\"\n\tinput.request.method == \"GET\"\n}\n")
	s.writeConfig(twoHosts + `
  - {name: admin, from: "https://admin.localhost:{{.Port}}", to: "doorward://admin", policy: admins, bearer: {service_tokens: true}}
`)
	s.start()
	alice, bob := s.browser(), s.browser()
	page := alice.signIn(s.url("admin", "/v1/routes"), "alice")
	if page.StatusCode != 200 || !strings.Contains(page.text, `"name":"admin"`) || !strings.Contains(page.text, `"to":"doorward://admin"`) {
		t.Fatalf("alice gets %d %s", page.StatusCode, page.text)
	}
	if page := bob.signIn(s.url("admin", "/v1/routes"), "bob"); page.StatusCode != 403 {
		t.Errorf("bob gets %d %s", page.StatusCode, page.text)
	}
	route := fmt.Sprintf(`{"name": "notes", "from": "https://notes.localhost:%d", "to": "%s", "policy": "public"}`, s.port, s.wiki.URL)
	put := func(b *browser, headers ...string) answer {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, s.url("admin", "/v1/routes/notes?wait=10s"), strings.NewReader(route))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		return b.do(req)
	}
	for _, row := range []struct {
		name    string
		by      *browser
		headers []string
		status  int
	}{
		{"bob", bob, nil, 403},
		{"nobody", s.browser(), nil, 401},
		{"nobody who says that it came by the route", s.browser(), []string{xds.HeaderAdmin, "admin"}, 401},
		{"alice, told by another site", alice, []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"alice, told by a form", alice, []string{"Content-Type", "text/plain"}, 415},
	} {
		if got := put(row.by, row.headers...); got.StatusCode != row.status {
			t.Errorf("%s gets %d %s, want %d", row.name, got.StatusCode, got.text, row.status)
		}
	}
	if got := s.status("notes", "/"); got != 0 {
		t.Fatalf("somebody has pushed it: %d", got)
	}
	if got := put(alice, "Sec-Fetch-Site", "same-origin"); got.StatusCode != 200 || !strings.Contains(got.text, `"state":"acknowledged"`) {
		t.Fatalf("alice gets %d %s", got.StatusCode, got.text)
	}
	if got := s.status("notes", "/"); got != 200 {
		t.Errorf("pushed and acknowledged, and answered with %d", got)
	}
	if !regexp.MustCompile(`"msg":"routes changed by the operator","by":"alice@example.com","changes":"create notes"`).MatchString(s.log.String()) {
		t.Errorf("the log does not say who has changed it:\n%s", s.log)
	}
	s.strangersTokens(alice)
}

// strangersTokens: no token of anything else opens the API, and a program's own does what the policy lets it.
func (s *stack) strangersTokens(alice *browser) {
	s.t.Helper()
	alice.get(s.url("grafana", "/"))
	var assertion string
	for _, r := range s.grafana.requests() {
		assertion = r.Header.Get("X-Pomerium-Jwt-Assertion")
	}
	if assertion == "" {
		s.t.Fatal("grafana got no token")
	}
	for _, path := range []string{"/v1/routes", "/.pomerium/", "/.pomerium/v1/routes"} {
		got := s.browser().get(s.url("admin", path), "X-Pomerium-Jwt-Assertion", assertion, xds.HeaderAdmin, "admin", "Sec-Fetch-Mode", "cors")
		if strings.Contains(got.text, `"routes"`) {
			s.t.Errorf("%s with another host's token: %d %s", path, got.StatusCode, got.text)
		}
	}
	s.write("token", s.doorward("token", "create", "robot", "--routes", "admin", "--expires", "1h"))
	remote := " --server " + s.url("admin", "") + " --server-ca data/ca/ca.pem --token-file token"
	s.types("envoy list"+remote).ends(1, "^doorward: .*denied|^doorward: .*polic") // it is nobody that the policy knows
	s.write("token", "dw_other\n")
	s.types("envoy list"+remote).ends(1, "^doorward: https://admin.localhost:[0-9]+ does not take the token: it is wrong or over, or is not for the route to doorward://admin\n$")
	s.types("envoy list"+strings.Replace(remote, " --server-ca data/ca/ca.pem", "", 1)).ends(1, "certificate signed by unknown authority; --server-ca names another\n$")
	program := strings.TrimSpace(s.doorward("token", "create", "ci", "--routes", "admin", "--expires", "1h"))
	s.write("token", program+"\n")
	s.types("envoy list"+remote).ends(0, "^edge ")
	if got := s.browser().get(s.url("admin", "/v1/envoys"), "Authorization", "Bearer "+program); got.StatusCode != 200 || !strings.Contains(got.text, `"node":"edge"`) {
		s.t.Errorf("a program: %d %s", got.StatusCode, got.text)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodDelete, s.url("admin", "/v1/routes/notes"), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+program)
	if got := s.browser().do(req); got.StatusCode != 403 {
		s.t.Errorf("a program that may read changes: %d %s", got.StatusCode, got.text)
	}
}
