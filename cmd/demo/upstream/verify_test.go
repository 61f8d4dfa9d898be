package upstream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const header = "X-Pomerium-Jwt-Assertion"

// issuer signs tokens and serves its keys over TLS.
type issuer struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	server  *httptest.Server
	fetches atomic.Int32
	answer  atomic.Pointer[http.HandlerFunc] // of the JWKS URL
	now     time.Time
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	i := &issuer{t: t, key: ecKey(t), now: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	i.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i.fetches.Add(1)
		(*i.answer.Load())(w, r)
	}))
	i.server.Config.ErrorLog = log.New(io.Discard, "", 0) // a client that refuses the certificate is not news
	i.server.StartTLS()
	t.Cleanup(i.server.Close)
	i.publish("", jose.JSONWebKey{Key: i.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"})
	return i
}

// publish serves a key set with a Cache-Control header.
func (i *issuer) publish(cacheControl string, keys ...jose.JSONWebKey) {
	body, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		i.t.Fatal(err)
	}
	i.serve(http.StatusOK, cacheControl, string(body))
}

func (i *issuer) serve(status int, cacheControl, body string) {
	answer := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if cacheControl != "" {
			w.Header().Set("Cache-Control", cacheControl)
		}
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	})
	i.answer.Store(&answer)
}

// settings are the guide's, with the CA in a file.
func (i *issuer) settings() Settings {
	file := filepath.Join(i.t.TempDir(), "ca.pem")
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.server.Certificate().Raw})
	if err := os.WriteFile(file, text, 0o600); err != nil {
		i.t.Fatal(err)
	}
	return Settings{HeaderName: header, JWKSetURL: i.server.URL + "/.well-known/pomerium/jwks.json", TLSClientCA: file,
		UsernameClaim: "email", EmailClaim: "email", AutoSignUp: true, Now: func() time.Time { return i.now }}
}

func (i *issuer) verifier(change func(*Settings)) *Verifier {
	i.t.Helper()
	s := i.settings()
	if change != nil {
		change(&s)
	}
	v, err := NewVerifier(s)
	if err != nil {
		i.t.Fatal(err)
	}
	return v
}

// claims are those of a good token, with changes; a nil value takes a claim away.
func (i *issuer) claims(change map[string]any) map[string]any {
	claims := map[string]any{"iss": "grafana.localhost", "aud": "grafana.localhost", "sub": "alice", "email": "alice@example.com", "name": "Alice Adams",
		"groups": []string{"grafana-admins"}, "role": "Admin", "iat": i.now.Unix(), "nbf": i.now.Unix(), "exp": i.now.Add(5 * time.Minute).Unix()}
	maps.Copy(claims, change)
	for name, value := range claims {
		if value == nil {
			delete(claims, name)
		}
	}
	return claims
}

func (i *issuer) token(change map[string]any) string {
	return signed(i.t, jose.ES256, i.key, "k1", i.claims(change))
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, kid string, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: kid}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func with(token string) *http.Request {
	r := httptest.NewRequest(http.MethodGet, "/profile", nil)
	r.Header.Set(header, token)
	return r
}

// refused says why a token is not taken; "" when it is.
func refused(v *Verifier, token string) string {
	if _, err := v.Identify(with(token)); err != nil {
		return err.Error()
	}
	return ""
}

func TestAGoodToken(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(func(s *Settings) {
		s.RoleAttributePath = "role"
		s.ExpectClaims = map[string]any{"iss": "grafana.localhost", "aud": "grafana.localhost"}
	})
	for name, token := range map[string]string{"bare": i.token(nil), "Bearer": "Bearer " + i.token(nil), "bearer": "bearer " + i.token(nil)} {
		got, err := v.Identify(with(token))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		got.Claims = nil
		want := &Identity{Subject: "alice", Login: "alice@example.com", Email: "alice@example.com", Name: "Alice Adams", Role: "Admin",
			Groups: []string{"grafana-admins"}}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v\nwant %+v", name, got, want)
		}
	}
	if n := i.fetches.Load(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
}

func TestWhatIsRefused(t *testing.T) {
	i := newIssuer(t)
	at := func(d time.Duration) int64 { return i.now.Add(d).Unix() }
	const noJWT = "the X-Pomerium-Jwt-Assertion header holds no JWT with a sub claim"
	const failed = "failed to verify JWT: "
	rows := []struct {
		name  string
		token string
		want  string // "" for accepted
	}{
		{"no header", "", "the request has no X-Pomerium-Jwt-Assertion header"},
		{"no JWT", "hello", noJWT},
		{"no sub", i.token(map[string]any{"sub": nil}), noJWT},
		{"empty sub", i.token(map[string]any{"sub": ""}), noJWT},
		{"a sub that is no string", i.token(map[string]any{"sub": 7}), noJWT},
		{"alg none", "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.", noJWT},

		{"another key by the same id", signed(t, jose.ES256, ecKey(t), "k1", i.claims(nil)), failed + "go-jose/go-jose: error in cryptographic primitive"},
		{"changed after signing", altered(i.token(nil)), failed + "go-jose/go-jose: error in cryptographic primitive"},
		{"unknown kid", signed(t, jose.ES256, i.key, "k2", i.claims(nil)), failed + "no keys found"},
		{"no kid", signed(t, jose.ES256, i.key, "", i.claims(nil)), failed + "no keys found"},

		{"expired within the leeway", i.token(map[string]any{"exp": at(-59 * time.Second)}), ""},
		{"expired", i.token(map[string]any{"exp": at(-61 * time.Second)}), failed + "go-jose/go-jose/jwt: validation failed, token is expired (exp)"},
		{"no exp", i.token(map[string]any{"exp": nil}), ""},
		{"not yet, within the leeway", i.token(map[string]any{"nbf": at(59 * time.Second)}), ""},
		{"not yet", i.token(map[string]any{"nbf": at(61 * time.Second)}), failed + "go-jose/go-jose/jwt: validation failed, token not valid yet (nbf)"},
		{"issued in the future", i.token(map[string]any{"iat": at(61 * time.Second)}),
			failed + "go-jose/go-jose/jwt: validation failed, token issued in the future (iat)"},

		{"another upstream's audience", i.token(map[string]any{"aud": "wiki.localhost"}),
			failed + "go-jose/go-jose/jwt: validation failed, invalid audience claim (aud)"},
		{"no audience", i.token(map[string]any{"aud": nil}), failed + "go-jose/go-jose/jwt: validation failed, invalid audience claim (aud)"},
		{"ours among audiences", i.token(map[string]any{"aud": []string{"wiki.localhost", "grafana.localhost"}}), ""},
		{"another issuer", i.token(map[string]any{"iss": "wiki.localhost"}), failed + "go-jose/go-jose/jwt: validation failed, invalid issuer claim (iss)"},

		{"no login and no email", i.token(map[string]any{"email": nil}), "missing login and email claim in JWT"},
		{"no name", i.token(map[string]any{"name": nil}), ""},
		{"groups null", i.token(map[string]any{"groups": []string(nil)}),
			"the groups claim is a <nil>, not an array of strings"},
		{"groups a string", i.token(map[string]any{"groups": "admins"}), "the groups claim is a string, not an array of strings"},
		{"no groups", i.token(map[string]any{"groups": []string{}}), ""},
	}
	v := i.verifier(func(s *Settings) {
		s.ExpectClaims = map[string]any{"iss": "grafana.localhost", "aud": "grafana.localhost"}
	})
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			if got := refused(v, r.token); got != r.want {
				t.Errorf("refused because %q\nwant %q", got, r.want)
			}
		})
	}
}

// altered gives a token another payload under the same signature.
func altered(token string) string {
	parts := strings.Split(token, ".")
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(`{"sub":"bob","email":"bob@example.com"}`))
	return strings.Join(parts, ".")
}

func TestAlgorithms(t *testing.T) {
	i := newIssuer(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(i.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	i.publish("", jose.JSONWebKey{Key: i.key.Public(), KeyID: "ec"}, jose.JSONWebKey{Key: rsaKey.Public(), KeyID: "rsa"})
	v := i.verifier(nil)
	rows := []struct {
		name string
		alg  jose.SignatureAlgorithm
		key  any
		kid  string
		want bool
	}{
		{"ES256", jose.ES256, i.key, "ec", true},
		{"RS256", jose.RS256, rsaKey, "rsa", true},
		{"RS384 is missing in Grafana", jose.RS384, rsaKey, "rsa", false},
		{"RS512", jose.RS512, rsaKey, "rsa", true},
		{"PS384", jose.PS384, rsaKey, "rsa", true},
		{"HS256 with the public key as secret", jose.HS256, public, "ec", false},
	}
	for _, r := range rows {
		if why := refused(v, signed(t, r.alg, r.key, r.kid, i.claims(nil))); (why == "") != r.want {
			t.Errorf("%s: taken is %v, want %v (%s)", r.name, why == "", r.want, why)
		}
	}
}

func TestExpectedClaimsOfOnesOwn(t *testing.T) {
	i := newIssuer(t)
	v := i.verifier(func(s *Settings) { s.ExpectClaims = map[string]any{"tenant": []any{"a", "b"}, "sub": "alice"} })
	rows := []struct {
		name   string
		claims map[string]any
		want   string
	}{
		{"equal", map[string]any{"tenant": []string{"a", "b"}}, ""},
		{"missing", nil, `failed to verify JWT: "tenant" claim is missing`},
		{"another order", map[string]any{"tenant": []string{"b", "a"}}, `failed to verify JWT: "tenant" claim mismatch`},
		{"another subject", map[string]any{"tenant": []string{"a", "b"}, "sub": "bob"},
			"failed to verify JWT: go-jose/go-jose/jwt: validation failed, invalid subject claim (sub)"},
	}
	for _, r := range rows {
		if got := refused(v, i.token(r.claims)); got != r.want {
			t.Errorf("%s: refused because %q, want %q", r.name, got, r.want)
		}
	}
}

func TestRoles(t *testing.T) {
	i := newIssuer(t)
	rows := []struct {
		name   string
		path   string
		strict bool
		claim  any
		want   string
		err    string
	}{
		{"none", "role", false, "None", "None", ""},
		{"viewer", "role", false, "Viewer", "Viewer", ""},
		{"editor", "role", true, "Editor", "Editor", ""},
		{"admin", "role", true, "Admin", "Admin", ""},
		{"grafana admin", "role", true, "GrafanaAdmin", "Admin", ""},
		{"below an object", "role.of", true, map[string]string{"of": "Editor"}, "Editor", ""},
		{"lower case is no role", "role", false, "admin", "Viewer", ""},
		{"missing", "role", false, nil, "Viewer", ""},
		{"no path", "", false, "Admin", "Viewer", ""},
		{"path through a string", "role.of", false, "Admin", "Viewer", ""},
		{"missing when strict", "role", true, nil, "", `invalid role "" in JWT at role`},
		{"wrong when strict", "role", true, "Owner", "", `invalid role "Owner" in JWT at role`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			v := i.verifier(func(s *Settings) { s.RoleAttributePath, s.RoleAttributeStrict = r.path, r.strict })
			got, err := v.Identify(with(i.token(map[string]any{"role": r.claim})))
			if r.err != "" {
				if err == nil || err.Error() != r.err {
					t.Errorf("error %v, want %s", err, r.err)
				}
				return
			}
			if err != nil || got.Role != r.want {
				t.Errorf("role %+v, %v; want %s", got, err, r.want)
			}
		})
	}
}

func TestSettingsAreChecked(t *testing.T) {
	rows := []struct {
		settings Settings
		want     string
	}{
		{Settings{}, "header_name is required"},
		{Settings{HeaderName: "X", JWKSetURL: "keys.json"}, `jwk_set_url "keys.json" is no URL`},
		{Settings{HeaderName: "X", JWKSetURL: "http://a/keys"}, `jwk_set_url "http://a/keys" must have https scheme`},
		{Settings{HeaderName: "X", JWKSetURL: "http://a/keys", Development: true}, ""},
		{Settings{HeaderName: "X", JWKSetURL: "https://a/keys", ExpectClaims: map[string]any{"iss": 1}}, `expect_claims: "iss" has invalid type int`},
		{Settings{HeaderName: "X", JWKSetURL: "https://a/keys", ExpectClaims: map[string]any{"aud": []any{"a", 1}}},
			`expect_claims: "aud" has invalid type []interface {}`},
	}
	for _, r := range rows {
		_, err := NewVerifier(r.settings)
		if got := text(err); got != r.want {
			t.Errorf("NewVerifier(%+v): %s\nwant %s", r.settings, got, r.want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
