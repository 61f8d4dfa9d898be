package upstream

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const noKeys = "failed to verify JWT: no keys found"

func published(key any, kid string) jose.JSONWebKey {
	return jose.JSONWebKey{Key: key, KeyID: kid, Algorithm: "ES256", Use: "sig"}
}

// TestARotatedKeyIsUnknownUntilTheCacheExpires is why a key must be published for an hour before it signs.
func TestARotatedKeyIsUnknownUntilTheCacheExpires(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	if why := refused(v, i.token(nil)); why != "" {
		t.Fatal(why)
	}
	next := ecKey(t)
	i.publish("", published(i.key.Public(), "k1"), published(next.Public(), "k2"))
	begun := i.now
	for _, r := range []struct {
		after time.Duration
		want  string
	}{{0, noKeys}, {59 * time.Minute, noKeys}, {time.Hour, ""}} {
		i.now = begun.Add(r.after)
		if got := refused(v, signed(t, jose.ES256, next, "k2", i.claims(nil))); got != r.want {
			t.Errorf("after %v: refused because %q, want %q", r.after, got, r.want)
		}
	}
	if n := i.fetches.Load(); n != 2 {
		t.Errorf("%d fetches, want 2: an unknown key id must cause none", n)
	}
}

// TestAnErrorWithAJSONBodyIsAnEmptySet is why an error on the JWKS path must have none.
func TestAnErrorWithAJSONBodyIsAnEmptySet(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	i.serve(http.StatusServiceUnavailable, "no-store, no-cache", `{"error":"unavailable"}`)
	if got := refused(v, i.token(nil)); got != noKeys {
		t.Errorf("refused because %q, want %q", got, noKeys)
	}
	i.publish("", published(i.key.Public(), "k1"))
	i.now = i.now.Add(59 * time.Minute)
	if got := refused(v, i.token(nil)); got != noKeys {
		t.Errorf("59 minutes later: refused because %q, want %q", got, noKeys)
	}
	i.now = i.now.Add(time.Minute)
	if got := refused(v, i.token(nil)); got != "" {
		t.Errorf("an hour later: refused because %q", got)
	}
}

func TestAnErrorWithAnotherBodyIsNotKept(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	i.serve(http.StatusServiceUnavailable, "", "upstream connect error")
	want := "failed to verify JWT: fetch " + i.server.URL + "/.well-known/pomerium/jwks.json: invalid character 'u' looking for beginning of value"
	if got := refused(v, i.token(nil)); got != want {
		t.Errorf("refused because %q\nwant %q", got, want)
	}
	i.publish("", published(i.key.Public(), "k1"))
	if got := refused(v, i.token(nil)); got != "" {
		t.Errorf("refused because %q after the error was over", got)
	}
}

// TestNoStaleKeys: when a refresh fails there is no falling back to the keys from before.
func TestNoStaleKeys(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	if why := refused(v, i.token(nil)); why != "" {
		t.Fatal(why)
	}
	i.serve(http.StatusBadGateway, "", "")
	i.now = i.now.Add(time.Hour)
	if got := refused(v, i.token(nil)); !strings.HasSuffix(got, ": EOF") {
		t.Errorf("refused because %q, want the failed fetch", got)
	}
}

// TestOneKeyOfAnUnknownTypeSpoilsTheSet is why nothing but signing keys is published.
func TestOneKeyOfAnUnknownTypeSpoilsTheSet(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(nil)
	good, err := json.Marshal(published(i.key.Public(), "k1"))
	if err != nil {
		t.Fatal(err)
	}
	i.serve(http.StatusOK, "", `{"keys":[`+string(good)+`,{"kty":"XYZ","kid":"x"}]}`)
	want := "failed to verify JWT: fetch " + i.server.URL + "/.well-known/pomerium/jwks.json: go-jose/go-jose: unsupported key type, format, curve, or RSA modulus size"
	if got := refused(v, i.token(nil)); got != want {
		t.Errorf("refused because %q\nwant %q", got, want)
	}
}

func TestAnUnknownCAIsRefused(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(func(s *Settings) { s.TLSClientCA = "" })
	if got := refused(v, i.token(nil)); !strings.Contains(got, "certificate signed by unknown authority") {
		t.Errorf("refused because %q", got)
	}
	v = i.verifier(func(s *Settings) { s.TLSClientCA = "/nonexistent/ca.pem" })
	if got, want := refused(v, i.token(nil)), "failed to verify JWT: tls_client_ca: open /nonexistent/ca.pem: no such file or directory"; got != want {
		t.Errorf("refused because %q, want %q", got, want)
	}
}

func TestLifetime(t *testing.T) {
	rows := []struct {
		cacheControl string
		want         time.Duration
	}{
		{"", time.Hour},
		{"max-age=300", 5 * time.Minute},
		{"public, Max-Age=300, must-revalidate", 5 * time.Minute},
		{"max-age=86400", time.Hour},
		{"max-age=0", time.Hour},
		{"no-store", time.Hour},
		{"no-cache, max-age=x", time.Hour},
		{"max-age=99999999999999999999", time.Hour},
	}
	for _, r := range rows {
		if got := lifetime(time.Hour, r.cacheControl); got != r.want {
			t.Errorf("lifetime(%q) = %v, want %v", r.cacheControl, got, r.want)
		}
	}
}
