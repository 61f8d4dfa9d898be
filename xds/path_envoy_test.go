package xds

import (
	"fmt"
	"testing"
)

// TestEnvoyMatches sends paths as they stand through a real Envoy, and looks at the route that ext_authz was asked for and
// at the path that the upstream got.
func TestEnvoyMatches(t *testing.T) {
	f := newFront(t, "")
	up := f.upstream("u")
	f.serve(fmt.Sprintf(`
  - {name: rest, from: "https://a.localhost:PORT", to: "http://%[1]s", policy: any_authenticated_user}
  - {name: pub, from: "https://a.localhost:PORT", prefix: /pub, to: "http://%[1]s", policy: public}
  - {name: secret, from: "https://a.localhost:PORT", prefix: /pub/secret, to: "http://%[1]s", policy: any_authenticated_user}
  - {name: css, from: "https://a.localhost:PORT", regex: '/.*\.css', to: "http://%[1]s", policy: public}
  - {name: version, from: "https://a.localhost:PORT", regex: '/v[0-9]+/.*', to: "http://%[1]s", policy: public}
  - {name: exact, from: "https://a.localhost:PORT", path: /exact, to: "http://%[1]s", policy: public}
  - {name: exact-css, from: "https://a.localhost:PORT", path: /pub/a.css, to: "http://%[1]s", policy: public}
`, up))
	rows := []struct {
		sent, route, got string // no route: answered by Envoy with the status in got
	}{
		{"/", "rest", "/"},
		{"/x", "rest", "/x"},
		// Whole segments, the longest first.
		{"/pub", "pub", "/pub"},
		{"/pub/", "pub", "/pub/"},
		{"/pub/x", "pub", "/pub/x"},
		{"/public-secret", "rest", "/public-secret"},
		{"/pub.", "rest", "/pub."},
		{"/pub/secret", "secret", "/pub/secret"},
		{"/pub/secret/x", "secret", "/pub/secret/x"},
		{"/pub/secrets", "pub", "/pub/secrets"},
		{"/PUB", "rest", "/PUB"},
		// Exact before regular expressions, those in the order of the file, before prefixes.
		{"/exact", "exact", "/exact"},
		{"/exact/", "rest", "/exact/"},
		{"/pub/a.css", "exact-css", "/pub/a.css"},
		{"/pub/b.css", "css", "/pub/b.css"},
		{"/v1/b.css", "css", "/v1/b.css"},
		{"/v1/b", "version", "/v1/b"},
		{"/xv1/b", "rest", "/xv1/b"},
		{"/pub/secret/b.css", "css", "/pub/secret/b.css"},
		// The query takes no part.
		{"/pub?/secret", "pub", "/pub?/secret"},
		{"/x?.css", "rest", "/x?.css"},
		{"/x?y=/.css;z/../pub", "rest", "/x?y=/.css;z/../pub"},
		// Normal form, before anything is matched, and the same for the upstream.
		{"/pub/../x", "rest", "/x"},
		{"/x/../pub", "pub", "/pub"},
		{"/pub/./secret", "secret", "/pub/secret"},
		{"/pub//secret", "secret", "/pub/secret"},
		{"//pub", "pub", "/pub"},
		{"/pub/%2e%2e/x", "rest", "/x"},
		{"/pub/.%2E/x", "rest", "/x"},
		{"/%70ub", "pub", "/pub"},
		{"/pub/..;/x", "rest", "/x"},
		{"/pub/x/..;y", "pub", "/pub/"},
		{"/pub/secret/..;y", "pub", "/pub/"},
		{"/pub/secret/.;y", "secret", "/pub/secret/"},
		{`/pub\secret`, "secret", "/pub/secret"},
		{`/pub\..\x`, "rest", "/x"},
		{"/pub/..", "rest", "/"},
		// Escaped slashes are not taken apart.
		{"/pub%2fsecret", "", "400"},
		{"/pub/..%2Fx", "", "400"},
		{"/pub%5csecret", "", "400"},
		// Twice escaped is data.
		{"/pub/%252e%252e/x", "pub", "/pub/%252e%252e/x"},
		{"/pub/%252fsecret", "pub", "/pub/%252fsecret"},
		// Path parameters are ignored at the end of a segment that is the last, and refused where two readers would differ.
		{"/pub;x", "pub", "/pub;x"},
		{"/pub/secret;x", "secret", "/pub/secret;x"},
		{"/pub/secret;x?y=z/", "secret", "/pub/secret;x?y=z/"},
		{"/exact;jsessionid=1", "exact", "/exact;jsessionid=1"},
		{"/x;.css", "rest", "/x;.css"},
		{"/pub;x/secret", "", "400"},
		{"/x;/pub", "", "400"},
		{"/;/pub", "", "400"},
		{"/pub/%2e%2e;/x", "", "400"},
		{"/pub/x/%2e%2e;y", "", "400"},
		{"/pub/x/%2E.;y", "", "400"},
		{"/pub/x...;y", "pub", "/pub/x...;y"},
		{"/pub/%3b/x", "pub", "/pub/%3b/x"},
		// Not a path.
		{"/pub#/x", "", "400"},
		{"/pub\x00", "", "400"},
		{"/pub\x7f", "", "400"},
		{"/pub\xff", "", "400"},
		{"pub", "", "400"},
		{"*", "", "400"},
	}
	for _, r := range rows {
		a := f.raw("a.localhost", "GET "+r.sent+" HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
		route := ""
		for _, c := range f.authz.taken() {
			route += c.ContextExtensions[ContextRoute]
			if r.route != "" && c.Request.Http.Path != a.Seen.Path {
				t.Errorf("%q: ext_authz saw %q, the upstream %q", r.sent, c.Request.Http.Path, a.Seen.Path)
			}
		}
		got := a.Seen.Path
		if route == "" {
			got = fmt.Sprint(a.Status)
		}
		if route != r.route || got != r.got {
			t.Errorf("%q: route %q, %s; want %q, %s", r.sent, route, got, r.route, r.got)
		}
	}
}

func TestEnvoyKeepsEscapedSlashes(t *testing.T) {
	f := newFront(t, "escaped_slashes: keep")
	up := f.upstream("u")
	f.serve(fmt.Sprintf(`
  - {name: rest, from: "https://a.localhost:PORT", to: "http://%[1]s", policy: any_authenticated_user}
  - {name: pub, from: "https://a.localhost:PORT", prefix: /pub, to: "http://%[1]s", policy: public}
`, up))
	for path, route := range map[string]string{"/pub/a%2Fb": "pub", "/pub%2Fb": "rest", "/pub/..a%2fb": "pub", "/pub/a?x=/..%2f": "pub"} {
		a := f.raw("a.localhost", "GET "+path+" HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
		checks := f.authz.taken()
		if a.Seen.Path != path || len(checks) != 1 || checks[0].ContextExtensions[ContextRoute] != route {
			t.Errorf("%s: upstream got %q by %v, want route %q", path, a.Seen.Path, checks, route)
		}
	}
	for _, path := range []string{"/pub/..%2fb", "/pub/.%2Fb", "/pub/%2e.%5cb", "/pub/a%2f..", "/pub/a%2F../b", "/pub/a%5C%2E%2e?x", "/pub%2f..%2fb"} {
		a := f.raw("a.localhost", "GET "+path+" HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
		if checks := f.authz.taken(); a.Status != 400 || len(checks) != 0 {
			t.Errorf("%s: status %d after %d checks, want 400 before any", path, a.Status, len(checks))
		}
	}
}

func TestEnvoyRewrites(t *testing.T) {
	f := newFront(t, "")
	up := f.upstream("u")
	f.serve(fmt.Sprintf(`
  - {name: strip, from: "https://a.localhost:PORT", prefix: /grafana, prefix_rewrite: /, to: "http://%[1]s", policy: public}
  - {name: swap, from: "https://a.localhost:PORT", prefix: /old/, prefix_rewrite: /new, to: "http://%[1]s", policy: public}
  - {name: deep, from: "https://a.localhost:PORT", prefix: /d, prefix_rewrite: /e/f/, to: "http://%[1]s", policy: public}
  - {name: dots, from: "https://a.localhost:PORT", prefix: /v1.0, prefix_rewrite: /, to: "http://%[1]s", policy: public}
  - name: regex
    from: "https://a.localhost:PORT"
    prefix: /r
    regex_rewrite_pattern: '^/r/([^/]+)/(.*)$'
    regex_rewrite_substitution: '/\2/\1'
    to: "http://%[1]s"
    policy: public
  - {name: add, from: "https://a.localhost:PORT", prefix_rewrite: /app, to: "http://%[1]s", policy: public}
  - {name: root, from: "https://b.localhost:PORT", prefix: /, prefix_rewrite: /app/, to: "http://%[1]s", policy: public}
  - {name: moved, from: "https://a.localhost:PORT", path: /moved, redirect: {path: /new, status: 301, strip_query: true}, policy: public}
  - {name: away, from: "https://a.localhost:PORT", prefix: /away, redirect: {host: b.example.com}, policy: public}
  - {name: tree, from: "https://a.localhost:PORT", prefix: /tree, redirect: {prefix: /, status: 308}, policy: public}
  - {name: trees, from: "https://a.localhost:PORT", prefix: /woods, redirect: {prefix: /forest, status: 307}, policy: public}
`, up))
	for sent, want := range map[string]string{
		"/grafana":           "/",
		"/grafana/":          "/",
		"/grafana/x":         "/x",
		"/grafana/x/grafana": "/x/grafana",
		"/grafana?q=1":       "/?q=1",
		"/grafana;x":         "/;x",
		"/old":               "/new",
		"/old/x?y":           "/new/x?y",
		"/d":                 "/e/f/",
		"/d/x":               "/e/f/x",
		"/v1.0/x":            "/x",
		"/v1x0/x":            "/app/v1x0/x",
		"/r/a/b?c":           "/b/a?c",
		"/":                  "/app/",
		"/x":                 "/app/x",
	} {
		if a := f.get("a.localhost", sent); a.Seen.Path != want {
			t.Errorf("%s: upstream got %q, want %q", sent, a.Seen.Path, want)
		}
	}
	if a := f.get("b.localhost", "/x"); a.Seen.Path != "/app/x" {
		t.Errorf("prefix / with /app/: upstream got %q", a.Seen.Path)
	}
	origin := fmt.Sprintf("https://a.localhost:%d", f.https)
	for sent, want := range map[string]string{
		"/moved?q":   "301 " + origin + "/new",
		"/away/x?q":  "302 https://b.example.com/away/x?q",
		"/tree":      "308 " + origin + "/",
		"/tree/x?q":  "308 " + origin + "/x?q",
		"/tree/tree": "308 " + origin + "/tree",
		"/woods/x":   "307 " + origin + "/forest/x",
	} {
		a := f.get("a.localhost", sent)
		if got := fmt.Sprint(a.Status, " ", a.Header.Get("Location")); got != want {
			t.Errorf("%s: %s, want %s", sent, got, want)
		}
	}
}
