package session

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync"

	"doorward/authz/store"
)

// maxAsking bounds the lookups that ask the store at one time, so that cookies made up by a stranger cannot take it from everybody
// else. The others wait, for as long as their context lets them.
const maxAsking = 64

// Find returns the live session of a cookie's value on a host, or ErrNone. On the common path it reads memory only. Any other
// error means that the store could not be asked: deny.
func (s *Sessions) Find(ctx context.Context, cookie, host string) (*Session, error) {
	hash, ok := hashCookie(cookie)
	if !ok {
		return nil, ErrNone
	}
	now := s.now()
	held := s.cache.find(hash, now)
	switch {
	case held.unknown, held.linked && held.host != host:
		return nil, ErrNone
	case held.session == nil && held.packed == nil:
		return s.ask(ctx, hash, host, held)
	case held.session == nil:
		session, size, err := s.cache.packer.unpack(held.packed)
		if err != nil {
			return nil, fmt.Errorf("unpack a session: %w", err)
		}
		s.cache.warm(held.generation, held.id, session, size)
		held.session = session
	}
	if !now.Before(held.session.Expires) {
		return nil, ErrNone
	}
	return s.used(ctx, held.session)
}

// used notes the use of a session; ErrNone when it is one too late.
func (s *Sessions) used(ctx context.Context, session *Session) (*Session, error) {
	switch over, err := s.idle(ctx, session); {
	case err != nil:
		return nil, err
	case over:
		return nil, ErrNone
	}
	return session, nil
}

// ask reads from the store what the cache does not hold.
func (s *Sessions) ask(ctx context.Context, hash [32]byte, host string, held found) (*Session, error) {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	l := link{Session: hex.EncodeToString(held.id[:]), Host: held.host}
	session, err := s.fetch(ctx, hash, &l, held)
	if errors.Is(err, ErrNone) {
		s.cache.keepUnknown(held.generation, hash, s.now())
	}
	if err != nil {
		return nil, err
	}
	if l.Host != host {
		return nil, ErrNone
	}
	return s.used(ctx, session)
}

// fetch reads a cookie's record, unless it is held, and its session's, and has the cache hold both.
func (s *Sessions) fetch(ctx context.Context, hash [32]byte, l *link, held found) (*Session, error) {
	if !held.linked {
		item, err := s.store.Get(ctx, cookieKey(hash))
		if err != nil {
			return nil, absent("read a cookie", err)
		}
		if err := s.open(item, l); err != nil {
			return nil, err
		}
	}
	session, data, err := s.read(ctx, l.Session)
	if err != nil {
		return nil, err
	}
	s.cache.keep(held.generation, hash, *l, session, data)
	return session, nil
}

// Run drops cached sessions as the store reports changes, and notes their use, until ctx ends or the store is closed. What has expired is collected by the
// store. While the store cannot be watched nothing is cached.
func (s *Sessions) Run(ctx context.Context) error {
	var uses sync.WaitGroup
	defer uses.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	uses.Go(func() { s.followUses(ctx) })
	if err := store.Follow(ctx, s.follow); err != nil {
		return fmt.Errorf("watch sessions: %w", err)
	}
	return nil
}

// follow keeps the cache for as long as the store tells its changes.
func (s *Sessions) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sessions, err := s.store.Watch(ctx, sessionPrefix)
	if err != nil {
		return err
	}
	cookies, err := s.store.Watch(ctx, cookiePrefix)
	if err != nil {
		return err
	}
	s.cache.start()
	defer s.cache.stop()
	for {
		var event store.Event
		var ok bool
		select {
		case event, ok = <-sessions:
		case event, ok = <-cookies:
		}
		if !ok {
			return nil
		}
		s.drop(event.Key)
	}
}

// drop forgets what a changed key gave. The empty key stands for all.
func (s *Sessions) drop(key string) {
	if id, ok := strings.CutPrefix(key, sessionPrefix); ok {
		s.cache.dropSession(id)
		return
	}
	if encoded, ok := strings.CutPrefix(key, cookiePrefix); ok {
		var hash [32]byte
		if n, err := hex.Decode(hash[:], []byte(encoded)); err == nil && n == len(hash) {
			s.cache.dropCookie(hash)
			return
		}
	}
	s.cache.dropAll()
}
