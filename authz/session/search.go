package session

import (
	"context"
	"fmt"
)

// Bounds of a search.
const (
	searchPage = 500
	searchAll  = 200_000 // sessions looked at
)

// Newest returns the session that was created last of those that match, without its tokens, or ErrNone. It reads every session, so it is
// for operators and not for requests.
func (s *Sessions) Newest(ctx context.Context, match func(*Session) bool) (*Session, error) {
	var newest *Session
	after := ""
	for looked := 0; looked < searchAll; {
		items, err := s.store.List(ctx, sessionPrefix, after, searchPage)
		if err != nil {
			return nil, fmt.Errorf("search sessions: %w", err)
		}
		for _, item := range items {
			data, err := s.sealer.Open(item.Key, item.Value)
			if err != nil {
				continue // sealed with a key that is gone: nobody can use it either
			}
			found, err := decodeSession(data, item.Version)
			if err != nil || !s.now().Before(found.Expires) || !match(found) {
				continue
			}
			if newest == nil || found.Created.After(newest.Created) {
				newest = found
			}
		}
		if len(items) < searchPage {
			break
		}
		looked += len(items)
		after = items[len(items)-1].Key
	}
	if newest == nil {
		return nil, ErrNone
	}
	return newest, nil
}
