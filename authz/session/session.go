// Package session holds the sign-ins: one record per sign-in, one record per cookie that points to a session and a host.
//
// The cookie's value is 256 random bits; the store has only its SHA-256. The provider's tokens are sealed. The package knows nothing
// of OpenID Connect or HTTP handlers: login creates sessions, authz looks them up.
package session

import (
	"context"
	"errors"
	"time"

	"doorward/authz/store"
)

// CookieName is host-only by its prefix (RFC 6265bis, section 4.1.3.2).
const CookieName = "__Host-doorward"

// ErrNone says that the cookie belongs to no live session on that host: unknown, expired, revoked, or another host's.
var ErrNone = errors.New("no session")

// User is the person or program that signed in, as policies see them.
type User struct {
	ID            string         `json:"id"` // the JWT's sub: the provider's, prefixed by the provider's name for every provider but the first
	Email         string         `json:"email"`
	EmailVerified bool           `json:"email_verified"`
	Name          string         `json:"name"`
	Groups        []string       `json:"groups"` // never nil
	Claims        map[string]any `json:"claims"` // the ID token's and userinfo's, without protocol claims (nonce, at_hash, ...)
}

// Session is one sign-in. Values that Find returns are shared: they are never changed.
type Session struct {
	ID       string    `json:"id"` // 128 random bits in hex; names the record, opens nothing; logged only as its hash
	Version  uint64    `json:"-"`  // of the stored record; changes when the identity does
	Provider string    `json:"provider"`
	Issuer   string    `json:"issuer"`
	Subject  string    `json:"subject"` // the provider's sub, without prefix
	SID      string    `json:"sid"`     // the provider's session id, "" when it has none
	User     User      `json:"user"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	AuthTime time.Time `json:"auth_time"` // zero when the provider did not say
	AMR      []string  `json:"amr"`
	ACR      string    `json:"acr"`
	Tokens   Tokens    `json:"-"` // stored sealed
}

// Tokens are the provider's, kept for refresh and for RP-initiated sign-out. They print as "[redacted]".
type Tokens struct {
	ID      string
	Access  string
	Refresh string
	Expiry  time.Time
}

// Config is what Sessions need.
type Config struct {
	Store  store.Store
	Sealer *Sealer
	Now    func() time.Time // time.Now when nil
}

// Sessions is safe for concurrent use.
type Sessions struct{}

// New returns Sessions that find nothing in their cache yet. Run must be running for as long as they are used.
func New(c Config) (*Sessions, error) { panic("unwritten") }

// Run drops cached sessions as the store reports changes, and collects expired records, until ctx ends.
func (s *Sessions) Run(ctx context.Context) error { panic("unwritten") }

// Create stores a new sign-in and returns it with ID, Version and Created set. ErrRevoked when its (issuer, sid) was signed out meanwhile.
func (s *Sessions) Create(ctx context.Context, in Session) (*Session, error) { panic("unwritten") }

// Issue makes a cookie for a session on one host (lower case, without port) and returns its value. ErrNone when the session is gone.
func (s *Sessions) Issue(ctx context.Context, id, host string) (string, error) { panic("unwritten") }

// Find returns the live session of a cookie's value on a host, or ErrNone. On the common path it reads memory only. Any other
// error means that the store could not be asked: deny.
func (s *Sessions) Find(ctx context.Context, cookie, host string) (*Session, error) {
	panic("unwritten")
}

// Load returns the live session with its Tokens, or ErrNone.
func (s *Sessions) Load(ctx context.Context, id string) (*Session, error) { panic("unwritten") }

// Revoke ends a session and all its cookies, and leaves an (issuer, sid) tombstone. Revoking one that is gone is no error.
func (s *Sessions) Revoke(ctx context.Context, id string) error { panic("unwritten") }

// ErrRevoked is Create's answer to a sign-in whose provider session was signed out while it was under way.
var ErrRevoked = errors.New("signed out meanwhile")

// HashID is how a session is named in logs, policies and pages: the first 16 hexadecimal digits of the SHA-256 of its ID.
func HashID(id string) string { panic("unwritten") }

// Sealer encrypts and authenticates small values with a key of the data directory: AES-256-GCM with a random nonce. The purpose is bound
// as additional data, so that a value sealed for one purpose never opens for another. Safe for concurrent use.
type Sealer struct{}

// OpenSealer reads the key from a file, or creates it with mode 0600 and syncs it before returning.
func OpenSealer(file string) (*Sealer, error) { panic("unwritten") }

// Seal returns the sealed bytes: a version byte, nonce, ciphertext and tag.
func (s *Sealer) Seal(purpose string, plain []byte) []byte { panic("unwritten") }

// Open returns what was sealed for this purpose, or an error that says no more than that it does not open.
func (s *Sealer) Open(purpose string, sealed []byte) ([]byte, error) { panic("unwritten") }
