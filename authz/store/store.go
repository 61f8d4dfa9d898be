// Package store is where Doorward keeps what must survive a restart: sessions, keys, one-time codes, pushed routes.
//
// A Store is a flat, ordered map from keys to small values with a version each, changed by atomic batches. Leases, counters and
// queues are built on the expected version by those who need them. The package gives no queries but a prefix, and no encryption:
// who stores a secret seals it first.
package store

import (
	"context"
	"errors"
	"time"
)

var (
	// ErrNotFound is returned for a key that is absent or has expired.
	ErrNotFound = errors.New("not found")
	// ErrConflict is returned when an item's version is not the expected one. Nothing of the batch was applied.
	ErrConflict = errors.New("version conflict")
	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("store is closed")
)

// Version counts the changes of the whole store, so it is unique to one write of one key and only grows. 0 means absent.
type Version uint64

// What a write may expect of the item's present version, beside an exact one.
const (
	Absent Version = 0         // the key must not exist
	Any    Version = 1<<64 - 1 // whatever is there, or nothing
)

// Item is one stored value. The caller owns Value.
type Item struct {
	Key     string
	Value   []byte
	Version Version
	Expires time.Time // zero means never
}

// Op is one write of a batch, or one condition of it.
type Op struct {
	Key     string
	Value   []byte    // nil deletes the key, which may be absent; an empty value is kept
	Expires time.Time // when a written item ceases to exist; zero means never
	Expect  Version
	Guard   bool // write nothing: the batch only depends on Expect; Value and Expires are not looked at
}

// Event says that the key changed (written, deleted or expired). Readers drop what they hold and read again. The event of an expiry
// comes when the item is collected, which may be minutes later: who caches items minds their Expires.
type Event struct {
	Key string
}

// Limits of keys and values.
const (
	MaxKey   = 512
	MaxValue = 1 << 20
)

// Store is safe for concurrent use. Every method returns the context's error when it ends first; a write may then have been made or
// not. Keys and prefixes are UTF-8 without NUL of at most MaxKey bytes, keys are not empty; values have at most MaxValue bytes. Keys are
// ordered by their bytes. An item that has expired is absent in every respect, also for Expect. A write that returned nil survives
// kill -9 and power loss.
type Store interface {
	// Get returns one item, or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)
	// Apply writes all ops or none, and returns the version that the written items now have. ErrConflict when one expected
	// version did not hold. A key stands in at most one op of a batch.
	Apply(ctx context.Context, ops ...Op) (Version, error)
	// List returns up to limit items whose keys start with prefix and come after the key `after` ("" for the first), in the
	// order of their keys. A limit below 1 is an error.
	List(ctx context.Context, prefix, after string, limit int) ([]Item, error)
	// Watch reports changes to keys that start with prefix. Events come after the write is visible to Get; changes made before Watch
	// returned may be reported too; several changes of one key may be one event. A watcher that is too slow is told so by an event
	// with an empty Key: everything may have changed. The channel is closed when ctx ends, when the store is closed, and when
	// changes can no longer be told: then nothing held is to be trusted until another Watch.
	Watch(ctx context.Context, prefix string) (<-chan Event, error)
	// Close releases the store, ending every Watch. Calls after it return ErrClosed.
	Close() error
}
