// Package bolt is a Store in one file, for one process: it needs no server.
//
// One goroutine makes all changes. The batches that wait while it writes go into its next transaction together, so many
// callers share one fsync and each still gets its own conflict. Reads come from the memory-mapped file and never wait for a write. Expired items
// are invisible at once and are removed by the same goroutine, a few at a time. The file is locked for as long as it is open: a second
// process is refused. The package does not encrypt.
package bolt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"doorward/authz/store"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	lockWait       = time.Second      // for another process to let go of the file
	collectEvery   = 10 * time.Second // how often expired items are looked for
	collectAtOnce  = 256              // expired items removed in one transaction
	groupAtOnce    = 256              // batches in one transaction
	format         = 1                // of the file, in metaBucket
	versionKeyName = "version"
	formatKeyName  = "format"
)

var (
	metaBucket   = []byte("meta")   // format and version, 8 bytes big-endian each
	itemBucket   = []byte("items")  // key -> record
	expiryBucket = []byte("expiry") // expiry (8 bytes, big-endian Unix nanoseconds) and key -> nothing
)

// Store is a store.Store in one file.
type Store struct {
	db       *bbolt.DB
	hub      store.Hub
	now      func() time.Time
	every    time.Duration
	requests chan *request

	closing chan struct{} // closed when Close begins
	done    chan struct{} // closed when the writer has ended
	once    sync.Once
	err     error // of Close
}

// Open opens the file at path, or creates it with mode 0600. Its directory must exist. A file that another process has open is an error
// within two seconds.
func Open(path string) (*Store, error) { return OpenAt(path, time.Now) }

// OpenAt is Open with a clock, by which items expire.
func OpenAt(path string, now func() time.Time) (*Store, error) {
	return open(path, now, collectEvery)
}

func open(path string, now func() time.Time, every time.Duration) (*Store, error) {
	_, err := os.Stat(path)
	created := errors.Is(err, fs.ErrNotExist)
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:      lockWait,
		FreelistType: bbolt.FreelistMapType,
		NoStatistics: true,
	})
	if err != nil {
		return nil, openError(path, err)
	}
	if err := prepare(db); err != nil {
		return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), db.Close())
	}
	if created {
		if err := syncDirectory(filepath.Dir(path)); err != nil {
			return nil, errors.Join(fmt.Errorf("open store %s: %w", path, err), db.Close())
		}
	}
	s := &Store{
		db:       db,
		now:      now,
		every:    every,
		requests: make(chan *request),
		closing:  make(chan struct{}),
		done:     make(chan struct{}),
	}
	go s.write()
	return s, nil
}

func openError(path string, err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("open store %s: another process has it open; stop that process, or give this one another data directory", path)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("open store %s: %w: the file is damaged or is no store; restore it from a backup, or move it away to begin anew", path, err)
	default:
		return fmt.Errorf("open store %s: %w", path, err)
	}
}

// prepare creates the buckets, and refuses a file of a later program.
func prepare(db *bbolt.DB) error {
	return db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucketIfNotExists(metaBucket)
		if err != nil {
			return err
		}
		if found := meta.Get([]byte(formatKeyName)); found == nil {
			if err := meta.Put([]byte(formatKeyName), number(format)); err != nil {
				return err
			}
		} else if len(found) != 8 || binary.BigEndian.Uint64(found) != format {
			return fmt.Errorf("its format %x is not %d: it was written by another version of the program; use that one", found, format)
		}
		if _, err := tx.CreateBucketIfNotExists(itemBucket); err != nil {
			return err
		}
		_, err = tx.CreateBucketIfNotExists(expiryBucket)
		return err
	})
}

// syncDirectory makes a new file's name in it survive power loss.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key string) (store.Item, error) {
	if err := store.CheckKey(key); err != nil {
		return store.Item{}, err
	}
	var item store.Item
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		r, ok := live(tx.Bucket(itemBucket).Get([]byte(key)), s.now())
		if !ok {
			return store.ErrNotFound
		}
		item = r.item(key)
		return nil
	})
	return item, err
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, prefix, after string, limit int) ([]store.Item, error) {
	if err := store.CheckList(prefix, after, limit); err != nil {
		return nil, err
	}
	var items []store.Item
	err := s.view(ctx, func(tx *bbolt.Tx) error {
		now := s.now()
		c := tx.Bucket(itemBucket).Cursor()
		for k, v := c.Seek([]byte(max(prefix, after))); k != nil && len(items) < limit; k, v = c.Next() {
			key := string(k)
			if key == after {
				continue
			}
			if !strings.HasPrefix(key, prefix) {
				break
			}
			if r, ok := live(v, now); ok {
				items = append(items, r.item(key))
			}
		}
		return nil
	})
	return items, err
}

// Watch implements store.Store.
func (s *Store) Watch(ctx context.Context, prefix string) (<-chan store.Event, error) {
	return s.hub.Watch(ctx, prefix)
}

// Close implements store.Store. What Apply has begun to write is finished first.
func (s *Store) Close() error {
	s.once.Do(func() {
		close(s.closing)
		<-s.done
		s.hub.Close()
		s.err = s.db.Close()
	})
	return s.err
}

func (s *Store) view(ctx context.Context, read func(*bbolt.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.db.View(read)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return store.ErrClosed
	}
	return err
}
