package token

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"doorward/authz/store"
)

const (
	// tidyEvery is how often Run looks for what is due, and retryWatch how long it waits for a store.
	tidyEvery  = time.Minute
	retryWatch = 200 * time.Millisecond
	// settled is for how long the clock has to go evenly before Run changes anything by it. A clock that is wrong for less than that does no
	// harm.
	settled = 10 * tidyEvery
)

// Refusal is why something was not done that an operator asked for, and what to do about it. Nothing has changed.
type Refusal string

// Error is the reason.
func (r Refusal) Error() string { return string(r) }

// ensure adds the key that should sign, if it is not the last one already. File is that of a signing_key_file, or nil.
func (r *Ring) ensure(rec record, file *key, now time.Time) (record, error) {
	if file != nil && rec.withdrew(file.id) {
		if len(rec.keys) > 0 {
			return rec, nil // what signs goes on until the file has another key
		}
		file = nil
	}
	rec.keys = r.postpone(rec.keys, now)
	done := func() bool {
		n := len(rec.keys)
		return n > 0 && (file == nil && !rec.keys[n-1].file || file != nil && rec.keys[n-1].id == file.id)
	}
	if done() {
		return rec, nil
	}
	// A key that has not signed is not needed, but a replica whose clock is ahead may have begun to use one that is due.
	active := rec.keys[:min(len(rec.keys), activeAt(rec.keys, now)+1)]
	rec.keys = filter(rec.keys, func(i int, k *key) bool {
		return i < len(active) || !k.signsFrom.After(now.Add(r.config.skew()))
	})
	if done() {
		return rec, nil
	}
	return r.add(rec, file, now)
}

// postpone has keys that wait to sign wait for as long as they should, when consumers may now cache for longer than when they were added.
func (r *Ring) postpone(keys []*key, now time.Time) []*key {
	changed := slices.Clone(keys)
	for i, k := range keys {
		if due := k.created.Add(r.config.lead()); k.signsFrom.After(now.Add(r.config.skew())) && k.signsFrom.Before(due) {
			changed[i] = k.from(k.created, due)
		}
	}
	return changed
}

// add appends the file's key or a new one. The first of all signs at once.
func (r *Ring) add(rec record, file *key, now time.Time) (record, error) {
	next := file
	if next == nil {
		var err error
		if next, err = generateKey(); err != nil {
			return rec, err
		}
	}
	// A file's key may have signed before. It is published all along, and signs again when every other one would.
	active := activeAt(rec.keys, now)
	rec.keys = filter(rec.keys, func(i int, k *key) bool { return i == active || k.id != next.id })
	signs := now
	if len(rec.keys) > 0 {
		signs = now.Add(r.config.lead())
	}
	rec.keys = append(rec.keys, next.from(now, signs))
	return rec, nil
}

// from is the key with other times.
func (k *key) from(created, signs time.Time) *key {
	other := *k
	other.created, other.signsFrom = created, signs
	return &other
}

// Rotate publishes a new key that will sign as soon as no consumer can hold a key set without it. The error is a Refusal while one waits
// already, and when the key is given by a file: that is rotated by putting another key there.
//
// A key that waits since a moment that is still to come was added by a clock that was wrong: it is published anew instead.
func (r *Ring) Rotate(ctx context.Context) error {
	source := r.source.Load()
	return r.update(ctx, func(rec record, now time.Time) (record, error) {
		rec.keys = living(rec.keys, now)
		next := pending(rec.keys, now)
		switch {
		case next != nil && r.early(next, now):
			rec.keys = slices.Clone(rec.keys)
			rec.keys[slices.Index(rec.keys, next)] = next.from(now, now.Add(r.config.lead()))
			return rec, nil
		case next != nil:
			return rec, Refusal(fmt.Sprintf("rotate signing key: %s is published already and signs from %s; until then there can be no other rotation",
				next.id, stamp(next.signsFrom)))
		case source.gives(rec):
			return rec, Refusal(fmt.Sprintf("rotate signing key: it is given by jwt.signing_key_file: put another key into %s", source.SigningKeyFile))
		}
		return r.add(rec, nil, now)
	})
}

// gives says whether keys come from a file; one whose key was withdrawn gives none.
func (s *source) gives(rec record) bool { return s.file != nil && !rec.withdrew(s.file.id) }

// early says whether a key was added by a clock that was ahead of ours.
func (r *Ring) early(k *key, now time.Time) bool { return k.created.After(now.Add(r.config.skew())) }

// stamp is a moment in messages.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// tend does what is due: it adds a key when the schedule has the active one replaced, and takes those from the record that are no longer
// published. Of several replicas the first one does it.
func (r *Ring) tend(rec record, now time.Time) (record, error) {
	rec.keys = living(rec.keys, now)
	source := r.source.Load()
	if at := r.due(rec, source, now); at.IsZero() || now.Before(at) {
		return rec, nil
	}
	return r.add(rec, nil, now)
}

// due is when the schedule adds a key: early enough for it to sign when the active one has signed for as long as it should. Zero for never,
// or while one waits.
func (r *Ring) due(rec record, source *source, now time.Time) time.Time {
	if source.RotateEvery == 0 || source.gives(rec) || pending(rec.keys, now) != nil {
		return time.Time{}
	}
	return rec.keys[activeAt(rec.keys, now)].signsFrom.Add(source.RotateEvery - r.config.lead())
}

// Run takes over the keys that other replicas add, rotates them when that is due, and removes from the store those that are no longer
// published, until ctx ends or the store is closed. For some time after a start, and after the clock has jumped, it only listens, in case it
// jumps back.
func (r *Ring) Run(ctx context.Context) error {
	unchanged := func(rec record, _ time.Time) (record, error) { return rec, nil }
	tidy := time.NewTicker(tidyEvery)
	defer tidy.Stop()
	even := newPace(r.config.Now(), time.Now())
	var events <-chan store.Event
	for ctx.Err() == nil {
		var err error
		if events == nil {
			events, err = r.config.Store.Watch(ctx, ringKey)
		}
		change := unchanged
		if even.steady(r.config.Now(), time.Now(), r.config.skew()) {
			change = r.tend
		}
		if err == nil {
			err = r.update(ctx, change) // an error leaves the keys that are known in use
		}
		if errors.Is(err, store.ErrClosed) {
			return fmt.Errorf("watch signing keys: %w", err)
		}
		r.failed(err)
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

func (r *Ring) failed(err error) {
	if err == nil {
		r.fault.Store(nil)
		return
	}
	text := err.Error()
	r.fault.Store(&text)
}

// pace tells whether the wall clock goes as the monotonic one does.
type pace struct {
	wall, monotonic time.Time // when last looked
	since           time.Time // on the monotonic clock: no jump after it
}

func newPace(wall, monotonic time.Time) *pace { return &pace{wall.Round(0), monotonic, monotonic} }

// steady says whether there was no jump by more than tolerance for long enough.
func (p *pace) steady(wall, monotonic time.Time, tolerance time.Duration) bool {
	wall = wall.Round(0)
	if drift := wall.Sub(p.wall) - monotonic.Sub(p.monotonic); drift.Abs() > tolerance {
		p.since = monotonic
	}
	p.wall, p.monotonic = wall, monotonic
	return monotonic.Sub(p.since) >= settled
}
