package bolt

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"doorward/authz/store"

	"go.etcd.io/bbolt"
)

// request is one Apply on its way through the writer.
type request struct {
	ctx     context.Context
	ops     []store.Op
	records []record // what the ops write, nil for a deletion
	reply   chan result
}

type result struct {
	version store.Version
	err     error
}

// Apply implements store.Store.
func (s *Store) Apply(ctx context.Context, ops ...store.Op) (store.Version, error) {
	if err := store.CheckOps(ops); err != nil {
		return 0, err
	}
	r := &request{ctx: ctx, ops: append([]store.Op(nil), ops...), records: make([]record, len(ops)), reply: make(chan result, 1)}
	for i, op := range ops {
		if op.Value != nil {
			r.records[i] = newRecord(op.Value, op.Expires)
		}
	}
	select {
	case <-s.closing:
		return 0, store.ErrClosed
	default:
	}
	select {
	case s.requests <- r:
	case <-s.closing:
		return 0, store.ErrClosed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	select {
	case out := <-r.reply:
		return out.version, out.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// write makes all changes until the store is closed. Every request that it takes is answered.
func (s *Store) write() {
	defer close(s.done)
	tick := time.NewTicker(s.every)
	defer tick.Stop()
	more := make(chan struct{}, 1) // full when the last collection left something behind
	for {
		select {
		case r := <-s.requests:
			s.commit(s.group(r))
			continue
		case <-tick.C:
		case <-more:
		case <-s.closing:
			return
		}
		// An error leaves the items where they are, invisible, for the next tick.
		if s.collect() == collectAtOnce {
			select {
			case more <- struct{}{}:
			default:
			}
		}
	}
}

// group adds the requests that are waiting to the first one.
func (s *Store) group(first *request) []*request {
	group := []*request{first}
	for len(group) < groupAtOnce {
		select {
		case r := <-s.requests:
			group = append(group, r)
		default:
			return group
		}
	}
	return group
}

// errNothing rolls back a transaction that would write nothing.
var errNothing = errors.New("nothing to write")

// commit applies each request of a group by itself, in one transaction. A request that cannot be applied changes nothing and leaves the
// others alone; a transaction that fails fails for all.
func (s *Store) commit(group []*request) {
	results := make([]result, len(group))
	var changed []string
	err := s.db.Update(func(tx *bbolt.Tx) error {
		now := s.now()
		applied := false
		for i, r := range group {
			if results[i].err = cmp.Or(r.ctx.Err(), expectations(tx, r.ops, now)); results[i].err != nil {
				continue
			}
			keys, version, err := apply(tx, r)
			if err != nil {
				return err
			}
			results[i].version = version
			changed = append(changed, keys...)
			applied = true
		}
		if !applied {
			return errNothing
		}
		return nil
	})
	failed := err != nil && !errors.Is(err, errNothing)
	if !failed {
		s.hub.Publish(changed...)
	}
	for i, r := range group {
		if failed {
			results[i] = result{err: fmt.Errorf("write store: %w", err)}
		}
		r.reply <- results[i]
	}
}

// expectations says whether the batch may be applied.
func expectations(tx *bbolt.Tx, ops []store.Op, now time.Time) error {
	items := tx.Bucket(itemBucket)
	for _, op := range ops {
		if op.Expect == store.Any {
			continue
		}
		found := store.Absent
		if r, ok := live(items.Get([]byte(op.Key)), now); ok {
			found = r.version()
		}
		if found != op.Expect {
			return fmt.Errorf("%q: %w", op.Key, store.ErrConflict)
		}
	}
	return nil
}

// apply makes the changes of one batch and returns the keys that it changed. An error leaves the transaction unusable.
func apply(tx *bbolt.Tx, r *request) ([]string, store.Version, error) {
	version, err := nextVersion(tx)
	if err != nil {
		return nil, 0, err
	}
	items, expiries := tx.Bucket(itemBucket), tx.Bucket(expiryBucket)
	var changed []string
	for i, op := range r.ops {
		if op.Guard {
			continue
		}
		key := []byte(op.Key)
		old := record(items.Get(key))
		if old == nil && op.Value == nil {
			continue
		}
		if old != nil && old.expires() != 0 {
			if err := expiries.Delete(expiryKey(old.expires(), key)); err != nil {
				return nil, 0, err
			}
		}
		if err := put(items, expiries, key, r.records[i], version); err != nil {
			return nil, 0, err
		}
		changed = append(changed, op.Key)
	}
	return changed, version, nil
}

// put writes a record, or deletes the key when it is nil.
func put(items, expiries *bbolt.Bucket, key []byte, r record, version store.Version) error {
	if r == nil {
		return items.Delete(key)
	}
	r.setVersion(version)
	if r.expires() != 0 {
		if err := expiries.Put(expiryKey(r.expires(), key), nil); err != nil {
			return err
		}
	}
	return items.Put(key, r)
}

func nextVersion(tx *bbolt.Tx) (store.Version, error) {
	meta := tx.Bucket(metaBucket)
	var version uint64
	if data := meta.Get([]byte(versionKeyName)); len(data) == 8 {
		version = binary.BigEndian.Uint64(data)
	}
	version++
	return store.Version(version), meta.Put([]byte(versionKeyName), number(version))
}

// collect removes expired items, at most collectAtOnce, and returns how many.
func (s *Store) collect() int {
	now := expiryNumber(s.now())
	if !s.due(now) {
		return 0
	}
	var collected []string
	err := s.db.Update(func(tx *bbolt.Tx) error {
		items, expiries := tx.Bucket(itemBucket), tx.Bucket(expiryBucket)
		var keys [][]byte
		c := expiries.Cursor()
		for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= now && len(keys) < collectAtOnce; k, _ = c.Next() {
			keys = append(keys, bytes.Clone(k))
		}
		for _, k := range keys {
			if err := expiries.Delete(k); err != nil {
				return err
			}
			if err := items.Delete(k[8:]); err != nil {
				return err
			}
			collected = append(collected, string(k[8:]))
		}
		return nil
	})
	if err != nil {
		return 0
	}
	s.hub.Publish(collected...)
	return len(collected)
}

// due says whether an item has expired, so that an idle store is not written.
func (s *Store) due(now uint64) bool {
	due := false
	err := s.db.View(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(expiryBucket).Cursor().First()
		due = k != nil && binary.BigEndian.Uint64(k) <= now
		return nil
	})
	return err == nil && due
}
