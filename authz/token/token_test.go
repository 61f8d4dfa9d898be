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

// TestJWKS holds that a key set has the public keys for ES256 signatures and nothing else: there are consumers that refuse the whole set for
// one key of a kind that they do not know.
func TestJWKS(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	first := r.KeyID()
	rotate(t, r)
	if err := r.Adopt(t.Context(), Settings{SigningKeyFile: keyFile(t)}); err != nil {
		t.Fatal(err)
	}
	var set map[string][]map[string]string
	if err := json.Unmarshal(r.JWKS(), &set); err != nil || len(set) != 1 || len(set["keys"]) != 2 {
		t.Fatalf("%s: %v", r.JWKS(), err)
	}
	testKey(t, r, set["keys"][0], first)
	file, err := readKey(r.source.Load().SigningKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	testKey(t, r, set["keys"][1], file.id)
}

func testKey(t *testing.T, r *Ring, k map[string]string, id string) {
	for _, name := range []string{"x", "y"} {
		if raw, err := base64.RawURLEncoding.DecodeString(k[name]); err != nil || len(raw) != 32 {
			t.Errorf("%s: %d bytes, %v, want 32", name, len(raw), err)
		}
		delete(k, name)
	}
	want := map[string]string{"kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": id}
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
	public, ok := parsed.LookupKeyID(id)
	if !ok {
		t.Fatalf("no key %s", id)
	}
	if sum, err := public.Thumbprint(crypto.SHA256); err != nil || encode(sum) != id {
		t.Errorf("kid %s, thumbprint %s, %v", id, encode(sum), err)
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
	for _, row := range []struct {
		held string
		has  bool
	}{
		{etag(r.JWKS()), true}, {"W/" + etag(r.JWKS()), true}, {`"x", ` + etag(r.JWKS()), true}, {"*", true}, {`"x"`, false}, {"", false},
	} {
		w := httptest.NewRecorder()
		req := httptest.NewRequest("GET", "/", nil)
		req.Header.Set("If-None-Match", row.held)
		r.ServeHTTP(w, req)
		if got := w.Code == http.StatusNotModified && w.Body.Len() == 0; got != row.has || w.Header().Get("ETag") != etag(r.JWKS()) {
			t.Errorf("If-None-Match: %s: %d, ETag %s", row.held, w.Code, w.Header().Get("ETag"))
		}
	}
	before := etag(r.JWKS())
	rotate(t, r)
	if after := etag(r.JWKS()); after == before {
		t.Error("another key set has the same tag")
	}
	c.ConsumerCache = 10 * time.Second
	w := httptest.NewRecorder()
	open(t, c).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := w.Header().Get("Cache-Control"); got != "public, max-age=10" {
		t.Errorf("with a consumer cache of 10 s: Cache-Control: %s", got)
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
