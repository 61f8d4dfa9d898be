package main

import (
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestIdentityHeaders has an upstream that reads no JWT, and clients that say who they are themselves.
func TestIdentityHeaders(t *testing.T) {
	s := prepareStack(t, `
  - name: grafana
    from: https://grafana.localhost:{{.Port}}
    to: {{.Grafana}}
    policy: any_authenticated_user
    identity_headers:
      X-WEBAUTH-USER: "${email}"
      X-Acme-Person: "${sub}"
      Authorization: "Bearer ${jwt}"
      Impersonate-User: "${sub}"
      Impersonate-Group: ["${groups}"]
  - name: open
    from: https://grafana.localhost:{{.Port}}
    prefix: /open
    to: {{.Grafana}}
    policy: open
    allow_anonymous: true
    identity_headers: {Authorization: "Bearer ${jwt}", X-Acme-Person: "${sub}"}
  - name: wiki
    from: https://wiki.localhost:{{.Port}}
    to: {{.Wiki}}
    policy: public
`)
	s.write("policies/open.rego", "package open\n\nallow := true\n")
	s.start()
	forged := []string{"X-Webauth-User", "admin", "X-Acme-Person", "admin", "x.acme.person", "admin", "Impersonate-User", "admin", "Impersonate-Group", "system:masters",
		"Impersonate-Extra-Scopes", "x", "Authorization", "Basic Zm9yZ2Vk"}
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	b.get(s.url("grafana", "/x"), forged...)
	got := last(s.grafana).Header
	jwt := got.Get(assertion)
	for name, want := range map[string][]string{
		"X-Webauth-User": {"alice@example.com"}, "X-Acme-Person": {"alice"}, "Authorization": {"Bearer " + jwt}, "Impersonate-User": {"alice"},
		"Impersonate-Group": {"grafana-admins", "engineering"}, "Impersonate-Extra-Scopes": nil,
	} {
		if values := got.Values(name); !slices.Equal(values, want) {
			t.Errorf("%s is %q, want %q", name, values, want)
		}
	}
	if got := claims(t, jwt)["sub"]; got != "alice" {
		t.Errorf("the JWT is of %v", got)
	}
	stranger := s.browser()
	stranger.get(s.url("grafana", "/open/x"), forged...)
	s.holdsNoIdentity(t, last(s.grafana).Header, "Authorization")
	stranger.get(s.url("wiki", "/x"), forged...)
	s.holdsNoIdentity(t, last(s.wiki).Header)
	if got := last(s.wiki).Header.Get("Authorization"); got != "Basic Zm9yZ2Vk" {
		t.Errorf("another route's application lost its own Authorization: %q", got)
	}
}

func (s *stack) holdsNoIdentity(t *testing.T, got http.Header, more ...string) {
	t.Helper()
	for name := range got {
		plain := strings.NewReplacer(".", "-", "_", "-").Replace(name)
		if slices.Contains(append(more, "X-Webauth-User", "X-Acme-Person", "Impersonate-User", "Impersonate-Group", "Impersonate-Extra-Scopes", assertion), http.CanonicalHeaderKey(plain)) {
			t.Errorf("a stranger's %s reached the upstream: %q", name, got[name])
		}
	}
}
