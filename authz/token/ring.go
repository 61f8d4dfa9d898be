package token

import (
	"slices"
	"strings"
	"time"

	"doorward/authz/store"
)

// snapshot is what the record comes to between two moments. It is immutable.
//
// Which keys are published does not depend on the clock: they are those in the record, from which Run takes the ones that are not needed any
// more. A clock that jumps forward for a moment must not withdraw a key, since consumers keep what they fetch in that moment.
type snapshot struct {
	version store.Version
	record  record
	active  *key
	jwks    []byte
	etag    string
	// The first moment for which this holds, and the first for which it does not, because another key becomes active. Zero where there is
	// none. A clock that is set back has to be answered too.
	since, until time.Time
}

// newSnapshot derives what holds at a moment. The record has at least one key.
func newSnapshot(version store.Version, rec record, now time.Time) *snapshot {
	s := &snapshot{version: version, record: rec, active: rec.keys[activeAt(rec.keys, now)]}
	var published []string
	for _, k := range rec.keys {
		if !slices.Contains(published, k.jwk) { // one that signs again stands there twice
			published = append(published, k.jwk)
		}
		switch at := k.signsFrom; {
		case !at.After(now):
			s.since = later(s.since, at)
		case s.until.IsZero() || at.Before(s.until):
			s.until = at
		}
	}
	s.jwks = []byte(`{"keys":[` + strings.Join(published, ",") + `]}`)
	s.etag = etag(s.jwks)
	return s
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// activeAt is the index of the key that signs: the last one that has begun. A clock that is behind all of them gets the first.
func activeAt(keys []*key, now time.Time) int {
	active := 0
	for i, k := range keys {
		if !k.signsFrom.After(now) {
			active = i
		}
	}
	return active
}

// pending is the key that is to sign next, or nil.
func pending(keys []*key, now time.Time) *key {
	if i := activeAt(keys, now) + 1; i < len(keys) {
		return keys[i]
	}
	return nil
}

// gone is when a key need no longer be published: all that it signed before its successor did has expired. Zero when it has no successor.
func gone(keys []*key, i int) time.Time {
	if i+1 >= len(keys) {
		return time.Time{}
	}
	return keys[i+1].signsFrom.Add(retention)
}

// living leaves out the keys that need no longer be published.
func living(keys []*key, now time.Time) []*key {
	active := activeAt(keys, now)
	return filter(keys, func(i int, _ *key) bool { return i >= active || now.Before(gone(keys, i)) })
}

// filter returns a new slice.
func filter(keys []*key, keep func(int, *key) bool) []*key {
	var kept []*key
	for i, k := range keys {
		if keep(i, k) {
			kept = append(kept, k)
		}
	}
	return kept
}

// at is the snapshot for a moment.
func (r *Ring) at(now time.Time) *snapshot {
	s := r.snapshot.Load()
	if s.holds(now) {
		return s
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	s = r.snapshot.Load()
	s = newSnapshot(s.version, s.record, now)
	r.snapshot.Store(s)
	return s
}

func (s *snapshot) holds(now time.Time) bool {
	return !now.Before(s.since) && (s.until.IsZero() || now.Before(s.until))
}

// take makes a record the current one, unless a later one is already.
func (r *Ring) take(version store.Version, rec record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.snapshot.Load(); s == nil || s.version < version {
		r.snapshot.Store(newSnapshot(version, rec, r.config.Now()))
	}
}
