package session

import (
	"context"
	"fmt"
	"strings"

	"doorward/authz/store"
)

// All calls f with each live session, without its tokens, in no particular order, until f returns false. Sessions that begin or end meanwhile may
// be left out.
func (s *Sessions) All(ctx context.Context, f func(*Session) bool) error {
	for item, err := range store.All(ctx, s.store, sessionPrefix) {
		if err != nil {
			return fmt.Errorf("list sessions: %w", err)
		}
		session, _, err := s.live(item)
		if err != nil {
			continue // it is over, or nobody's
		}
		if !f(session) {
			break
		}
	}
	return nil
}

// RevokeEverything ends every session, and refuses every sign-in that has begun but is not yet stored. It returns how many sessions it ended.
func (s *Sessions) RevokeEverything(ctx context.Context) (n int, err error) {
	if _, err := s.store.Apply(ctx, s.tombstone(everybody, "", "")); err != nil {
		return 0, fmt.Errorf("revoke all sessions: %w", err)
	}
	for item, err := range store.All(ctx, s.store, sessionPrefix) {
		if err != nil {
			return n, fmt.Errorf("revoke all sessions: %w", err)
		}
		if err := s.revoke(ctx, strings.TrimPrefix(item.Key, sessionPrefix), item.Key); err != nil {
			return n, err
		}
		n++
	}
	return n, nil
}
