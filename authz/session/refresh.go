package session

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"doorward/authz/store"
)

// refreshPrefix begins the keys that say which session is to be refreshed when: refresh-due/<Unix seconds, 11 digits>/<id>, so that the first
// keys are those that are due. A session has one at most.
const refreshPrefix = "refresh-due/"

func refreshKey(at time.Time, id string) string {
	return fmt.Sprintf("%s%011d/%s", refreshPrefix, max(0, at.Unix()), id)
}

// Refresh is one session that its owner has to refresh: nobody else gets it before Until.
type Refresh struct {
	ID    string
	Until time.Time
	item  store.Item
}

// Due takes sessions whose refresh is due, at most limit, which may be 0, and makes the caller their owner for as long as lease. An owner that is not heard of
// until then, because it crashed, is followed by another.
func (s *Sessions) Due(ctx context.Context, lease time.Duration, limit int) (owned []Refresh, err error) {
	if limit < 1 {
		return nil, nil
	}
	items, err := s.store.List(ctx, refreshPrefix, "", limit)
	if err != nil {
		return nil, fmt.Errorf("list due refreshes: %w", err)
	}
	now := s.now()
	for _, item := range items {
		at, id, ok := parseRefresh(item.Key)
		if ok && at.After(now) {
			break
		}
		if !ok {
			return nil, fmt.Errorf("the store has a key that is no refresh: %q", item.Key)
		}
		r := Refresh{ID: id, Until: now.Add(lease)}
		r.item = store.Item{Key: refreshKey(r.Until, id), Expires: item.Expires}
		r.item.Version, err = s.store.Apply(ctx, moved(item, r.item)...)
		if errors.Is(err, store.ErrConflict) {
			continue // another owner was quicker
		}
		if err != nil {
			return owned, fmt.Errorf("take a due refresh: %w", err)
		}
		owned = append(owned, r)
	}
	return owned, nil
}

// moved are the writes that put one key in another's place.
func moved(from, to store.Item) []store.Op {
	ops := []store.Op{{Key: to.Key, Value: []byte{}, Expires: to.Expires, Expect: store.Any}}
	if from.Key != to.Key {
		ops = append(ops, store.Op{Key: from.Key, Expect: from.Version})
	} else {
		ops[0].Expect = from.Version
	}
	return ops
}

// Again says when an owned session is to be refreshed next. The zero time means never.
func (s *Sessions) Again(ctx context.Context, r Refresh, at time.Time) error {
	ops := []store.Op{{Key: r.item.Key, Expect: r.item.Version}}
	if !at.IsZero() {
		ops = moved(r.item, store.Item{Key: refreshKey(at, r.ID), Expires: r.item.Expires})
	}
	if _, err := s.store.Apply(ctx, ops...); err != nil && !errors.Is(err, store.ErrConflict) { // a conflict: the lease has ended
		return fmt.Errorf("note the next refresh: %w", err)
	}
	return nil
}

func parseRefresh(key string) (at time.Time, id string, ok bool) {
	digits, id, ok := strings.Cut(strings.TrimPrefix(key, refreshPrefix), "/")
	seconds, err := strconv.ParseInt(digits, 10, 64)
	return time.Unix(seconds, 0), id, ok && err == nil && validID(id)
}
