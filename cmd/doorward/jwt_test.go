package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
)

// tokenIssuer signs tokens for programs, and publishes its key.
type tokenIssuer struct {
	*httptest.Server
	key *ecdsa.PrivateKey
}

func newTokenIssuer(t *testing.T) *tokenIssuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	i := &tokenIssuer{key: key}
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/.well-known/openid-configuration" {
			fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, i.URL, i.URL+"/keys")
			return
		}
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "k1", Key: key.Public(), Use: "sig"}}})
	}))
	t.Cleanup(i.Close)
	return i
}

// token is for the audience "doorward".
func (i *tokenIssuer) token(t *testing.T, sub string, life time.Duration, groups ...string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{KeyID: "k1", Key: i.key}}, new(jose.SignerOptions).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(map[string]any{
		"iss": i.URL, "sub": sub, "aud": []string{"doorward"}, "exp": time.Now().Add(life).Unix(), "iat": time.Now().Unix(), "groups": groups, "scope": "read",
	})
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(text)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestIssuersTokens(t *testing.T) {
	s := prepareStack(t, `
  - name: api
    from: https://grafana.localhost:{{.Port}}
    to: {{.Grafana}}
    policy: robots
    bearer: {issuers: ci}
  - name: forwarding
    from: https://grafana.localhost:{{.Port}}
    prefix: /forwarding
    to: {{.Grafana}}
    policy: robots
    bearer: {issuers: [ci], forward_token: true}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: any_authenticated_user}
`)
	i := newTokenIssuer(t)
	s.write("doorward.yaml", s.read("doorward.yaml")+fmt.Sprintf("\ntoken_issuers:\n  - {name: ci, issuer: %q, audiences: doorward}\n", i.URL))
	s.write("policies/robots.rego", "package robots\n\nallow if {\n\t\"robots\" in input.user.groups\n\tinput.user.claims.scope == \"read\"\n}\n")
	s.start()
	api, good := s.url("grafana", "/x"), i.token(t, "job-7", time.Hour, "robots")
	for range 2 { // verified, and remembered
		if got := s.api(api, good); got.StatusCode != 200 {
			t.Fatalf("status %d, want 200: %s\n%s", got.StatusCode, got.text, s.log)
		}
	}
	seen := last(s.grafana).Header
	if c := claims(t, seen.Get(assertion)); c["sub"] != "ci:job-7" || c["groups"].([]any)[0] != "robots" {
		t.Errorf("the JWT says %v", c)
	}
	if got := seen.Get("Authorization"); got != "" {
		t.Errorf("the upstream got the token: %q", got)
	}
	s.api(s.url("grafana", "/forwarding"), good)
	if got := last(s.grafana).Header.Get("Authorization"); got != "Bearer "+good {
		t.Errorf("the upstream got %q, not the token that it is to have", got)
	}
	for name, row := range map[string]struct {
		token, url string
		want       int
	}{
		"no group":                {i.token(t, "job-8", time.Hour), api, 403},
		"expired":                 {i.token(t, "job-7", -time.Second, "robots"), api, 401},
		"another issuer's":        {newTokenIssuer(t).token(t, "job-7", time.Hour, "robots"), api, 401},
		"a route that takes none": {good, s.url("wiki", "/"), 401},
	} {
		if got := s.api(row.url, row.token, "Sec-Fetch-Mode", "cors"); got.StatusCode != row.want {
			t.Errorf("%s: status %d, want %d", name, got.StatusCode, row.want)
		}
	}
	short := i.token(t, "job-9", 2*time.Second, "robots")
	if got := s.api(api, short); got.StatusCode != 200 {
		t.Errorf("a token of two seconds: status %d, want 200", got.StatusCode)
	}
	time.Sleep(2 * time.Second)
	if got := s.api(api, short); got.StatusCode != 401 {
		t.Errorf("two seconds later: status %d, want 401", got.StatusCode)
	}
	s.saysWho(t, "ci:job-7")
	i.Close()
	if got := s.api(api, i.token(t, "job-10", time.Hour, "robots")); got.StatusCode != 200 {
		t.Errorf("with the issuer down: status %d, want 200", got.StatusCode)
	}
}
