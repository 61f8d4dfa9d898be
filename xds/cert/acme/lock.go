package acme

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"doorward/authz/store"
)

const (
	// leaseTime is how long a lock outlives a holder that was killed. It is renewed three times in that time.
	leaseTime = 30 * time.Second
	// The wait between two tries to get a lock that somebody has: it doubles from the first to the last.
	firstTry, lastTry = 50 * time.Millisecond, time.Second
	// renewTimeout bounds one renewal of a lease.
	renewTimeout = 5 * time.Second
)

// issueLock is the name of the lock under which certmagic gets a host's certificate.
func issueLock(host string) string { return "issue_cert_" + host }

// errLost is a write that came after the writer's lock had gone to somebody else.
var errLost = errors.New("the lock was lost: its lease ran out and somebody else may have taken it")

// lease is a lock that is held: an item of the store that expires unless it is renewed.
type lease struct {
	key   string
	owner string // random, so that a renewal whose outcome was not learnt is known again
	stop  context.CancelFunc
	done  chan struct{} // closed once it is renewed no more

	gate    chan struct{} // holds one token for whoever reads or changes what follows
	version store.Version
	lost    bool
}

// enter waits for the token; leave gives it back. It is a channel, so that a context can end the wait.
func (l *lease) enter(ctx context.Context) error {
	select {
	case l.gate <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l *lease) leave() { <-l.gate }

// Lock gets a lock, for which it waits as long as somebody else holds it.
func (s *storage) Lock(ctx context.Context, name string) error {
	for wait := firstTry; ; wait = min(2*wait, lastTry) {
		if ok, err := s.TryLock(ctx, name); ok || err != nil {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("wait for lock %s: %w", name, ctx.Err())
		}
	}
}

// TryLock gets a lock if nobody holds it. Until Unlock its lease is renewed in the background.
func (s *storage) TryLock(ctx context.Context, name string) (bool, error) {
	l := &lease{key: lockPrefix + name, owner: rand.Text(), done: make(chan struct{}), gate: make(chan struct{}, 1)}
	var err error
	l.version, err = s.store.Apply(ctx, s.prolong(l, store.Absent))
	if errors.Is(err, store.ErrConflict) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("take lock %s: %w", name, err)
	}
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	l.stop = stop
	s.mu.Lock()
	s.held[name] = l
	s.mu.Unlock()
	go s.keep(keep, l)
	return true, nil
}

// keep renews a lease until ctx ends, or somebody else has it.
func (s *storage) keep(ctx context.Context, l *lease) {
	defer close(l.done)
	tick := time.NewTicker(s.lease / 3)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.renew(ctx, l) {
			return
		}
	}
}

// renew prolongs a lease once and says whether it is lost. A store that does not answer is asked again at the next turn.
func (s *storage) renew(ctx context.Context, l *lease) (lost bool) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	if l.enter(ctx) != nil {
		return false
	}
	defer l.leave()
	version, err := s.store.Apply(ctx, s.prolong(l, l.version))
	if err == nil {
		l.version = version
		return false
	}
	if !errors.Is(err, store.ErrConflict) {
		return false
	}
	item, err := s.store.Get(ctx, l.key)
	switch {
	case err == nil && string(item.Value) == l.owner:
		l.version = item.Version // an earlier renewal was made although its answer did not come
	case err == nil || errors.Is(err, store.ErrNotFound):
		l.lost = true
	}
	return l.lost
}

func (s *storage) prolong(l *lease, expect store.Version) store.Op {
	return store.Op{Key: l.key, Value: []byte(l.owner), Expires: s.now().Add(s.lease), Expect: expect}
}

// Unlock gives a lock back. One that was lost meanwhile is somebody else's, and stays so.
func (s *storage) Unlock(ctx context.Context, name string) error {
	s.mu.Lock()
	l := s.held[name]
	delete(s.held, name)
	s.mu.Unlock()
	if l == nil {
		return fmt.Errorf("release lock %s: it is not held", name)
	}
	l.stop()
	<-l.done
	if err := l.enter(ctx); err != nil {
		return fmt.Errorf("release lock %s: %w", name, err)
	}
	defer l.leave()
	if l.lost {
		return nil
	}
	if _, err := s.store.Apply(ctx, store.Op{Key: l.key, Expect: l.version}); err != nil && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("release lock %s: %w", name, err)
	}
	return nil
}

// write applies one operation. If this process holds the lock of the host that the key belongs to, the operation depends on that: a process that
// stood still for longer than its lease writes nothing over what its successor has made.
func (s *storage) write(ctx context.Context, key string, op store.Op) error {
	s.mu.Lock()
	l := s.held[issueLock(hostOf(key))]
	s.mu.Unlock()
	if l == nil {
		_, err := s.store.Apply(ctx, op)
		return err
	}
	if err := l.enter(ctx); err != nil {
		return err
	}
	defer l.leave()
	if l.lost {
		return errLost
	}
	_, err := s.store.Apply(ctx, op, store.Op{Key: l.key, Expect: l.version, Guard: true})
	if errors.Is(err, store.ErrConflict) {
		l.lost = true
		return errLost
	}
	return err
}
