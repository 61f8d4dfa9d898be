package token

import (
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"
)

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
