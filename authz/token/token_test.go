package token

import (
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"doorward/authz/store/bolt"

	"github.com/lestrrat-go/jwx/v3/jwk"
	"github.com/lestrrat-go/jwx/v3/jwt"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 500_000_000, time.UTC)

// clock is moved by the test.
type clock struct{ offset atomic.Int64 }

func (c *clock) Now() time.Time          { return start.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// sealer is AES-256-GCM with a key of its own.
type sealer struct{ cipher.AEAD }

func newSealer(t testing.TB) sealer {
	var key [32]byte
	rand.Read(key[:])
	block, err := aes.NewCipher(key[:])
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return sealer{aead}
}

func (s sealer) Seal(purpose string, plain []byte) []byte {
	return s.AEAD.Seal(nil, nil, plain, []byte(purpose))
}

func (s sealer) Open(purpose string, sealed []byte) ([]byte, error) {
	return s.AEAD.Open(nil, nil, sealed, []byte(purpose))
}

// setUp returns what a Ring needs, on an empty store.
func setUp(t testing.TB) (Config, *clock) {
	c := &clock{}
	db, err := bolt.OpenAt(filepath.Join(t.TempDir(), "store"), c.Now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return Config{Store: db, Sealer: newSealer(t), Now: c.Now}, c
}

func open(t testing.TB, c Config) *Ring {
	t.Helper()
	r, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// alice is what most tests mint.
func alice() Claims {
	return Claims{
		Issuer: "grafana.example.com", Audience: "grafana.example.com", Subject: "b4d6c2d5", Email: "alice@example.com",
		PreferredUsername: "alice", Name: "Alice", Groups: []string{"engineering"}, SID: "0123456789abcdef", NotAfter: start.Add(14 * time.Hour),
	}
}

func mint(t testing.TB, r *Ring, c Claims) string {
	t.Helper()
	token, _, err := r.Mint(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// verify does what a careful consumer does, with another library.
func verify(token string, jwks []byte, now time.Time) error {
	set, err := jwk.Parse(jwks)
	if err != nil {
		return err
	}
	_, err = jwt.Parse([]byte(token), jwt.WithKeySet(set), jwt.WithIssuer("grafana.example.com"), jwt.WithAudience("grafana.example.com"),
		jwt.WithClock(jwt.ClockFunc(func() time.Time { return now })))
	return err
}

// part decodes the header (0) or the claims (1).
func part(t testing.TB, token string, i int) string {
	t.Helper()
	data, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[i])
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func kids(t testing.TB, jwks []byte) []string {
	t.Helper()
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(jwks, &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, k := range set.Keys {
		ids = append(ids, k["kid"])
	}
	return ids
}

func TestOpenKeepsTheKey(t *testing.T) {
	c, clock := setUp(t)
	first := open(t, c)
	token := mint(t, first, alice())
	clock.advance(time.Minute)
	again := open(t, c)
	if first.KeyID() != again.KeyID() || string(first.JWKS()) != string(again.JWKS()) {
		t.Errorf("opened again, the key %s is %s", first.KeyID(), again.KeyID())
	}
	if err := verify(token, again.JWKS(), clock.Now()); err != nil {
		t.Error(err)
	}
	items, err := c.Store.List(t.Context(), "", "", 10)
	if err != nil || len(items) != 1 {
		t.Fatalf("%d items in the store, %v", len(items), err)
	}
	if strings.Contains(string(items[0].Value), "private") {
		t.Error("the keys are not sealed")
	}
}

// TestOpenAtOnce has replicas start on an empty store: they agree on one key.
func TestOpenAtOnce(t *testing.T) {
	c, _ := setUp(t)
	rings := make([]*Ring, 8)
	var wg sync.WaitGroup
	for i := range rings {
		wg.Go(func() {
			r, err := Open(t.Context(), c)
			if err != nil {
				t.Error(err)
				return
			}
			rings[i] = r
		})
	}
	wg.Wait()
	for _, r := range rings {
		if r == nil || r.KeyID() != rings[0].KeyID() || len(kids(t, r.JWKS())) != 1 {
			t.Fatal("replicas that started together have different keys")
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	good, _ := setUp(t)
	open(t, good)
	for want, change := range map[string]func(*Config){
		"token: Store and Sealer are required":                           func(c *Config) { c.Store = nil },
		"token: a lifetime of 5m0.000000001s is not between 1s and 5m0s": func(c *Config) { c.Lifetime = maxLifetime + 1 },
		"token: a lifetime of -1s is not between 1s and 5m0s":            func(c *Config) { c.Lifetime = -time.Second },
		"token: a consumer cache of 1ms is less than 1s":                 func(c *Config) { c.ConsumerCache = time.Millisecond },
		"read signing key: open /none: no such file or directory":        func(c *Config) { c.SigningKeyFile = "/none" },
		"read signing keys: they were sealed with another key than the data directory's: restore that one, or begin anew with an empty store": func(c *Config) {
			c.Sealer = newSealer(t)
		},
	} {
		c := good
		change(&c)
		if _, err := Open(t.Context(), c); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Open(ctx, good); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: got %v", err)
	}
}

func TestMint(t *testing.T) {
	c, clock := setUp(t)
	r := open(t, c)
	token, expires, err := r.Mint(alice())
	if err != nil {
		t.Fatal(err)
	}
	if want := start.Add(5 * time.Minute).Truncate(time.Second); !expires.Equal(want) {
		t.Errorf("expires %v, want %v", expires, want)
	}
	if got, want := part(t, token, 0), `{"alg":"ES256","kid":"`+r.KeyID()+`","typ":"JWT"}`; got != want {
		t.Errorf("header %s, want %s", got, want)
	}
	var claims struct{ JTI string }
	if err := json.Unmarshal([]byte(part(t, token, 1)), &claims); err != nil || len(claims.JTI) != 22 {
		t.Errorf("jti %q, %v, want 22 characters", claims.JTI, err)
	}
	want := `{"iss":"grafana.example.com","aud":"grafana.example.com","sub":"b4d6c2d5","exp":1772366700,"nbf":1772366400,"iat":1772366400,` +
		`"jti":"` + claims.JTI + `","sid":"0123456789abcdef","email":"alice@example.com","preferred_username":"alice","name":"Alice","groups":["engineering"]}`
	if got := part(t, token, 1); got != want {
		t.Errorf("claims\n%s, want\n%s", got, want)
	}
	if err := verify(token, r.JWKS(), clock.Now()); err != nil {
		t.Error(err)
	}
	if err := verify(token, r.JWKS(), clock.Now().Add(6*time.Minute)); err == nil {
		t.Error("verified a token that has expired")
	}
	if again := mint(t, r, alice()); part(t, again, 1) == part(t, token, 1) {
		t.Error("two tokens have one jti")
	}
}

func TestMintClaims(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	tests := []struct {
		name   string
		change func(*Claims)
		ends   string // how the claims end
		err    string
	}{
		{"no groups", func(c *Claims) { c.Groups = nil }, `"name":"Alice","groups":[]}`, ""},
		{"nothing optional", func(c *Claims) { c.Email, c.PreferredUsername, c.Name, c.SID, c.Groups = "", "", "", "", nil }, `","groups":[]}`, ""},
		{"claims of the policy, by name", func(c *Claims) {
			c.Extra = map[string]any{"z": true, "a": json.Number("9007199254740993"), "grafana": map[string]any{"role": "Admin", "orgs": []any{"x"}}}
		}, `"groups":["engineering"],"a":9007199254740993,"grafana":{"orgs":["x"],"role":"Admin"},"z":true}`, ""},
		{"groups of the policy", func(c *Claims) { c.Extra = map[string]any{"groups": []any{"a", "b"}} }, `"groups":["a","b"]}`, ""},
		{"no groups of the policy", func(c *Claims) { c.Extra = map[string]any{"groups": []string(nil)} }, `"groups":[]}`, ""},
		{"quotes", func(c *Claims) { c.Groups = []string{`"],"sub":"root`} }, `"groups":["\"],\"sub\":\"root"]}`, ""},

		{"groups that are null", func(c *Claims) { c.Extra = map[string]any{"groups": nil} }, "",
			`mint token: claim "groups" of the policy is a <nil> and no array of strings`},
		{"groups with a number", func(c *Claims) { c.Extra = map[string]any{"groups": []any{"a", 1.5}} }, "",
			`mint token: claim "groups" of the policy has a float64 among its strings`},
		{"a claim that JSON lacks", func(c *Claims) { c.Extra = map[string]any{"f": func() {}} }, "",
			`mint token: encode the policy's claims: json: unsupported type: func()`},
		{"no issuer", func(c *Claims) { c.Issuer = "" }, "", "mint token: no issuer"},
		{"no audience", func(c *Claims) { c.Audience = "" }, "", "mint token: no audience"},
		{"no subject", func(c *Claims) { c.Subject = "" }, "", "mint token: no subject"},
		{"a subject that is not UTF-8", func(c *Claims) { c.Subject = "a\xff" }, "", "mint token: subject, e-mail or user name is not UTF-8"},
		{"no end", func(c *Claims) { c.NotAfter = time.Time{} }, "", "mint token: the session ended at 0001-01-01T00:00:00Z"},
		{"ended", func(c *Claims) { c.NotAfter = start }, "", "mint token: the session ended at 2026-03-01T12:00:00Z"},
	}
	for _, test := range tests {
		claims := alice()
		test.change(&claims)
		token, _, err := r.Mint(claims)
		switch {
		case test.err != "":
			if err == nil || err.Error() != test.err || token != "" {
				t.Errorf("%s: got %q, %v\nwant %s", test.name, token, err, test.err)
			}
		case err != nil:
			t.Errorf("%s: %v", test.name, err)
		case !strings.HasSuffix(part(t, token, 1), test.ends):
			t.Errorf("%s: got %s\nwant it to end in %s", test.name, part(t, token, 1), test.ends)
		}
	}
	for _, name := range []string{
		"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "email", "email_verified", "preferred_username", "name", "Sub", "\u017fub", "EXP", "Groups",
	} {
		claims := alice()
		claims.Extra = map[string]any{name: "x"}
		want := `mint token: claim "` + name + `" is Doorward's own: a policy may not set it`
		if _, _, err := r.Mint(claims); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
}

func TestMintEnds(t *testing.T) {
	c, _ := setUp(t)
	c.Lifetime = 2 * time.Minute
	r := open(t, c)
	for _, row := range []struct{ session, want time.Duration }{
		{time.Hour, 2 * time.Minute}, {2 * time.Minute, 2 * time.Minute}, {90 * time.Second, 90 * time.Second}, {time.Second, time.Second},
	} {
		claims := alice()
		claims.NotAfter = start.Add(row.session)
		_, expires, err := r.Mint(claims)
		if want := start.Add(row.want).Truncate(time.Second); err != nil || !expires.Equal(want) {
			t.Errorf("a session that ends in %s: token until %v, %v, want %v", row.session, expires, err, want)
		}
	}
}

func TestJWKS(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	var set struct{ Keys []map[string]string }
	if err := json.Unmarshal(r.JWKS(), &set); err != nil || len(set.Keys) != 1 {
		t.Fatalf("%s: %v", r.JWKS(), err)
	}
	k := set.Keys[0]
	for _, name := range []string{"x", "y"} {
		if raw, err := base64.RawURLEncoding.DecodeString(k[name]); err != nil || len(raw) != 32 {
			t.Errorf("%s: %d bytes, %v, want 32", name, len(raw), err)
		}
		delete(k, name)
	}
	want := map[string]string{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": r.KeyID()}
	for name := range k {
		if k[name] != want[name] {
			t.Errorf("%s is %q, want %q", name, k[name], want[name])
		}
	}
	if len(k) != len(want) {
		t.Errorf("got %v, want %v", k, want)
	}
	parsed, err := jwk.Parse(r.JWKS())
	if err != nil {
		t.Fatal(err)
	}
	public, _ := parsed.Key(0)
	if sum, err := public.Thumbprint(crypto.SHA256); err != nil || encode(sum) != r.KeyID() {
		t.Errorf("kid %s, thumbprint %s, %v", r.KeyID(), encode(sum), err)
	}
	if private, err := jwk.IsPrivateKey(public); err != nil || private {
		t.Errorf("the published key is private: %v, %v", private, err)
	}
}

func TestServeHTTP(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	for _, row := range []struct {
		method, body, contentType, cache string
		status                           int
	}{
		{"GET", string(r.JWKS()), "application/json", "public, max-age=300", 200},
		{"HEAD", "", "application/json", "public, max-age=300", 200},
		{"POST", "Only GET and HEAD are served here.\n", "text/plain; charset=utf-8", "", 405},
		{"OPTIONS", "Only GET and HEAD are served here.\n", "text/plain; charset=utf-8", "", 405},
	} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequest(row.method, "/.well-known/pomerium/jwks.json", nil))
		h := w.Header()
		if w.Code != row.status || w.Body.String() != row.body || h.Get("Content-Type") != row.contentType ||
			h.Get("Cache-Control") != row.cache || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v\n%s", row.method, w.Code, h, w.Body)
		}
		if (row.status == 405) != (h.Get("Allow") == "GET, HEAD") {
			t.Errorf("%s: Allow: %q", row.method, h.Get("Allow"))
		}
	}
	c.ConsumerCache = 10 * time.Second
	w := httptest.NewRecorder()
	open(t, c).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := w.Header().Get("Cache-Control"); got != "public, max-age=10" {
		t.Errorf("with a consumer cache of 10 s: Cache-Control: %s", got)
	}
}

// TestCrossTalk mints for many people at once: everybody gets their own.
func TestCrossTalk(t *testing.T) {
	c, clock := setUp(t)
	r := open(t, c)
	extra := map[string]any{"shared": []any{"x"}}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 50 {
				claims := alice()
				claims.Subject, claims.Extra = strings.Repeat("s", i+1), extra
				token := mint(t, r, claims)
				if !strings.Contains(part(t, token, 1), `"sub":"`+claims.Subject+`"`) {
					t.Errorf("minted for %s: %s", claims.Subject, part(t, token, 1))
				}
				if err := verify(token, r.JWKS(), clock.Now()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func BenchmarkMint(b *testing.B) {
	c, _ := setUp(b)
	r := open(b, c)
	claims := alice()
	claims.Extra = map[string]any{"grafana": map[string]any{"role": "Admin", "orgs": []any{"main"}}}
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := r.Mint(claims); err != nil {
			b.Fatal(err)
		}
	}
}

func hasKids(t *testing.T, r *Ring, want ...string) {
	t.Helper()
	got := kids(t, r.JWKS())
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("published %q, want %q", got, want)
	}
}
