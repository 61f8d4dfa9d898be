package acme

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"doorward/authz/store"

	"github.com/caddyserver/certmagic"
)

// Where things are kept in the store. Names below dataPrefix are certmagic's.
const (
	dataPrefix = "acme/data/"
	lockPrefix = "acme/lock/"
)

// Sealer encrypts and authenticates what is kept: private keys are among it. The purpose is bound to what is sealed.
type Sealer interface {
	Seal(purpose string, plain []byte) []byte
	Open(purpose string, sealed []byte) ([]byte, error)
}

// storage is certmagic.Storage over a store. Every value is sealed for its key, after the time at which it was written (Unix nanoseconds, 8 bytes).
// What belongs to a host's certificate is written only for as long as nobody else has taken the lock that the writer holds.
type storage struct {
	store store.Store
	seal  Sealer
	now   func() time.Time
	lease time.Duration // of a lock; see lock.go

	mu   sync.Mutex // guards held
	held map[string]*lease
}

func newStorage(s store.Store, seal Sealer, now func() time.Time) *storage {
	return &storage{store: s, seal: seal, now: now, lease: leaseTime, held: make(map[string]*lease)}
}

// dataKey is where a value is kept. Certmagic names files after the directory that they are in, so that a long host would stand in a key twice and
// make it too long for the store: the second time it is an equals sign, which no name has.
func dataKey(key string) string {
	dir, file := path.Split(key)
	if rest, ok := strings.CutPrefix(file, path.Base(dir)+"."); ok && dir != "" {
		file = "=." + rest
	}
	return dataPrefix + dir + file
}

// nameOf is the inverse of dataKey.
func nameOf(key string) string {
	dir, file := path.Split(strings.TrimPrefix(key, dataPrefix))
	if rest, ok := strings.CutPrefix(file, "=."); ok {
		file = path.Base(dir) + "." + rest
	}
	return dir + file
}

func below(key string) string {
	if key == "" {
		return dataPrefix
	}
	return dataPrefix + key + "/"
}

// Store writes one value.
func (s *storage) Store(ctx context.Context, key string, value []byte) error {
	full := dataKey(key)
	plain := append(binary.BigEndian.AppendUint64(nil, uint64(s.now().UnixNano())), value...)
	op := store.Op{Key: full, Value: s.seal.Seal(full, plain), Expect: store.Any}
	if err := s.write(ctx, key, op); err != nil {
		return fmt.Errorf("store %s: %w", key, err)
	}
	return nil
}

// Load returns a value, or fs.ErrNotExist.
func (s *storage) Load(ctx context.Context, key string) ([]byte, error) {
	_, value, err := s.read(ctx, key)
	return value, err
}

func (s *storage) read(ctx context.Context, key string) (written time.Time, value []byte, err error) {
	item, err := s.store.Get(ctx, dataKey(key))
	if errors.Is(err, store.ErrNotFound) {
		return time.Time{}, nil, fmt.Errorf("load %s: %w", key, fs.ErrNotExist)
	}
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("load %s: %w", key, err)
	}
	plain, err := s.seal.Open(item.Key, item.Value)
	if err != nil {
		return time.Time{}, nil, fmt.Errorf("load %s: %w", key, err)
	}
	if len(plain) < 8 {
		return time.Time{}, nil, fmt.Errorf("load %s: it has %d bytes", key, len(plain))
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(plain))), plain[8:], nil
}

// Delete removes a value, or all that is below a directory. What is not there is no error.
func (s *storage) Delete(ctx context.Context, key string) error {
	ops := []store.Op{{Key: dataKey(key), Expect: store.Any}}
	for item, err := range store.All(ctx, s.store, below(key)) {
		if err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
		ops = append(ops, store.Op{Key: item.Key, Expect: store.Any})
	}
	for _, op := range ops {
		if err := s.write(ctx, nameOf(op.Key), op); err != nil {
			return fmt.Errorf("delete %s: %w", key, err)
		}
	}
	return nil
}

// Exists says whether a value, or anything below a directory, is there; false when that cannot be found out.
func (s *storage) Exists(ctx context.Context, key string) bool {
	if _, err := s.store.Get(ctx, dataKey(key)); err == nil {
		return true
	}
	items, err := s.store.List(ctx, below(key), "", 1)
	return err == nil && len(items) > 0
}

// List returns what is directly in a directory, directories included; or, where it is recursive, all that is below it.
func (s *storage) List(ctx context.Context, dir string, recursive bool) ([]string, error) {
	found := make(map[string]bool)
	for item, err := range store.All(ctx, s.store, below(dir)) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", dir, err)
		}
		parts := strings.Split(strings.TrimPrefix(nameOf(item.Key), strings.TrimPrefix(below(dir), dataPrefix)), "/")
		if !recursive {
			parts = parts[:1]
		}
		for i := range parts {
			found[path.Join(append([]string{dir}, parts[:i+1]...)...)] = true
		}
	}
	if len(found) == 0 && dir != "" && !s.Exists(ctx, dir) {
		return nil, fmt.Errorf("list %s: %w", dir, fs.ErrNotExist)
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// Stat describes a value or a directory, or returns fs.ErrNotExist.
func (s *storage) Stat(ctx context.Context, key string) (certmagic.KeyInfo, error) {
	written, value, err := s.read(ctx, key)
	if err == nil {
		return certmagic.KeyInfo{Key: key, Modified: written, Size: int64(len(value)), IsTerminal: true}, nil
	}
	if errors.Is(err, fs.ErrNotExist) && s.Exists(ctx, key) {
		return certmagic.KeyInfo{Key: key}, nil
	}
	return certmagic.KeyInfo{}, err
}

// certificatesPrefix is where certmagic keeps certificates: certificates/ISSUER/HOST/HOST.crt, .key and .json.
const certificatesPrefix = "certificates/"

// hostOf is the host whose certificate a value belongs to; "" for others.
func hostOf(key string) string {
	rest, ok := strings.CutPrefix(key, certificatesPrefix)
	if parts := strings.Split(rest, "/"); ok && len(parts) == 3 {
		return parts[1]
	}
	return ""
}
