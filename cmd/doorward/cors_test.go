package main

import (
	"net/http"
	"strings"
	"testing"
)

// TestCORS has a page of another origin ask a real Envoy, as a browser would.
func TestCORS(t *testing.T) {
	const app, evil = "https://app.example.com", "https://evil.example.com"
	s := newStack(t, `
  - name: api
    from: https://grafana.localhost:{{.Port}}
    to: {{.Grafana}}
    policy: any_authenticated_user
    bearer: {service_tokens: true}
    cors: {allow_origins: [https://app.example.com], allow_methods: [GET, PUT], allow_headers: [authorization], allow_credentials: true, max_age: 1m}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: public}
`)
	// An upstream that would let every page read.
	for _, u := range []*application{s.grafana, s.wiki} {
		u.app = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "*")
			w.Header().Set("Access-Control-Expose-Headers", "x-secret")
			w.Header().Set("Vary", "Accept-Encoding")
		})
	}
	token := strings.TrimSpace(s.doorward("token", "create", "page", "--routes", "api"))
	ask := func(method, host, origin, token string, headers ...string) answer {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.url(host, "/x"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Origin", origin)
		req.Header.Set("Sec-Fetch-Mode", "cors")
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		for i := 0; i < len(headers); i += 2 {
			req.Header.Set(headers[i], headers[i+1])
		}
		return s.browser().do(req)
	}
	const asked = "Access-Control-Request-Method"
	for _, row := range []struct {
		name, method, origin, token string
		headers                     []string
		status                      int
		origins                     string // Access-Control-Allow-Origin, all lines
		reaches                     int
	}{
		{"a preflight", "OPTIONS", app, "", []string{asked, "PUT"}, 204, app, 0},
		{"a preflight from elsewhere", "OPTIONS", evil, "", []string{asked, "PUT"}, 401, "", 0},
		{"OPTIONS that is none", "OPTIONS", app, "", nil, 401, app, 0},
		{"a fetch of nobody", "GET", app, "", nil, 401, app, 0},
		{"a fetch of nobody from elsewhere", "GET", evil, "", nil, 401, "", 0},
		{"a wrong token", "GET", app, "dw_x", nil, 401, app, 0},
		{"a fetch", "GET", app, token, nil, 200, app, 1},
		{"a fetch from elsewhere", "GET", evil, token, nil, 200, "", 1},
		{"a fetch of null", "GET", "null", token, nil, 200, "", 1},
	} {
		before := len(s.grafana.requests())
		got := ask(row.method, "grafana", row.origin, row.token, row.headers...)
		origins := strings.Join(got.Header.Values("Access-Control-Allow-Origin"), " and ")
		if got.StatusCode != row.status || origins != row.origins {
			t.Errorf("%s: %d, for %q, want %d for %q", row.name, got.StatusCode, origins, row.status, row.origins)
		}
		if credentials := got.Header.Get("Access-Control-Allow-Credentials"); (credentials == "true") != (row.origins != "") {
			t.Errorf("%s: credentials %q", row.name, credentials)
		}
		if got.Header.Get("Access-Control-Expose-Headers") != "" {
			t.Errorf("%s: the upstream exposes its headers", row.name)
		}
		vary := strings.Join(got.Header.Values("Vary"), ", ")
		if !strings.Contains(vary, "Origin") || row.reaches > 0 && !strings.Contains(vary, "Accept-Encoding") {
			t.Errorf("%s: Vary is %q", row.name, vary)
		}
		if n := len(s.grafana.requests()) - before; n != row.reaches {
			t.Errorf("%s: the upstream got %d requests, want %d", row.name, n, row.reaches)
		}
	}
	if got := ask("GET", "wiki", evil, ""); got.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("on a route without cors the upstream's headers are %v", got.Header)
	}
	s.grafana.Close()
	if got := ask("GET", "grafana", app, token); got.StatusCode != 503 || got.Header.Get("Access-Control-Allow-Origin") != app {
		t.Errorf("with the upstream down: %d %v", got.StatusCode, got.Header)
	}
}
