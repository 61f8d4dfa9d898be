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
	"time"

	"doorward/authz/store"
)

const (
	// ringKey is the one record of all keys, so that every change of them is atomic. It is sealed for this name.
	ringKey = "token/ring"
	// tries bounds how often a change is made again because another replica's came between.
	tries = 10
	// maxWithdrawn bounds the keys that are remembered as withdrawn.
	maxWithdrawn = 100
)

// record is all keys in the order in which they sign, and those that an operator withdrew, oldest first. Its slices are never changed in
// place.
type record struct {
	keys      []*key
	withdrawn []withdrawal
}

// withdrawal keeps a key that is still in a file from being taken up again.
type withdrawal struct {
	id string
	at time.Time
}

func (r record) equal(s record) bool {
	return slices.Equal(r.keys, s.keys) && slices.Equal(r.withdrawn, s.withdrawn)
}

// storedKey is one element of the stored record, which is a JSON array of them: a key, or the id of one that was withdrawn.
type storedKey struct {
	Private   []byte    `json:"private,omitempty"` // PKCS #8 (RFC 5958)
	File      bool      `json:"file,omitempty"`
	Created   time.Time `json:"created,omitzero"`
	SignsFrom time.Time `json:"signs_from,omitzero"`
	ID        string    `json:"kid,omitempty"` // of a withdrawn key
	Withdrawn time.Time `json:"withdrawn,omitzero"`
}

// update reads the record, has change make another of it, writes that unless nothing changed, and takes it.
func (r *Ring) update(ctx context.Context, change func(record, time.Time) (record, error)) error {
	for range tries {
		version, stored, err := r.read(ctx)
		if err != nil {
			return err
		}
		now := r.config.Now().Round(0).UTC() // without the monotonic clock, which other replicas do not share
		present := stored
		if s := r.snapshot.Load(); s != nil && len(present.keys) == 0 {
			present = s.record // somebody has emptied the store: what signs goes on
		}
		changed, err := change(present, now)
		if err != nil {
			return err
		}
		if changed.equal(stored) {
			r.take(version, stored)
			return nil
		}
		value, err := r.seal(changed)
		if err != nil {
			return err
		}
		version, err = r.config.Store.Apply(ctx, store.Op{Key: ringKey, Value: value, Expect: version})
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

// read returns the record and its version, which is store.Absent when there is none.
func (r *Ring) read(ctx context.Context) (store.Version, record, error) {
	item, err := r.config.Store.Get(ctx, ringKey)
	if errors.Is(err, store.ErrNotFound) {
		return store.Absent, record{}, nil
	}
	if err != nil {
		return 0, record{}, fmt.Errorf("read signing keys: %w", err)
	}
	data, err := r.config.Sealer.Open(ringKey, item.Value)
	if err != nil {
		return 0, record{}, errors.New("read signing keys: they were sealed with another key than the data directory's: " +
			"restore that one, or begin anew with an empty store")
	}
	var stored []storedKey
	if err := json.Unmarshal(data, &stored); err != nil {
		return 0, record{}, fmt.Errorf("read signing keys: %w", err)
	}
	var rec record
	for _, s := range stored {
		if s.ID != "" {
			rec.withdrawn = append(rec.withdrawn, withdrawal{s.ID, s.Withdrawn})
			continue
		}
		k, err := s.key()
		if err != nil {
			return 0, record{}, fmt.Errorf("read signing keys: %w", err)
		}
		rec.keys = append(rec.keys, k)
	}
	return item.Version, rec, nil
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

func (r *Ring) seal(rec record) ([]byte, error) {
	var stored []storedKey
	for _, w := range rec.withdrawn[max(0, len(rec.withdrawn)-maxWithdrawn):] {
		stored = append(stored, storedKey{ID: w.id, Withdrawn: w.at})
	}
	for _, k := range rec.keys {
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
