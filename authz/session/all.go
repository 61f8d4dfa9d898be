package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// pageSize is how many records are read at a time.
const pageSize = 500

// All calls f with each live session, without its tokens, in no particular order, until f returns false. Sessions that begin or end meanwhile may
// be left out.
func (s *Sessions) All(ctx context.Context, f func(*Session) bool) error {
	for after := ""; ; {
		items, err := s.store.List(ctx, sessionPrefix, after, pageSize)
		if err != nil {
			return fmt.Errorf("list sessions: %w", err)
		}
		for _, item := range items {
			after = item.Key
			session, _, err := s.read(ctx, strings.TrimPrefix(item.Key, sessionPrefix))
			if errors.Is(err, ErrNone) {
				continue
			}
			if err != nil {
				return err
			}
			if !f(session) {
				return nil
			}
		}
		if len(items) < pageSize {
			return nil
		}
	}
}

// RevokeEverything ends every session, and refuses every sign-in that has begun but is not yet stored. It returns how many sessions it ended.
func (s *Sessions) RevokeEverything(ctx context.Context) (n int, err error) {
	if _, err := s.store.Apply(ctx, s.tombstone(everybody, "", "")); err != nil {
		return 0, fmt.Errorf("revoke all sessions: %w", err)
	}
	for {
		items, err := s.store.List(ctx, sessionPrefix, "", pageSize)
		if err != nil {
			return n, fmt.Errorf("revoke all sessions: %w", err)
		}
		for _, item := range items {
			if err := s.revoke(ctx, strings.TrimPrefix(item.Key, sessionPrefix), item.Key); err != nil {
				return n, err
			}
			n++
		}
		if len(items) < pageSize {
			return n, nil
		}
	}
}
