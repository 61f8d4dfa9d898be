package login

import (
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/store/bolt"
	"doorward/authz/web"

	"github.com/go-jose/go-jose/v4"
)

// newSettings has the hosts of world.
func newSettings(t testing.TB) Settings {
	t.Helper()
	u := func(s string) config.URL {
		parsed, err := config.ParseURL(s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	return Settings{
		Prefix: prefix, AuthURL: u(auth), Lifetime: time.Hour, IDPs: config.IDPs{{Issuer: u("http://127.0.0.1:1"), ClientID: "doorward"}},
		Origin: originOf(map[string]config.URL{authHost: u(auth), "grafana.example.com": u(grafana), "wiki.example.com": u(wiki)}),
	}
}

// originOf finds hosts in a map.
func originOf(hosts map[string]config.URL) func(string) config.URL {
	return func(host string) config.URL { return hosts[host] }
}

// alone is a handler whose provider cannot be reached.
func alone(t testing.TB) *world {
	t.Helper()
	dir := t.TempDir()
	db, err := bolt.Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	sealer, err := session.OpenSealer(filepath.Join(dir, "key"))
	if err != nil {
		t.Fatal(err)
	}
	sessions, err := session.New(session.Config{Store: db, Sealer: sealer})
	if err != nil {
		t.Fatal(err)
	}
	pages, err := web.New(web.Brand{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{}
	settings := newSettings(t)
	w.h, err = New(Config{Settings: func() Settings { return settings }, Sessions: sessions, Store: db, Sealer: sealer, Pages: pages,
		Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// FuzzState gives what is sealed to open, bent in every way: only the value itself opens, and only as its kind.
func FuzzState(f *testing.F) {
	w := alone(f)
	want := attempt{State: []byte("s"), Return: "/x"}
	good := w.h.seal(purposeState, want)
	for _, seed := range []string{good, good[1:], good + "=", strings.ToLower(good), "", "AQ", strings.Repeat("A", 100)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, sealed string) {
		var got attempt
		if _, err := w.h.open(purposeState, sealed, time.Hour, &got); (err == nil) != (sealed == good) {
			t.Fatalf("%q opened as %v: %v", sealed, got, err)
		}
		for _, purpose := range []string{purposeFlow, purposeRequest, purposeRounds, purposeLeave} {
			if _, err := w.h.open(purpose, sealed, time.Hour, &got); err == nil {
				t.Fatalf("%q opened as %s", sealed, purpose)
			}
		}
	})
}

// FuzzCallback sends anything to every path of ours, with cookies of the names that we look for: nobody becomes signed in, nobody is
// redirected to a host that we do not have, and no answer lacks its headers.
func FuzzCallback(f *testing.F) {
	w := alone(f)
	state := "00000000." + strings.Repeat("A", 22)
	sealed := w.h.seal(purposeState, attempt{State: hash([]byte(state)), Issuer: "http://127.0.0.1:1", Return: "/x"})
	flowed := w.h.seal(purposeFlow, flow{Host: "grafana.example.com", Nonce: []byte("n"), Return: "/x"})
	for _, seed := range [][4]string{
		{"/callback", "state=" + state + "&code=x", stateCookie + "00000000", sealed}, {"/callback", "state=" + state + "&error=x&error_description=%3Cb%3E", stateCookie + "00000000", sealed},
		{"/redeem", "flow=00000000&code=" + strings.Repeat("A", 43), flowCookie + "00000000", flowed}, {"/sign_in", "return=%2F%2Fevil.example", roundsCookie, sealed},
		{"/sign_in", "request=" + sealed, "x", "y"}, {"/signed_out", "state=" + sealed, session.CookieName, "x"}, {"/sign_out", "redirect_uri=https%3A%2F%2Fevil.example", "x", "y"},
		{"/", "", session.CookieName, strings.Repeat("A", 43)}, {"/return", "attempt=x", "", ""},
	} {
		f.Add(seed[0], seed[1], seed[2], seed[3])
	}
	f.Fuzz(func(t *testing.T, path, query, name, value string) {
		for _, host := range []string{authHost, "grafana.example.com"} {
			a := w.callURL("GET", host, &url.URL{Path: prefix + path, RawQuery: query}, http.Header{"Cookie": {name + "=" + value}})
			for _, c := range a.Cookies() {
				if c.Name == session.CookieName && c.Value != "" {
					t.Fatalf("signed in by %s?%s", path, query)
				}
			}
			if location := a.Header.Get("Location"); location != "" {
				u, err := url.Parse(location)
				if err != nil || u.Scheme != "https" || !slices.Contains([]string{authHost, "grafana.example.com", "wiki.example.com"}, u.Host) {
					t.Fatalf("%s?%s was redirected to %s", path, query, location)
				}
			}
			if a.Header.Get("Cache-Control") != "no-store" || a.Header.Get("Referrer-Policy") != "no-referrer" || a.Header.Get("Content-Security-Policy") == "" {
				t.Fatalf("%s?%s: headers %v", path, query, a.Header)
			}
		}
	})
}

// inProcess answers without a network.
type inProcess struct{ http.Handler }

func (p inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := httptest.NewRecorder()
	p.ServeHTTP(answer, r)
	return answer.Result(), nil
}

// FuzzLogoutToken bends a good logout token in every way: nothing but itself signs anybody out. The token is the same in every process, of
// which a long run has several, so that each bends one that it would take.
func FuzzLogoutToken(f *testing.F) {
	const issuer = "https://idp.example.com"
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, map[string]any{"issuer": issuer, "authorization_endpoint": issuer + "/a", "token_endpoint": issuer + "/t", "jwks_uri": issuer + "/keys",
			"id_token_signing_alg_values_supported": []string{"EdDSA"}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "1", Algorithm: "EdDSA", Use: "sig"}}})
	})
	w := alone(f)
	w.h.providers.client = &http.Client{Transport: inProcess{mux}}
	settings := newSettings(f)
	settings.IDPs[0].Issuer, _ = config.ParseURL(issuer)
	w.h.Config.Settings = func() Settings { return settings }
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w.h.Config.Now = func() time.Time { return now }
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		f.Fatal(err)
	}
	payload := fmt.Sprintf(`{"iss":%q,"aud":"doorward","iat":%d,"exp":%d,"jti":"j","sid":"s","events":{%q:{}}}`, issuer, now.Unix(), now.Add(50*time.Minute).Unix(), logoutEvent)
	jws, err := signer.Sign([]byte(payload))
	if err != nil {
		f.Fatal(err)
	}
	good, _ := jws.CompactSerialize()
	taken := false
	for _, seed := range []string{good, good + ".", strings.ToUpper(good), good[1:], strings.Replace(good, ".", "..", 1), "..", "a.b.c", unsigned([]byte(payload))} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, token string) {
		r := httptest.NewRequest("POST", auth+prefix+"/backchannel_logout", strings.NewReader(url.Values{"logout_token": {token}}.Encode()))
		r.Header.Set("X-Doorward-Sni", authHost)
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		answer := httptest.NewRecorder()
		if w.h.ServeHTTP(answer, r); answer.Code == http.StatusOK && !slices.Equal(decoded(token), decoded(good)) {
			t.Fatalf("%q was taken for %q", token, good)
		} else if token == good && answer.Code != http.StatusOK && !taken {
			t.Fatalf("the token itself was refused: %d %s", answer.Code, answer.Body)
		}
		taken = taken || token == good
	})
}

// decoded are the parts of a token, since base64 has several ways to write one.
func decoded(token string) (parts []string) {
	for part := range strings.SplitSeq(token, ".") {
		text, _ := base64.RawURLEncoding.DecodeString(part)
		parts = append(parts, string(text))
	}
	return parts
}
