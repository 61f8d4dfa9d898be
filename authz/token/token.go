// Package token signs identity JWTs and publishes the keys that verify them. It is the only importer of jwx.
//
// It signs what it is told, for at most the configured lifetime; who may have a token is decided elsewhere.
package token

import (
	"context"
	"net/http"
	"time"

	"doorward/authz/store"
)

// Sealer protects private keys at rest; session.Sealer is one.
type Sealer interface {
	Seal(purpose string, plain []byte) []byte
	Open(purpose string, sealed []byte) ([]byte, error)
}

// Config is what a Ring needs.
type Config struct {
	Store          store.Store
	Sealer         Sealer
	SigningKeyFile string        // PEM, EC P-256 (PKCS #8 or SEC 1); a key is generated and kept in the Store when empty
	Lifetime       time.Duration // of a token; at most 5 minutes
	ConsumerCache  time.Duration // how long a consumer may cache the JWKS
	Now            func() time.Time
}

// Claims is the content of one identity JWT. iat, nbf, exp and jti are added by Mint.
type Claims struct {
	Issuer            string
	Audience          string
	Subject           string         // never empty
	Email             string         // left out when empty
	PreferredUsername string         // left out when empty
	Name              string         // left out when empty
	Groups            []string       // an empty array when there are none
	SID               string         // left out when empty
	NotAfter          time.Time      // the session's end; exp is never later
	Extra             map[string]any // the policy's; they never replace a registered claim (iss, sub, aud, exp, nbf, iat, jti, sid)
}

// Ring holds the signing keys. Safe for concurrent use.
type Ring struct{}

// Open loads the keys, or creates the first one. It fails rather than return a Ring that cannot sign.
func Open(ctx context.Context, c Config) (*Ring, error) { panic("unwritten") }

// Mint returns a compact JWS (ES256, with kid) and when it expires.
func (r *Ring) Mint(c Claims) (string, time.Time, error) { panic("unwritten") }

// KeyID is the kid that Mint uses now. Tokens made with another are not reused.
func (r *Ring) KeyID() string { panic("unwritten") }

// JWKS is the JSON Web Key Set (RFC 7517) of the published keys. Never empty.
func (r *Ring) JWKS() []byte { panic("unwritten") }

// ServeHTTP serves the JWKS to GET and HEAD, with a max-age; any other method gets 405 without a JSON body.
func (r *Ring) ServeHTTP(w http.ResponseWriter, req *http.Request) { panic("unwritten") }
