package login

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// fake is a provider that signs everybody in at once and says whatever a test wants it to say. Its keys and signatures are real.
type fake struct {
	*world
	document map[string]any                                // changes of the discovery document; nil values take away
	claims   map[string]any                                // of the ID token, likewise
	userinfo map[string]any                                // the whole answer; nil for 404
	token    map[string]any                                // changes of the token endpoint's answer
	sign     func(payload []byte) string                   // nil for RS256 with the provider's key
	refuse   func(w http.ResponseWriter)                   // answers at the token endpoint instead
	answer   url.Values                                    // changes of the parameters of the answer at the callback
	seen     func(endpoint string, r *http.Request) string // an error that the endpoint answers with, "" for none

	mu    sync.Mutex
	codes map[string]url.Values // what was asked for, by code
}

func newFake(t *testing.T) *fake {
	f := &fake{world: newWorldOf(t), codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, change(map[string]any{
			"issuer": f.issuer, "authorization_endpoint": f.issuer + "/authorize", "token_endpoint": f.issuer + "/token",
			"jwks_uri": f.issuer + "/keys", "userinfo_endpoint": f.issuer + "/userinfo", "end_session_endpoint": f.issuer + "/end?x=y",
			"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "none"},
		}, f.document))
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: providerRSA().Public(), KeyID: "1", Algorithm: "RS256", Use: "sig"}}})
	})
	mux.HandleFunc("GET /authorize", f.authorize)
	mux.HandleFunc("POST /token", f.exchange)
	mux.HandleFunc("GET /userinfo", func(w http.ResponseWriter, r *http.Request) {
		if f.userinfo == nil || r.Header.Get("Authorization") != "Bearer access" {
			http.NotFound(w, r)
			return
		}
		writeJSON(w, http.StatusOK, f.userinfo)
	})
	f.idp = mux
	return f
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

// change returns base with changes; nil takes a key away.
func change(base, changes map[string]any) map[string]any {
	base = maps.Clone(base)
	for key, value := range changes {
		base[key] = value
		if value == nil {
			delete(base, key)
		}
	}
	return base
}

func (f *fake) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	f.mu.Lock()
	code := fmt.Sprint("code-", len(f.codes))
	f.codes[code] = q
	f.mu.Unlock()
	answer := url.Values{"code": {code}, "state": {q.Get("state")}}
	for name, values := range f.answer {
		answer[name] = values
	}
	http.Redirect(w, r, q.Get("redirect_uri")+"?"+answer.Encode(), http.StatusFound)
}

func (f *fake) exchange(w http.ResponseWriter, r *http.Request) {
	if f.refuse != nil {
		f.refuse(w)
		return
	}
	f.mu.Lock()
	asked, ok := f.codes[r.FormValue("code")]
	delete(f.codes, r.FormValue("code"))
	f.mu.Unlock()
	sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
	if !ok || asked.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || asked.Get("code_challenge_method") != "S256" {
		writeJSON(w, http.StatusBadRequest, map[string]string{"error": "invalid_grant", "error_description": "unknown code or wrong verifier"})
		return
	}
	if f.seen != nil {
		if refusal := f.seen("token", r); refusal != "" {
			writeJSON(w, http.StatusUnauthorized, map[string]string{"error": "invalid_client", "error_description": refusal})
			return
		}
	}
	now := f.h.Now()
	payload, _ := json.Marshal(change(map[string]any{
		"iss": f.issuer, "aud": "doorward", "sub": "alice", "exp": now.Add(time.Minute).Unix(), "iat": now.Unix(), "nonce": asked.Get("nonce"),
		"email": "alice@example.com", "name": "Alice", "groups": []string{"engineering"},
	}, f.claims))
	sign := f.sign
	if sign == nil {
		sign = f.signed
	}
	writeJSON(w, http.StatusOK, change(map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": sign(payload)}, f.token))
}

func (f *fake) signed(payload []byte) string { return signed(f.T, jose.RS256, providerRSA(), payload) }

// idToken is a token with these claims.
func (f *fake) idToken(claims map[string]any) string {
	payload, err := json.Marshal(claims)
	if err != nil {
		f.Error(err)
	}
	return f.signed(payload)
}

func signed(t *testing.T, alg jose.SignatureAlgorithm, key any, payload []byte) string {
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "1"}}, nil)
	if err != nil {
		t.Error(err)
		return ""
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		t.Error(err)
		return ""
	}
	token, _ := jws.CompactSerialize()
	return token
}

// unsigned is a token with the algorithm none (RFC 7518, section 3.6).
func unsigned(payload []byte) string {
	header := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"1"}`))
	return header + "." + base64.RawURLEncoding.EncodeToString(payload) + "."
}

// refused signs in and wants a page, a cause in the log, and no session.
func (f *fake) refused(what string, status int, title, cause string) answer {
	f.Helper()
	f.log.mu.Lock()
	f.log.b.Reset()
	f.log.mu.Unlock()
	b := f.browser()
	page := b.get(auth + "/x")
	if got, _, _ := strings.Cut(page.text(), "\n"); page.StatusCode != status || got != title {
		f.Errorf("%s: got %d %s, want %d %s", what, page.StatusCode, page.text(), status, title)
	}
	if !f.logged(`msg="sign-in failed"`, cause) {
		f.Errorf("%s: the log has no %q:\n%s", what, cause, f.log.String())
	}
	if b.session(auth) != nil || len(b.cookies(auth, "")) > 1 {
		f.Errorf("%s: session %v, cookies %q", what, b.session(auth), b.cookies(auth, ""))
	}
	return page
}
