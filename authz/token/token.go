// Package token signs identity JWTs and publishes the keys that verify them. It is the only importer of jwx, which its tests use to
// verify what it makes.
//
// It signs what it is told, for at most the configured lifetime; who may have a token is decided elsewhere. Tokens are compact JWS
// (RFC 7515) with ES256 (RFC 7518, section 3.4); the keys are a JSON Web Key Set (RFC 7517).
//
// A key goes from next (published, not signing) to active to retired (published until nothing that it signed can be alive). When it does
// so follows from the times in its record alone, so every replica does it at the same moment without being told. A consumer that keeps the
// JWKS for no longer than it is said to (Config.ConsumerCache) therefore never meets a token that it cannot verify, with one exception: a
// key that an operator withdraws because it leaked (Ring.Retire).
package token

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz/store"
)

const (
	maxLifetime          = 5 * time.Minute
	defaultConsumerCache = time.Hour
	maxAge               = 5 * time.Minute // of the JWKS in HTTP caches
	maxSkew              = time.Minute     // between the clocks of replicas, and until each has heard of a new key
	// retention is how long a key is published after its successor began to sign: the longest life of a token, and as much again for
	// the leeway of consumers and for a clock that is behind.
	retention = 2 * maxLifetime
)

// Sealer protects private keys at rest; session.Sealer is one.
type Sealer interface {
	Seal(purpose string, plain []byte) []byte
	Open(purpose string, sealed []byte) ([]byte, error)
}

// Config is what a Ring needs.
type Config struct {
	Store         store.Store
	Sealer        Sealer
	Settings                       // at first; Adopt changes them
	Lifetime      time.Duration    // of a token; at most, and when zero, 5 minutes
	ConsumerCache time.Duration    // how long a consumer may cache the JWKS; an hour when zero
	Now           func() time.Time // time.Now when nil
}

// Settings say where keys come from.
type Settings struct {
	SigningKeyFile string        // PEM, EC P-256 (PKCS #8 or SEC 1); keys are generated and kept in the Store when empty
	RotateEvery    time.Duration // how long a generated key signs; zero for until Rotate is called
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
	Extra             map[string]any // the policy's; never one of those above, but for groups, which it may replace with other strings
}

// Ring holds the signing keys. Safe for concurrent use.
type Ring struct {
	config Config
	source atomic.Pointer[source]
	fault  atomic.Pointer[string] // of the last that Run did; nil for none

	adopting sync.Mutex // held while the source changes

	mu       sync.Mutex // held while a new snapshot is made
	snapshot atomic.Pointer[snapshot]
}

// source is where keys come from.
type source struct {
	Settings
	file *key // of SigningKeyFile, or nil
}

// Open loads the keys, or creates the first one. It fails rather than return a Ring that cannot sign.
//
// When the key that should sign (the file's, or else a generated one) is not the one that does, it is published at once, and signs as soon
// as no consumer can hold a key set without it; until then the other one, which the store has, goes on.
func Open(ctx context.Context, c Config) (*Ring, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	r := &Ring{config: c}
	if err := r.Adopt(ctx, c.Settings); err != nil {
		return nil, err
	}
	return r, nil
}

// Adopt changes where keys come from, in the same way as Open. A file that holds another key than it did counts as another one. An error,
// which names the file when it is of no use, leaves everything as it was.
func (r *Ring) Adopt(ctx context.Context, s Settings) error {
	r.adopting.Lock()
	defer r.adopting.Unlock()
	if s.RotateEvery != 0 && s.RotateEvery < r.config.lead() {
		return fmt.Errorf("token: rotation every %s is more often than the %s for which a key is published before it signs", s.RotateEvery, r.config.lead())
	}
	next := &source{Settings: s}
	if s.SigningKeyFile != "" {
		file, err := readKey(s.SigningKeyFile)
		if err != nil {
			return err
		}
		next.file = file
	}
	// Replicas that are given different files, as while one after the other gets a new one, must not undo each other's at every occasion.
	if old := r.source.Load(); old == nil || !old.same(next) {
		err := r.update(ctx, func(rec record, now time.Time) (record, error) { return r.ensure(rec, next.file, now) })
		if err != nil {
			return err
		}
	}
	r.source.Store(next)
	return nil
}

// same says whether two sources give the same key.
func (s *source) same(t *source) bool {
	if s.file == nil || t.file == nil {
		return s.file == t.file
	}
	return s.file.id == t.file.id
}

func (c *Config) complete() error {
	if c.Store == nil || c.Sealer == nil {
		return errors.New("token: Store and Sealer are required")
	}
	if c.Lifetime == 0 {
		c.Lifetime = maxLifetime
	}
	if c.Lifetime < time.Second || c.Lifetime > maxLifetime {
		return fmt.Errorf("token: a lifetime of %s is not between 1s and %s", c.Lifetime, maxLifetime)
	}
	if c.ConsumerCache == 0 {
		c.ConsumerCache = defaultConsumerCache
	}
	if c.ConsumerCache < time.Second {
		return fmt.Errorf("token: a consumer cache of %s is less than 1s", c.ConsumerCache)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return nil
}

// KeyID is the kid that Mint uses now. Tokens made with another are not reused.
func (r *Ring) KeyID() string { return r.at(r.config.Now()).active.id }

// JWKS is the JSON Web Key Set (RFC 7517) of the published keys: public keys, for ES256 signatures. Never empty. The caller does not change
// it.
func (r *Ring) JWKS() []byte { return r.at(r.config.Now()).jwks }

func (c *Config) maxAge() time.Duration { return min(maxAge, c.ConsumerCache) }

// skew is shorter for those who try a rotation with a short cache.
func (c *Config) skew() time.Duration { return min(maxSkew, c.ConsumerCache) }

// lead is how long a key is published before it signs: a consumer may hold for ConsumerCache what an HTTP cache held for maxAge.
func (c *Config) lead() time.Duration { return c.ConsumerCache + c.maxAge() + c.skew() }
