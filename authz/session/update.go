package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"doorward/authz/store"
)

// Update changes a live session and its tokens, and returns them as they are stored. change may be called several times, each time with what
// is stored; an error of it ends the update and is returned as it is. What names the session, its times and its provider's session stay as they
// are. When nothing but the tokens changed, the version stays, and with it all that was decided for the session. ErrNone when it is gone: a
// sign-out always wins.
func (s *Sessions) Update(ctx context.Context, id string, change func(*Session) error) (*Session, error) {
	for range tries {
		old, data, err := s.read(ctx, id)
		if err != nil {
			return nil, err
		}
		item, err := s.store.Get(ctx, tokensKey(id))
		if err != nil {
			return nil, absent("read the tokens of a session", err)
		}
		if err := s.open(item, (*storedTokens)(&old.Tokens)); err != nil {
			return nil, err
		}
		next, err := changed(old, change)
		if err != nil {
			return nil, err
		}
		ops, err := s.update(next, data, item)
		if err != nil {
			return nil, err
		}
		version, err := s.store.Apply(ctx, ops...)
		if errors.Is(err, store.ErrConflict) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("update session: %w", err)
		}
		if !ops[0].Guard {
			s.cache.dropSession(id)
			next.Version = uint64(version)
		}
		return next, nil
	}
	return nil, fmt.Errorf("update session: it changed %d times meanwhile: %w", tries, store.ErrConflict)
}

// changed is what change makes of a session, with what it must not change put back.
func changed(old *Session, change func(*Session) error) (*Session, error) {
	next := *old
	if err := change(&next); err != nil {
		return nil, err
	}
	next.ID, next.Version, next.Created, next.Expires = old.ID, old.Version, old.Created, old.Expires
	next.Provider, next.Issuer, next.Subject, next.SID, next.Browser = old.Provider, old.Issuer, old.Subject, old.SID, old.Browser
	return &next, nil
}

// update returns the writes, the session's first: a mere condition when its JSON stays as data has it.
func (s *Sessions) update(next *Session, data []byte, tokens store.Item) ([]store.Op, error) {
	after, err := encode(next)
	if err != nil {
		return nil, err
	}
	secrets, err := encode(storedTokens(next.Tokens))
	if err != nil {
		return nil, err
	}
	key := sessionKey(next.ID)
	record := store.Op{Key: key, Guard: true, Expect: store.Version(next.Version)}
	if !bytes.Equal(after, data) {
		record.Guard, record.Value, record.Expires = false, s.sealer.Seal(key, after), next.Expires
	}
	return []store.Op{record, {Key: tokens.Key, Value: s.sealer.Seal(tokens.Key, secrets), Expires: next.Expires, Expect: tokens.Version}}, nil
}
