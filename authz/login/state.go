package login

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"doorward/authz/session"
)

// What a value is sealed for. A value of one kind never opens as another.
const (
	purposeState   = "state"           // cookie of the auth host: attempt
	purposeFlow    = "flow"            // cookie of another host: flow
	purposeRequest = "handoff-request" // URL, to the auth host: request
	purposeRounds  = "rounds"          // cookie: rounds
	purposeLeave   = "sign-out"        // URL, through the provider: leave
)

const (
	attemptLife = 5 * time.Minute  // of everything sealed for an attempt to sign in
	codeLife    = 60 * time.Second // of a hand-off code
	clockSkew   = 5 * time.Second  // by which a replica's clock may be ahead of ours
	maxCookie   = 2048             // bytes of a cookie's name and value
	maxAttempts = 5                // cookies of one kind that a browser carries
	maxCleared  = 50               // cookies cleared in one response
)

// Names of the cookies of an attempt, followed by its id: 8 hexadecimal digits.
const (
	stateCookie = session.CookieName + "-state-"
	flowCookie  = session.CookieName + "-flow-"
)

// attempt is one sign-in with the provider. Exactly one of Return and Handoff is set.
type attempt struct {
	State    []byte         `json:"s"`           // SHA-256 of the state parameter
	Provider string         `json:"p"`           // the provider that was asked, by its name
	Issuer   string         `json:"i"`           // and by its issuer
	Verifier string         `json:"v"`           // PKCE
	Nonce    string         `json:"n"`           //
	Return   string         `json:"r,omitempty"` // path and query on the auth host
	Handoff  *request       `json:"h,omitempty"`
	Demand   session.Demand `json:"d,omitzero"` // what the session has to meet
}

// flow is one hand-off, as the host remembers it that gets the session.
type flow struct {
	Host   string `json:"h"`
	Nonce  []byte `json:"n"`
	Return string `json:"r"`
}

// request asks the auth host for a hand-off.
type request struct {
	Host   string         `json:"h"`
	Nonce  []byte         `json:"n"` // SHA-256 of the flow's
	Flow   string         `json:"f"` // id of the flow
	Demand session.Demand `json:"d,omitzero"`
}

// envelope is what is sealed: when, and what.
type envelope struct {
	Made    int64           `json:"t"` // Unix microseconds
	Content json.RawMessage `json:"c"`
}

// seal returns content in base64url.
func (h *Handler) seal(purpose string, content any) string {
	return encoded(h.Sealer.Seal(purpose, encode(envelope{h.Now().UnixMicro(), encode(content)})))
}

// encode encodes a value of this package's own types. They hold strings, bytes and numbers, which always encode.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("login: encode: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

var (
	errSealed  = errors.New("it was not sealed by us for this")
	errExpired = errors.New("it has expired")
)

// open reads what seal returned, no longer than life after it was sealed, and says when that was.
func (h *Handler) open(purpose, sealed string, life time.Duration, content any) (time.Time, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(sealed)
	if err != nil {
		return time.Time{}, errSealed
	}
	plain, err := h.Sealer.Open(purpose, raw)
	if err != nil {
		return time.Time{}, errSealed
	}
	var e envelope
	if err := json.Unmarshal(plain, &e); err != nil {
		return time.Time{}, errSealed
	}
	made := time.UnixMicro(e.Made)
	if age := h.Now().Sub(made); age >= life || age < -clockSkew {
		return time.Time{}, errExpired
	}
	if err := json.Unmarshal(e.Content, content); err != nil {
		return time.Time{}, errSealed
	}
	return made, nil
}

// keep sets the cookie of an attempt, and clears old ones so that no more than maxAttempts remain. An error means that the value is
// too long.
func (h *Handler) keep(v *visit, prefix, purpose, id string, content any) error {
	c := cookie(prefix+id, h.seal(purpose, content), attemptLife)
	if n := len(c.Name) + len(c.Value); n > maxCookie {
		return fmt.Errorf("cookie %s has %d bytes, the limit is %d", prefix, n, maxCookie)
	}
	type held struct {
		name string
		made time.Time // zero when it does not open or has expired
	}
	var all []held
	for _, old := range v.r.Cookies() {
		if strings.HasPrefix(old.Name, prefix) {
			made, _ := h.open(purpose, old.Value, attemptLife, new(json.RawMessage))
			all = append(all, held{old.Name, made})
		}
	}
	slices.SortFunc(all, func(a, b held) int { return cmp.Or(b.made.Compare(a.made), strings.Compare(a.name, b.name)) })
	for i, old := range all {
		if (i >= maxAttempts-1 || old.made.IsZero()) && i < maxCleared {
			v.clear(old.name)
		}
	}
	http.SetCookie(v.w, c)
	return nil
}

// recall opens the cookie of an attempt, if the browser has it.
func (h *Handler) recall(v *visit, prefix, purpose, id string, content any) (time.Time, error) {
	if !isID(id) {
		return time.Time{}, errors.New("no attempt is named")
	}
	found := v.r.CookiesNamed(prefix + id)
	if len(found) != 1 {
		return time.Time{}, fmt.Errorf("the browser sent %d cookies %s%s, want one", len(found), prefix, id)
	}
	made, err := h.open(purpose, found[0].Value, attemptLife, content)
	if err != nil {
		return made, fmt.Errorf("cookie %s%s: %w", prefix, id, err)
	}
	return made, nil
}

// clear takes a cookie from the browser.
func (v *visit) clear(name string) {
	c := cookie(name, "", 0)
	c.MaxAge = -1
	http.SetCookie(v.w, c)
}

// cookie is host-only by its name's prefix. Lax, because the provider's redirect comes from another site.
func cookie(name, value string, life time.Duration) *http.Cookie {
	return &http.Cookie{
		Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second),
		Secure: true, HttpOnly: true, SameSite: http.SameSiteLaxMode,
	}
}

// newID names an attempt. It only tells attempts of one browser apart.
func newID() string { return hex.EncodeToString(random(4)) }

func isID(s string) bool { return len(s) == 8 && strings.Trim(s, "0123456789abcdef") == "" }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails (crypto/rand)
	return b
}

// randomText is 128 random bits in base64url.
func randomText() string { return encoded(random(16)) }

// encoded is base64url without padding.
func encoded(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func hash(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// hashes says whether sum is the SHA-256 of b.
func hashes(sum, b []byte) bool { return subtle.ConstantTimeCompare(sum, hash(b)) == 1 }
