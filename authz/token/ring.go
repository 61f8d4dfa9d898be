package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"doorward/authz/store"
)

const (
	// ringKey is the one record of all keys, so that every change of them is atomic. It is sealed for this name.
	ringKey = "token/ring"
	// tries bounds how often a change is made again because another replica's came between.
	tries = 10
	// tidyEvery is how often Run looks for keys that are no longer needed, and retryWatch how long it waits for a store.
	tidyEvery  = time.Minute
	retryWatch = 200 * time.Millisecond
)

// storedKey is a key in the record, which is a JSON array of them.
type storedKey struct {
	Private   []byte    `json:"private"` // PKCS #8 (RFC 5958)
	File      bool      `json:"file"`
	Created   time.Time `json:"created"`
	SignsFrom time.Time `json:"signs_from"`
}

// snapshot is what the keys come to between two moments. It is immutable.
type snapshot struct {
	version store.Version // of the record
	keys    []*key        // by signsFrom
	active  *key
	jwks    []byte
	until   time.Time // when another key becomes active, or one is no longer published; zero for never
}

// newSnapshot derives the states of the keys, of which there is at least one, from their times.
func newSnapshot(version store.Version, keys []*key, now time.Time) *snapshot {
	s := &snapshot{version: version, keys: keys}
	change := func(at time.Time) {
		if at.After(now) && (s.until.IsZero() || at.Before(s.until)) {
			s.until = at
		}
	}
	active := activeAt(keys, now)
	s.active = keys[active]
	var published []string
	for i, k := range keys {
		change(k.signsFrom)
		if i < active {
			end := keys[i+1].signsFrom.Add(retention)
			if !now.Before(end) {
				continue
			}
			change(end)
		}
		published = append(published, k.jwk)
	}
	s.jwks = []byte(`{"keys":[` + strings.Join(published, ",") + `]}`)
	return s
}

// activeAt is the index of the key that signs: the one that began last. A clock that is behind the first one's gets the first.
func activeAt(keys []*key, now time.Time) int {
	active := 0
	for i, k := range keys {
		if !k.signsFrom.After(now) {
			active = i
		}
	}
	return active
}

// at is the snapshot for a moment.
func (r *Ring) at(now time.Time) *snapshot {
	s := r.snapshot.Load()
	if s.until.IsZero() || now.Before(s.until) {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.snapshot.Load()
	s = newSnapshot(s.version, s.keys, now)
	r.snapshot.Store(s)
	return s
}

// take makes keys the current ones, unless later ones are already.
func (r *Ring) take(version store.Version, keys []*key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.snapshot.Load(); s == nil || s.version < version {
		r.snapshot.Store(newSnapshot(version, keys, r.config.Now()))
	}
}

// ensure adds the key that should sign, if it is not the last one already.
func (r *Ring) ensure(keys []*key, now time.Time) ([]*key, error) {
	wanted := func(k *key) bool {
		if r.file != nil {
			return k.id == r.file.id
		}
		return !k.file
	}
	if len(keys) > 0 && wanted(keys[len(keys)-1]) {
		return keys, nil
	}
	// A key that has not signed is not needed, but a replica whose clock is ahead may have begun to use one that is due.
	keys = slices.DeleteFunc(keys, func(k *key) bool {
		return k != keys[0] && k.signsFrom.After(now.Add(r.config.skew()))
	})
	if len(keys) > 0 && wanted(keys[len(keys)-1]) {
		return keys, nil
	}
	return r.add(keys, now)
}

// add appends the file's key or a new one. The first of all signs at once.
func (r *Ring) add(keys []*key, now time.Time) ([]*key, error) {
	var next key
	if r.file != nil {
		next = *r.file
		// It may have signed before. It is published all along, and signs again when every other one would.
		keys = slices.DeleteFunc(keys, func(k *key) bool { return k.id == next.id })
	} else {
		generated, err := generateKey()
		if err != nil {
			return nil, err
		}
		next = *generated
	}
	next.created, next.signsFrom = now.UTC(), now.UTC()
	if n := len(keys); n > 0 {
		next.signsFrom = next.signsFrom.Add(r.config.lead())
		if last := keys[n-1].signsFrom; !next.signsFrom.After(last) {
			next.signsFrom = last.Add(time.Nanosecond)
		}
	}
	return append(keys, &next), nil
}

// Rotate publishes a new key that will sign as soon as no consumer can hold a key set without it. When one is waiting already, nothing is
// done. A Ring whose key is given by a file is rotated by another file.
func (r *Ring) Rotate(ctx context.Context) error {
	if r.file != nil {
		return fmt.Errorf("rotate signing key: it is given by %s: put another key there and restart", r.config.SigningKeyFile)
	}
	return r.update(ctx, func(keys []*key, now time.Time) ([]*key, error) {
		if len(keys) > 0 && keys[len(keys)-1].signsFrom.After(now) {
			return keys, nil
		}
		return r.add(keys, now)
	})
}

// Run takes over the keys that other replicas add, and removes from the store those that are no longer published, until ctx ends or the
// store is closed.
func (r *Ring) Run(ctx context.Context) error {
	unchanged := func(keys []*key, _ time.Time) ([]*key, error) { return keys, nil }
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	var events <-chan store.Event
	for ctx.Err() == nil {
		var err error
		if events == nil {
			events, err = r.config.Store.Watch(ctx, ringKey)
		}
		if err == nil {
			err = r.update(ctx, unchanged) // an error leaves the keys that are known in use
		}
		if errors.Is(err, store.ErrClosed) {
			return fmt.Errorf("watch signing keys: %w", err)
		}
		retry := tidy.C
		if err != nil {
			retry = time.After(retryWatch)
		}
		select {
		case _, ok := <-events:
			if !ok {
				events = nil
			}
		case <-retry:
		case <-ctx.Done():
		}
	}
	return nil
}

// update reads the keys, has change make others of them, leaves out the dead ones, writes the result unless nothing changed, and takes it.
func (r *Ring) update(ctx context.Context, change func([]*key, time.Time) ([]*key, error)) error {
	for range tries {
		item, keys, err := r.read(ctx)
		if err != nil {
			return err
		}
		now := r.config.Now()
		changed, err := change(living(keys, now), now)
		if err != nil {
			return err
		}
		if slices.Equal(changed, keys) {
			r.take(item.Version, keys)
			return nil
		}
		value, err := r.seal(changed)
		if err != nil {
			return err
		}
		version, err := r.config.Store.Apply(ctx, store.Op{Key: ringKey, Value: value, Expect: item.Version})
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return fmt.Errorf("write signing keys: %w", err)
		}
		r.take(version, changed)
		return nil
	}
	return fmt.Errorf("write signing keys: others changed them %d times meanwhile: %w", tries, store.ErrConflict)
}

// living leaves out the keys whose tokens have all expired.
func living(keys []*key, now time.Time) []*key {
	var alive []*key
	active := activeAt(keys, now)
	for i, k := range keys {
		if i >= active || now.Before(keys[i+1].signsFrom.Add(retention)) {
			alive = append(alive, k)
		}
	}
	return alive
}

// read returns the record, whose Version is store.Absent when there is none, and its keys.
func (r *Ring) read(ctx context.Context) (store.Item, []*key, error) {
	item, err := r.config.Store.Get(ctx, ringKey)
	if errors.Is(err, store.ErrNotFound) {
		return store.Item{Version: store.Absent}, nil, nil
	}
	if err != nil {
		return item, nil, fmt.Errorf("read signing keys: %w", err)
	}
	data, err := r.config.Sealer.Open(ringKey, item.Value)
	if err != nil {
		return item, nil, errors.New("read signing keys: they were sealed with another key than the data directory's: " +
			"restore that one, or begin anew with an empty store")
	}
	var stored []storedKey
	if err := json.Unmarshal(data, &stored); err != nil {
		return item, nil, fmt.Errorf("read signing keys: %w", err)
	}
	var keys []*key
	for _, s := range stored {
		k, err := s.key()
		if err != nil {
			return item, nil, fmt.Errorf("read signing keys: %w", err)
		}
		keys = append(keys, k)
	}
	slices.SortStableFunc(keys, func(a, b *key) int { return a.signsFrom.Compare(b.signsFrom) })
	return item, keys, nil
}

func (s storedKey) key() (*key, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(s.Private)
	if err != nil {
		return nil, err
	}
	private, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || private.Curve != elliptic.P256() {
		return nil, fmt.Errorf("a %T that is not of curve P-256", parsed)
	}
	k, err := newKey(private)
	if err != nil {
		return nil, err
	}
	k.file, k.created, k.signsFrom = s.File, s.Created, s.SignsFrom
	return k, nil
}

func (r *Ring) seal(keys []*key) ([]byte, error) {
	var stored []storedKey
	for _, k := range keys {
		private, err := x509.MarshalPKCS8PrivateKey(k.private)
		if err != nil {
			return nil, fmt.Errorf("encode signing keys: %w", err)
		}
		stored = append(stored, storedKey{Private: private, File: k.file, Created: k.created, SignsFrom: k.signsFrom})
	}
	data, err := json.Marshal(stored)
	if err != nil {
		return nil, fmt.Errorf("encode signing keys: %w", err)
	}
	return r.config.Sealer.Seal(ringKey, data), nil
}
