package main

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
)

// TestWildcardHosts signs in at two hosts of one wildcard: one sign-in is good for both, each has a cookie of its own, and each JWT is for the
// host that was asked alone.
func TestWildcardHosts(t *testing.T) {
	s := newStack(t, `
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: grafana}
  - {name: apps, from: "https://*.apps.localhost:{{.Port}}", to: "{{.Wiki}}", policy: grafana}
`)
	b := s.browser()
	one, two := s.url("one.apps", "/"), s.url("two.apps", "/")
	b.signIn(one, "alice")
	for _, url := range []string{one, two, one, two} {
		if a := b.get(url); a.StatusCode != http.StatusOK || a.Request.URL.String() != url {
			t.Fatalf("%s: %d at %s\n%s", url, a.StatusCode, a.Request.URL, a.text)
		}
	}
	if b.cookie("one.apps") == "" || b.cookie("one.apps") == b.cookie("two.apps") {
		t.Error("two hosts share a cookie")
	}
	seen := map[string]string{}
	for _, r := range s.wiki.requests() {
		host, _, _ := strings.Cut(r.Header.Get("X-Forwarded-Host"), ":")
		jwt := r.Header.Get("X-Pomerium-Jwt-Assertion")
		payload, err := base64.RawURLEncoding.DecodeString(strings.Split(jwt+"..", ".")[1])
		var claims struct{ Iss, Aud string }
		if err == nil {
			err = json.Unmarshal(payload, &claims)
		}
		if err != nil || claims.Iss != host || claims.Aud != host {
			t.Errorf("a JWT at %s is of %q for %q, %v", host, claims.Iss, claims.Aud, err)
		}
		seen[host] = jwt
	}
	if len(seen) != 2 || seen["one.apps.localhost"] == "" || seen["one.apps.localhost"] == seen["two.apps.localhost"] {
		t.Errorf("JWTs of the hosts %v", seen)
	}
	// A stranger's name is nobody's, and a connection for one host is not good for the other: the application sees neither.
	before := len(s.wiki.requests())
	if status := s.status("x.y.apps", "/"); status == http.StatusOK {
		t.Errorf("two labels: %d", status)
	}
	if got := len(s.wiki.requests()); got != before {
		t.Errorf("%d requests more reached the application", got-before)
	}
	b.get(s.url("two.apps", "/.pomerium/sign_out"))
	if a := b.get(one); a.StatusCode == http.StatusOK && a.Request.URL.String() == one {
		t.Error("signed out at one host, and still in at the other")
	}
}
