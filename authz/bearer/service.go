package bearer

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz/session"
	"doorward/authz/store"
)

// The keys. A record is sealed for its key; the secret itself is nowhere.
//
//	service-token/<SHA-256 of the secret>        the token
//	service-token-name/<name>                    that hash, so that a name is taken once
//	service-token-used/<SHA-256 of the secret>   when it was last used: Unix seconds, 8 bytes, big-endian
const (
	recordPrefix = "service-token/"
	namePrefix   = "service-token-name/"
	usedPrefix   = "service-token-used/"
)

// maxAsking bounds the lookups that ask the store at one time; there are some only while its changes are not told.
const maxAsking = 16

// Sealer protects records at rest; session.Sealer is one.
type Sealer interface {
	Seal(purpose string, plain []byte) []byte
	Open(purpose string, sealed []byte) ([]byte, error)
}

// Config is what ServiceTokens need. All fields but Now are required.
type Config struct {
	Store  store.Store
	Sealer Sealer
	Log    *slog.Logger
	Now    func() time.Time // time.Now when nil
}

// ServiceTokens are Doorward's own tokens, for programs. All are held in memory while Run watches the store, so that neither a good token nor a
// made-up one costs a look into it. A revocation is in force in this process when Revoke returns, in others as soon as their store tells them.
// Safe for concurrent use.
type ServiceTokens struct {
	Config
	known  atomic.Pointer[table] // nil while changes are not told
	asking chan struct{}         // one element for each lookup that is asking the store

	mu sync.Mutex // held from reading the store until known has what was read, so that nothing older comes after it
}

// table has every token by its hash. It is never changed.
type table map[[32]byte]*held

// held is one token.
type held struct {
	record  record
	session *session.Session
	used    *atomic.Int64 // Unix seconds of the last use in this process, 0 for none; to a minute
	written int64         // of used; guarded by mu
}

// record is what is stored.
type record struct {
	Name    string    `json:"name"`
	Routes  []string  `json:"routes"`
	Groups  []string  `json:"groups"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
}

// NewServiceTokens returns tokens that are all looked up in the store until Run runs.
func NewServiceTokens(c Config) (*ServiceTokens, error) {
	if c.Store == nil || c.Sealer == nil || c.Log == nil {
		return nil, errors.New("bearer: Store, Sealer and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &ServiceTokens{Config: c, asking: make(chan struct{}, maxAsking)}, nil
}

// find is Finder.Find for a token with the prefix.
func (s *ServiceTokens) find(ctx context.Context, token, route string) (*session.Session, error) {
	hash, ok := hashSecret(token)
	if !ok {
		return nil, invalid("it looks like a service token, but none was ever made so: was it cut off?")
	}
	h, err := s.lookup(ctx, hash)
	now := s.Now()
	switch {
	case err != nil:
		return nil, err
	case h == nil:
		return nil, invalid("no service token with this value: it was revoked, has expired, or never was")
	case !now.Before(h.record.Expires):
		return nil, invalid("the service token %q has expired", h.record.Name)
	case !slices.Contains(h.record.Routes, route):
		return nil, invalid("the service token %q is not for this route", h.record.Name)
	}
	if at := now.Unix(); at-h.used.Load() >= int64(useEvery/time.Second) {
		h.used.Store(at)
	}
	return h.session, nil
}

// lookup returns a token, or nil for one that there is not.
func (s *ServiceTokens) lookup(ctx context.Context, hash [32]byte) (*held, error) {
	if known := s.known.Load(); known != nil {
		return (*known)[hash], nil
	}
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.read(ctx, hash)
}

// live is Finder.Live for a service token.
func (s *ServiceTokens) live(ctx context.Context, id string) (*session.Session, error) {
	known := s.known.Load()
	if known == nil {
		var err error
		if known, err = s.readAll(ctx); err != nil {
			return nil, err
		}
	}
	for _, h := range *known {
		if h.session.ID == id && s.Now().Before(h.record.Expires) {
			return h.session, nil
		}
	}
	return nil, session.ErrNone
}

// read returns a token as the store has it, or nil.
func (s *ServiceTokens) read(ctx context.Context, hash [32]byte) (*held, error) {
	item, err := s.Store.Get(ctx, recordKey(hash))
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read a service token: %w", err)
	}
	return s.open(item, hash), nil
}

// readAll returns every token of the store.
func (s *ServiceTokens) readAll(ctx context.Context) (*table, error) {
	all := make(table)
	for item, err := range store.All(ctx, s.Store, recordPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read the service tokens: %w", err)
		}
		if hash, ok := hashOf(item.Key); ok {
			if h := s.open(item, hash); h != nil {
				all[hash] = h
			}
		}
	}
	return &all, nil
}

// open decodes an item; nil when it was sealed with a key that is gone, or not by us.
func (s *ServiceTokens) open(item store.Item, hash [32]byte) *held {
	data, err := s.Sealer.Open(item.Key, item.Value)
	h := &held{used: new(atomic.Int64)}
	if err == nil {
		err = json.Unmarshal(data, &h.record)
	}
	if err != nil {
		s.Log.Error("a service token cannot be read and lets nobody in: was the data directory's key replaced?", "key", item.Key)
		return nil
	}
	r := h.record
	h.session = &session.Session{
		// A part of the hash is as unique as the random ids of sign-ins are.
		ID: hex.EncodeToString(hash[:16]), Version: uint64(item.Version), Provider: Provider, Subject: r.Name,
		User:    session.User{ID: Provider + ":" + r.Name, Name: r.Name, Groups: append([]string{}, r.Groups...), Claims: map[string]any{}},
		Created: r.Created, Expires: r.Expires, AMR: []string{Method},
	}
	return h
}

// What the session of a service token says of itself: its Provider, which user ids begin with, and the one element of its AMR.
const (
	Provider = "service"
	Method   = "service_token"
)

func recordKey(hash [32]byte) string { return recordPrefix + hex.EncodeToString(hash[:]) }

// hashOf is the inverse of recordKey.
func hashOf(key string) (hash [32]byte, ok bool) {
	n, err := hex.Decode(hash[:], []byte(strings.TrimPrefix(key, recordPrefix)))
	return hash, err == nil && n == len(hash) && recordKey(hash) == key
}
