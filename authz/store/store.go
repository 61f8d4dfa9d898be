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

// Op is one write of a batch.
type Op struct {
	Key     string
	Value   []byte // nil deletes the key
	Expires time.Time
	Expect  Version
}

// Event says that the keys changed (written, deleted or expired). Readers drop what they hold and read again.
type Event struct {
	Key string
}

// Store is safe for concurrent use. Every method returns the context's error when it ends first. Keys are non-empty UTF-8 of at
// most 512 bytes, values at most 1 MiB. A write that returned nil survives kill -9 and power loss.
type Store interface {
	// Get returns one item, or ErrNotFound.
	Get(ctx context.Context, key string) (Item, error)
	// Apply writes all ops or none, and returns the version that the written items now have. ErrConflict when one expected
	// version did not hold.
	Apply(ctx context.Context, ops ...Op) (Version, error)
	// List returns up to limit items whose keys start with prefix and come after the key `after` ("" for the first), in the
	// order of their keys.
	List(ctx context.Context, prefix, after string, limit int) ([]Item, error)
	// Watch reports changes to keys that start with prefix, until ctx ends; then the channel is closed. Events come after the write is
	// visible to Get. A watcher that is too slow is told so by an event with an empty Key: everything may have changed.
	Watch(ctx context.Context, prefix string) (<-chan Event, error)
	// Close releases the store. Calls after it return an error.
	Close() error
}
