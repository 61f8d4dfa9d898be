package bearer

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"time"

	"doorward/authz/store"
)

const (
	// useEvery is how exactly the last use of a token is known, and how often it is written.
	useEvery = time.Minute
	// usesAtOnce bounds one write of last uses.
	usesAtOnce = 200
)

// Run holds the tokens in memory and follows their changes, until ctx ends or the store is closed. While the store cannot be watched every
// lookup asks it.
func (s *ServiceTokens) Run(ctx context.Context) error {
	if err := store.Follow(ctx, s.follow); err != nil {
		return fmt.Errorf("watch service tokens: %w", err)
	}
	return nil
}

func (s *ServiceTokens) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events, err := s.Store.Watch(ctx, recordPrefix)
	if err != nil {
		return err
	}
	defer s.forget()
	if err := s.load(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(useEvery)
	defer tick.Stop()
	for {
		select {
		case event, ok := <-events:
			if !ok {
				return nil
			}
			if err := s.changed(ctx, event.Key); err != nil {
				return err
			}
		case <-tick.C:
			if err := s.writeUses(ctx); err != nil {
				s.Log.Warn("when service tokens were last used cannot be written", "cause", err)
			}
		}
	}
}

// load reads all tokens anew.
func (s *ServiceTokens) load(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := s.readAll(ctx)
	if err != nil {
		return err
	}
	if before := s.known.Load(); before != nil {
		for hash, h := range *all {
			h.keepUse((*before)[hash])
		}
	}
	s.known.Store(all)
	return nil
}

// forget has every lookup ask the store.
func (s *ServiceTokens) forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known.Store(nil)
}

// changed reads the token of a key anew; the empty key stands for all.
func (s *ServiceTokens) changed(ctx context.Context, key string) error {
	hash, ok := hashOf(key)
	if !ok {
		return s.load(ctx)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.known.Load()
	if before == nil {
		return nil // lookups ask the store
	}
	h, err := s.read(ctx, hash)
	if err != nil {
		s.known.Store(nil)
		return err
	}
	next := maps.Clone(*before)
	delete(next, hash)
	if h != nil {
		h.keepUse((*before)[hash])
		next[hash] = h
	}
	s.known.Store(&next)
	return nil
}

func (h *held) keepUse(before *held) {
	if before != nil {
		h.used, h.written = before.used, before.written
	}
}

// writeUses writes when tokens were last used, of those that were since it was last written.
func (s *ServiceTokens) writeUses(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.known.Load()
	if known == nil {
		return nil
	}
	var ops []store.Op
	uses := make(map[*held]int64)
	for hash, h := range *known {
		used := h.used.Load()
		if used == h.written || len(ops) == usesAtOnce {
			continue
		}
		uses[h] = used
		ops = append(ops, store.Op{
			Key: usedPrefix + hex.EncodeToString(hash[:]), Value: binary.BigEndian.AppendUint64(nil, uint64(used)), Expires: h.record.Expires, Expect: store.Any,
		})
	}
	if len(ops) == 0 {
		return nil
	}
	if _, err := s.Store.Apply(ctx, ops...); err != nil {
		return err
	}
	for h, used := range uses {
		h.written = used
	}
	return nil
}

// Watch reports the IDs of sessions of service tokens that were made or revoked, as session.Sessions.Watch does.
func (f *Finder) Watch(ctx context.Context) (<-chan string, error) {
	return store.Names(ctx, f.Service.Store, recordPrefix, func(key string) string {
		if hash, ok := hashOf(key); ok {
			return hex.EncodeToString(hash[:16])
		}
		return ""
	})
}
