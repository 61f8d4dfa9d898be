package session

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"doorward/authz/store"
)

// tombstoneLife is how long a sign-out is remembered: longer than any sign-in that it may race, whose state is good for five minutes.
const tombstoneLife = time.Hour

// Revoke ends a session and all its cookies, and leaves an (issuer, sid) tombstone. Revoking one that is gone is no error.
func (s *Sessions) Revoke(ctx context.Context, id string) error {
	if !validID(id) {
		return nil
	}
	return s.revoke(ctx, id)
}

// revoke also deletes the given keys.
func (s *Sessions) revoke(ctx context.Context, id string, keys ...string) error {
	defer s.cache.dropSession(id) // whatever happened: a lookup asks the store
	session, _, err := s.read(ctx, id)
	if err != nil && !errors.Is(err, ErrNone) {
		return fmt.Errorf("revoke session: %w", err)
	}
	cookies, err := s.store.List(ctx, cookiesOf(id), "", 2*maxCookies)
	if err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	keys = append(keys, sessionKey(id), tokensKey(id), usedKey(id))
	for _, cookie := range cookies {
		keys = append(keys, cookie.Key, cookieOf(id, cookie.Key))
	}
	var ops []store.Op
	if session != nil {
		keys = append(keys, indices(session)...)
		if session.SID != "" {
			ops = append(ops, s.tombstone(bySID, session.Issuer, session.SID))
		}
	}
	slices.Sort(keys)
	for _, key := range slices.Compact(keys) {
		ops = append(ops, store.Op{Key: key, Expect: store.Any})
	}
	if _, err := s.store.Apply(ctx, ops...); err != nil {
		return fmt.Errorf("revoke session: %w", err)
	}
	return nil
}

// RevokeSID ends the sessions of a provider's session, and refuses every sign-in to it that has begun but is not yet stored.
func (s *Sessions) RevokeSID(ctx context.Context, issuer, sid string) error {
	return s.revokeAll(ctx, bySID, issuer, sid)
}

// KnowsSID says whether there is a session of a provider's session.
func (s *Sessions) KnowsSID(ctx context.Context, issuer, sid string) (bool, error) {
	items, err := s.store.List(ctx, byParty(bySID, issuer, sid), "", 1)
	if err != nil {
		return false, fmt.Errorf("look for sessions: %w", err)
	}
	return len(items) > 0, nil
}

// RevokeSubject ends the sessions of a provider's subject, and refuses every sign-in of theirs that has begun but is not yet stored.
func (s *Sessions) RevokeSubject(ctx context.Context, issuer, subject string) error {
	return s.revokeAll(ctx, bySubject, issuer, subject)
}

// revokeAll leaves the tombstone first: a sign-in stored before it is in the index, one after it is refused.
func (s *Sessions) revokeAll(ctx context.Context, kind, issuer, of string) error {
	if issuer == "" || of == "" {
		return fmt.Errorf("revoke sessions: no issuer or no %s", kind)
	}
	if _, err := s.store.Apply(ctx, s.tombstone(kind, issuer, of)); err != nil {
		return fmt.Errorf("revoke sessions: %w", err)
	}
	index := byParty(kind, issuer, of)
	for {
		ids, err := s.listed(ctx, index)
		if err != nil {
			return err
		}
		for _, id := range ids {
			// The entry is named, because a session whose record does not open cannot name it.
			if err := s.revoke(ctx, id, index+id); err != nil {
				return err
			}
		}
		if len(ids) < maxListed {
			return nil
		}
	}
}

func (s *Sessions) tombstone(kind, issuer, of string) store.Op {
	now := s.now()
	return store.Op{
		Key:     signedOut(kind, issuer, of),
		Value:   binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())),
		Expires: now.Add(tombstoneLife),
		Expect:  store.Any,
	}
}
