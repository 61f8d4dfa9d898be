package bearer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"

	jose "github.com/go-jose/go-jose/v4"
)

// authority is an issuer with real keys, over HTTP, that counts how often its keys are asked for.
type authority struct {
	*httptest.Server
	asked atomic.Int64

	mu   sync.Mutex // guards what follows
	keys []jose.JSONWebKey
	down bool
}

var (
	rsaKey   = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 2048)) })
	rsaShort = sync.OnceValue(func() *rsa.PrivateKey { return must(rsa.GenerateKey(rand.Reader, 1024)) })
	ecKey    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)) })
	ec384    = sync.OnceValue(func() *ecdsa.PrivateKey { return must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader)) })
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func public(kid string, key crypto.PublicKey) jose.JSONWebKey {
	return jose.JSONWebKey{KeyID: kid, Key: key, Use: "sig"}
}

func newAuthority(t testing.TB, keys ...jose.JSONWebKey) *authority {
	a := &authority{keys: keys}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		switch {
		case a.down:
			http.Error(w, "down", http.StatusServiceUnavailable)
		case r.URL.Path == "/.well-known/openid-configuration":
			fmt.Fprintf(w, `{"issuer": %q, "jwks_uri": %q}`, a.URL, a.URL+"/keys")
		default:
			a.asked.Add(1)
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: a.keys})
		}
	}))
	t.Cleanup(a.Close)
	return a
}

func (a *authority) set(down bool, keys ...jose.JSONWebKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down, a.keys = down, keys
}

// office is Issuers that know authorities, with a clock that the test sets.
type office struct {
	*Issuers
	t     testing.TB
	ahead atomic.Int64
}

func newOffice(t testing.TB, issuers ...config.TokenIssuer) *office {
	t.Helper()
	o := &office{t: t}
	var err error
	if o.Issuers, err = NewIssuers(IssuersConfig{Log: slog.New(slog.DiscardHandler), Now: o.now}); err != nil {
		t.Fatal(err)
	}
	o.adopt(issuers...)
	return o
}

func (o *office) now() time.Time { return time.Now().Add(time.Duration(o.ahead.Load())) }

func (o *office) adopt(issuers ...config.TokenIssuer) {
	o.t.Helper()
	set, err := o.Prepare(issuers)
	if err != nil {
		o.t.Fatal(err)
	}
	o.Adopt(set)
}

func (o *office) find(token string, names ...string) (*session.Session, error) {
	o.t.Helper()
	if names == nil {
		names = []string{"ci"}
	}
	return o.Issuers.find(o.t.Context(), token, names)
}

func of(t testing.TB, a *authority, name string, audiences ...string) config.TokenIssuer {
	t.Helper()
	u, err := config.ParseURL(a.URL)
	if err != nil {
		t.Fatal(err)
	}
	return config.TokenIssuer{Name: name, Issuer: u, Audiences: audiences, Algorithms: config.Names{"RS256", "ES256"}, GroupsClaim: "realm_access.roles"}
}

// claim is a token's content, changed by a test.
type claim map[string]any

func (a *authority) claims(change ...claim) claim {
	c := claim{
		"iss": a.URL, "sub": "robot", "aud": "doorward", "exp": time.Now().Add(time.Hour).Unix(), "iat": time.Now().Unix(),
		"email": "robot@example.com", "email_verified": true, "name": "Robot", "scope": "read", "realm_access": map[string]any{"roles": []string{"robots"}}, "jti": "1",
	}
	for _, more := range change {
		maps.Copy(c, more)
	}
	maps.DeleteFunc(c, func(_ string, v any) bool { return v == nil })
	return c
}

// sign makes a token, with any header and by any key: what a library would refuse to make is what is tried here.
func sign(key any, header map[string]any, claims any) string {
	part := func(v any) string { return base64.RawURLEncoding.EncodeToString(must(json.Marshal(v))) }
	text := part(header) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(signature(key, text))
}

func signature(key any, text string) []byte {
	digest := func(hash crypto.Hash) []byte {
		h := hash.New()
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	switch k := key.(type) {
	case *rsa.PrivateKey:
		return must(rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, digest(crypto.SHA256)))
	case *ecdsa.PrivateKey:
		size, hash := (k.Curve.Params().BitSize+7)/8, crypto.SHA256
		if size > 32 {
			hash = crypto.SHA384
		}
		r, s, err := ecdsa.Sign(rand.Reader, k, digest(hash))
		return must(append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...), err)
	case []byte:
		h := hmac.New(sha256.New, k)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	return nil
}

func es256(more ...claim) map[string]any { return header("ES256", "ec", more...) }

func header(alg, kid string, more ...claim) map[string]any {
	h := map[string]any{"alg": alg, "kid": kid, "typ": "at+jwt"}
	for _, m := range more {
		maps.Copy(h, m)
	}
	maps.DeleteFunc(h, func(_ string, v any) bool { return v == nil })
	return h
}

func TestJWT(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()), public("rsa", rsaKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward", "other"))
	for name, token := range map[string]string{
		"ES256":                         sign(ecKey(), es256(), a.claims()),
		"RS256":                         sign(rsaKey(), header("RS256", "rsa"), a.claims()),
		"several audiences":             sign(ecKey(), es256(), a.claims(claim{"aud": []string{"x", "other"}})),
		"no kid":                        sign(ecKey(), es256(claim{"kid": nil}), a.claims()),
		"no typ":                        sign(ecKey(), es256(claim{"typ": nil}), a.claims()),
		"typ JWT":                       sign(ecKey(), es256(claim{"typ": "JWT"}), a.claims()),
		"typ as a media type":           sign(ecKey(), es256(claim{"typ": "application/at+jwt"}), a.claims()),
		"an issuer whose clock is fast": sign(ecKey(), es256(), a.claims(claim{"iat": time.Now().Add(20 * time.Second).Unix(), "nbf": time.Now().Add(20 * time.Second).Unix()})),
		"a key of its own in the header, which is not looked at": sign(ecKey(), es256(claim{"jku": "https://evil.example.com"}), a.claims()),
	} {
		found, err := o.find(token)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if u := found.User; u.ID != "ci:robot" || u.Email != "robot@example.com" || !u.EmailVerified || u.Name != "Robot" || !slices.Equal(u.Groups, []string{"robots"}) {
			t.Errorf("%s: the user is %+v", name, u)
		}
		if c := found.User.Claims; c["scope"] != "read" || c["jti"] != nil || c["aud"] != nil {
			t.Errorf("%s: the claims are %v", name, c)
		}
		if again, err := o.find(token); err != nil || again != found {
			t.Errorf("%s: it was verified again: %v", name, err)
		}
		if live, err := o.live(found.ID); err != nil || live != found {
			t.Errorf("%s: it does not live: %v", name, err)
		}
	}
	found, err := o.find(sign(ecKey(), es256(), a.claims(claim{"email_verified": false})))
	if err != nil || found.User.Email != "" || found.User.EmailVerified {
		t.Errorf("an e-mail that is not verified: %+v, %v", found, err)
	}
	if n := a.asked.Load(); n != 1 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestBadJWT: each differs from a good one in what its name says.
func TestBadJWT(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()), public("rsa", rsaKey().Public()), public("short", rsaShort().Public()), public("ec384", ec384().Public()),
		jose.JSONWebKey{KeyID: "oct", Key: []byte("0123456789abcdef0123456789abcdef")},
		jose.JSONWebKey{KeyID: "enc", Key: rsaKey().Public(), Use: "enc"},
		jose.JSONWebKey{KeyID: "ps", Key: rsaKey().Public(), Algorithm: "PS256"})
	other := newAuthority(t, public("other", ec384().Public()), public("ec", must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)).Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"), of(t, other, "other", "doorward"), of(t, a, "narrow", "narrow"))
	good := sign(ecKey(), es256(), a.claims())
	if _, err := o.find(good); err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(good, ".")
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	der := must(x509.MarshalPKIXPublicKey(rsaKey().Public()))
	for name, row := range map[string]struct{ token, want string }{
		"alg none":                             {sign(nil, header("none", "ec"), a.claims()), `its algorithm is "none", which the issuer ci does not use here`},
		"alg None in other letters":            {sign(nil, header("nOnE", "ec"), a.claims()), `its algorithm is "nOnE"`},
		"no alg":                               {sign(ecKey(), es256(claim{"alg": nil}), a.claims()), `its algorithm is ""`},
		"alg that is no text":                  {sign(ecKey(), es256(claim{"alg": 1}), a.claims()), "header has a alg that is no text"},
		"HMAC by the public key":               {sign(der, header("HS256", "rsa"), a.claims()), `its algorithm is "HS256"`},
		"HMAC by a secret in the set":          {sign([]byte("0123456789abcdef0123456789abcdef"), header("HS256", "oct"), a.claims()), `its algorithm is "HS256"`},
		"ES256 by an RSA key's id":             {sign(ecKey(), header("ES256", "rsa"), a.claims()), `the issuer ci has no key "rsa" for ES256`},
		"RS256 by an EC key's id":              {sign(rsaKey(), header("RS256", "ec"), a.claims()), `the issuer ci has no key "ec" for RS256`},
		"an algorithm that is not configured":  {sign(ec384(), header("ES384", "ec384"), a.claims()), `its algorithm is "ES384"`},
		"ES256 by a key of another curve":      {sign(ecKey(), header("ES256", "ec384"), a.claims()), `the issuer ci has no key "ec384" for ES256`},
		"an RSA key of 1024 bits":              {sign(rsaShort(), header("RS256", "short"), a.claims()), `the issuer ci has no key "short" for RS256`},
		"a key for encryption":                 {sign(rsaKey(), header("RS256", "enc"), a.claims()), `the issuer ci has no key "enc" for RS256`},
		"a key for another algorithm":          {sign(rsaKey(), header("RS256", "ps"), a.claims()), `the issuer ci has no key "ps" for RS256`},
		"another issuer's kid":                 {sign(ec384(), header("ES256", "other"), a.claims()), `the issuer ci has no key "other" for ES256`},
		"the same kid by another issuer's key": {sign(ecKey(), es256(), other.claims()), "its issuer is"},
		"another key":                          {sign(must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), es256(), a.claims()), "its signature is not by the issuer ci"},
		"crit":                                 {sign(ecKey(), es256(claim{"crit": []string{"exp"}}), a.claims()), "header has crit, which is not understood"},
		"b64":                                  {sign(ecKey(), es256(claim{"b64": false}), a.claims()), "header has b64, which is not understood"},
		"a logout token":                       {sign(ecKey(), es256(claim{"typ": "logout+jwt"}), a.claims()), `its typ is "logout+jwt", not at+jwt or JWT`},
		"a security event":                     {sign(ecKey(), es256(claim{"typ": "secevent+jwt"}), a.claims()), `its typ is "secevent+jwt"`},
		"events":                               {sign(ecKey(), es256(), a.claims(claim{"events": claim{}})), "it has events, so it is no bearer token"},
		"an ID token":                          {sign(ecKey(), es256(), a.claims(claim{"at_hash": "x"})), "it has at_hash, so it is an ID token and no access token"},
		"Keycloak's ID token":                  {sign(ecKey(), es256(claim{"typ": "JWT"}), a.claims(claim{"typ": "ID"})), `its claim typ is "id", so it is no access token`},
		"Cognito's ID token":                   {sign(ecKey(), es256(), a.claims(claim{"token_use": "id"})), `its claim token_use is "id", so it is no access token`},
		"bound to a key":                       {sign(ecKey(), es256(), a.claims(claim{"cnf": claim{"jkt": "x"}})), "it has cnf, so it is no bearer token"},
		"another audience":                     {sign(ecKey(), es256(), a.claims(claim{"aud": "narrow"})), "it is for another audience than those of the issuer ci here"},
		"no audience":                          {sign(ecKey(), es256(), a.claims(claim{"aud": nil})), "it is for another audience"},
		"an audience that is an object":        {sign(ecKey(), es256(), a.claims(claim{"aud": claim{"doorward": true}})), "it is for another audience"},
		"an audience that begins so":           {sign(ecKey(), es256(), a.claims(claim{"aud": "doorward2"})), "it is for another audience"},
		"an issuer that is not configured":     {sign(ecKey(), es256(), a.claims(claim{"iss": "https://evil.example.com"})), `its issuer is "https://evil.example.com", of which the route takes no tokens`},
		"the issuer with a slash behind it":    {sign(ecKey(), es256(), a.claims(claim{"iss": a.URL + "/"})), "its issuer is"},
		"ISS in capitals":                      {sign(ecKey(), es256(), a.claims(claim{"iss": nil, "ISS": a.URL})), `its issuer is ""`},
		"expired":                              {sign(ecKey(), es256(), a.claims(claim{"exp": in(-time.Second)})), "it has expired at"},
		"no exp":                               {sign(ecKey(), es256(), a.claims(claim{"exp": nil})), "it has no exp: it would be good for ever"},
		"exp as a text":                        {sign(ecKey(), es256(), a.claims(claim{"exp": "4102444800"})), "one of exp, nbf and iat is no date"},
		"exp beyond all time":                  {sign(ecKey(), es256(), a.claims(claim{"exp": 1e300})), "one of exp, nbf and iat is no date"},
		"not yet good":                         {sign(ecKey(), es256(), a.claims(claim{"nbf": in(time.Minute)})), "it is not good before"},
		"issued in the future":                 {sign(ecKey(), es256(), a.claims(claim{"iat": in(time.Minute)})), "it was issued at"},
		"no sub":                               {sign(ecKey(), es256(), a.claims(claim{"sub": nil})), "its sub must be a text of 1 to 255 bytes"},
		"a long sub":                           {sign(ecKey(), es256(), a.claims(claim{"sub": strings.Repeat("a", 256)})), "its sub must be a text of 1 to 255 bytes"},
		"groups elsewhere":                     {sign(ecKey(), es256(), a.claims(claim{"_claim_names": claim{"realm_access.roles": "src1"}})), "the issuer sent a link in place of the groups"},
		"other claims, signed by nobody":       {parts[0] + "." + strings.Split(sign(ecKey(), es256(), a.claims(claim{"sub": "root"})), ".")[1] + "." + parts[2], "its signature is not by the issuer ci"},
		"no signature":                         {parts[0] + "." + parts[1] + ".", "its signature is not by the issuer ci"},
		"two parts":                            {parts[0] + "." + parts[1], "it is no service token and no signed JWT"},
		"four parts":                           {good + ".x", "it is no service token and no signed JWT"},
		"encrypted":                            {good + ".x.y", "it is no service token and no signed JWT"},
		"padding":                              {parts[0] + "=." + parts[1] + "." + parts[2], "the JWT's header: it is no base64url of a JSON object"},
		"claims that are a list":               {sign(ecKey(), es256(), []int{1}), "the JWT's claims: it is no base64url of a JSON object"},
		"two objects":                          {parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte("{}{}")) + "." + parts[2], "the JWT's claims: it is no base64url of a JSON object"},
		"JSON serialisation":                   {`{"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`, "it is no service token and no signed JWT"},
	} {
		found, err := o.find(row.token)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(fmt.Sprint(err), row.want) || found != nil {
			t.Errorf("%s: %v, want %s", name, err, row.want)
		}
	}
	if _, err := o.find(good, "other", "narrow"); !errors.Is(err, ErrInvalid) {
		t.Errorf("a route that takes no tokens of the issuer: %v", err)
	}
	if n := a.asked.Load(); n > 2 {
		t.Errorf("the keys were fetched %d times", n)
	}
}

// TestSameIssuerTwice tells apart by audience what a route takes.
func TestSameIssuerTwice(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"), of(t, a, "narrow", "narrow"))
	token := sign(ecKey(), es256(), a.claims(claim{"aud": "narrow"}))
	found, err := o.find(token, "ci", "narrow")
	if err != nil || found.User.ID != "narrow:robot" {
		t.Fatalf("%+v, %v", found, err)
	}
	if _, err := o.find(token, "ci"); !errors.Is(err, ErrInvalid) {
		t.Errorf("on a route of the other: %v", err)
	}
}

// TestExpiryEndsWhatWasVerified: remembering a token does not make it good for longer.
func TestExpiryEndsWhatWasVerified(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	o := newOffice(t, of(t, a, "ci", "doorward"))
	token := sign(ecKey(), es256(), a.claims(claim{"exp": time.Now().Add(time.Minute).Unix()}))
	found, err := o.find(token)
	if err != nil {
		t.Fatal(err)
	}
	o.ahead.Store(int64(time.Minute))
	if _, err := o.find(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("after its time: %v", err)
	}
	if _, err := o.live(found.ID); !errors.Is(err, session.ErrNone) {
		t.Errorf("after its time it lives: %v", err)
	}
}

// TestConfigurationChangesWhatATokenIs: no session of one configuration is taken for one of another.
func TestConfigurationChangesWhatATokenIs(t *testing.T) {
	a := newAuthority(t, public("ec", ecKey().Public()))
	i := of(t, a, "ci", "doorward")
	o := newOffice(t, i)
	token := sign(ecKey(), es256(), a.claims(claim{"teams": []string{"blue"}}))
	before, err := o.find(token)
	if err != nil {
		t.Fatal(err)
	}
	i.GroupsClaim = "teams"
	o.adopt(i)
	after, err := o.find(token)
	if err != nil || !slices.Equal(after.User.Groups, []string{"blue"}) || after.ID == before.ID || after.Version == before.Version {
		t.Errorf("%+v, %v", after, err)
	}
	i.Audiences = config.Names{"elsewhere"}
	o.adopt(i)
	if _, err := o.find(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("with another audience: %v", err)
	}
	o.adopt()
	if _, err := o.find(token); !errors.Is(err, ErrInvalid) {
		t.Errorf("without the issuer: %v", err)
	}
}
