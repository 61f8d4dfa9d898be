// Package session holds the sign-ins: one record per sign-in, one record per cookie that points to a session and a host.
//
// The cookie's value is 256 random bits; the store has only its SHA-256. Every record is sealed, and for its own key, so that a copy
// of the store gives no identity away and a changed one none in. The package knows nothing of OpenID Connect or of HTTP handlers:
// login creates sessions, authz looks them up.
//
// What a lookup has read stays in memory, packed, until the store reports a change of it. A revocation is in force in this process
// when Revoke returns, in others as soon as their store tells them.
package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"doorward/authz/store"
)

// CookieName is host-only by its prefix (RFC 6265bis, section 4.1.3.2).
const CookieName = "__Host-doorward"

var (
	// ErrNone says that the cookie belongs to no live session on that host: unknown, expired, revoked, or another host's.
	ErrNone = errors.New("no session")
	// ErrRevoked is Create's answer to a sign-in whose provider session was signed out while it was under way.
	ErrRevoked = errors.New("signed out meanwhile")
)

// User is the person or program that signed in, as policies see them.
type User struct {
	ID            string         `json:"id"` // the JWT's sub: the provider's, prefixed by the provider's name for every provider but the first
	Email         string         `json:"email"`
	EmailVerified bool           `json:"email_verified"`
	Name          string         `json:"name"`
	Groups        []string       `json:"groups"` // never nil
	Claims        map[string]any `json:"claims"` // the ID token's and userinfo's, without protocol claims (nonce, at_hash, ...); never nil; numbers are json.Number
}

// Session is one sign-in. Values that Find returns are shared: they are never changed.
type Session struct {
	ID       string    `json:"id"` // 128 random bits in hex; names the record, opens nothing; logged only as its hash
	Version  uint64    `json:"-"`  // of the stored record; changes when the identity does
	Provider string    `json:"provider"`
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"`           // the provider's sub, without prefix
	SID      string    `json:"sid"`               // the provider's session id, "" when it has none
	Browser  string    `json:"browser,omitempty"` // of sessions that end together: those that one browser has of several providers; "" for none
	Agent    string    `json:"agent,omitempty"`   // the browser, in words for the person; not to be relied on
	User     User      `json:"user"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	AuthTime time.Time `json:"auth_time"` // zero when the provider did not say
	AMR      []string  `json:"amr"`
	ACR      string    `json:"acr"`
	Tokens   Tokens    `json:"-"` // only Load and Create return them

	// Started is read by Create only: when the sign-in began, by our clock and to the microsecond, as its state remembers. A sign-out of
	// the same provider session or subject at that moment or later refuses it with ErrRevoked; one before does not, so that a person can sign in
	// again at once. The zero value counts as before every sign-out.
	Started time.Time `json:"-"`

	// RefreshAt is read by Create only: when the tokens are to be refreshed for the first time. Zero means never.
	RefreshAt time.Time `json:"-"`
}

// Tokens are the provider's, kept for refresh and for RP-initiated sign-out. They print as "[redacted]".
type Tokens struct {
	ID      string
	Access  string
	Refresh string
	Expiry  time.Time
}

const redacted = "[redacted]"

// String keeps the tokens out of anything printed.
func (Tokens) String() string { return redacted }

// GoString keeps the tokens out of %#v.
func (Tokens) GoString() string { return redacted }

// LogValue keeps the tokens out of logs.
func (Tokens) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON keeps the tokens out of anything encoded.
func (Tokens) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Config is what Sessions need.
type Config struct {
	Store  store.Store
	Sealer *Sealer
	Idle   func() time.Duration // how long a session may be unused, 0 for any time; nil for any time
	Now    func() time.Time     // time.Now when nil
}

// Sessions is safe for concurrent use.
type Sessions struct {
	store     store.Store
	sealer    *Sealer
	now       func() time.Time
	idleLimit func() time.Duration
	uses      uses
	cache     cache
	asking    chan struct{} // one element for each lookup that is asking the store
}

// New returns Sessions that find nothing in their cache yet. Run must be running for as long as they are used: without it every lookup
// asks the store.
func New(c Config) (*Sessions, error) {
	if c.Store == nil || c.Sealer == nil {
		return nil, errors.New("session: Store and Sealer are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Idle == nil {
		c.Idle = func() time.Duration { return 0 }
	}
	return &Sessions{
		store:     c.Store,
		sealer:    c.Sealer,
		now:       c.Now,
		uses:      newUses(),
		idleLimit: c.Idle,
		cache:     cache{max: usualBounds()},
		asking:    make(chan struct{}, maxAsking),
	}, nil
}

// Load returns the live session with its Tokens, or ErrNone.
func (s *Sessions) Load(ctx context.Context, id string) (*Session, error) {
	session, _, err := s.read(ctx, id)
	if err != nil {
		return nil, err
	}
	item, err := s.store.Get(ctx, tokensKey(id))
	if err != nil {
		return nil, absent("read the tokens of a session", err)
	}
	if err := s.open(item, (*storedTokens)(&session.Tokens)); err != nil {
		return nil, err
	}
	return session, nil
}

// HashID is how a session is named in logs, policies and pages: the first 16 hexadecimal digits of the SHA-256 of its ID.
func HashID(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:8])
}
