package session

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"doorward/authz/store"
)

const (
	// tries bounds how often a write is made again because somebody else's came between.
	tries = 10
	// maxCookies bounds the cookies of one session, one for each host and browser tab that raced. The oldest goes.
	maxCookies = 256
	// maxListed bounds the sessions of one subject that are listed or revoked at a time.
	maxListed = 100
)

// Create stores a new sign-in and returns it with ID, Version and Created set. ErrRevoked when its (issuer, sid) or (issuer, subject) was
// signed out after it started. Issuer, Subject, User.ID and an Expires to come are required.
func (s *Sessions) Create(ctx context.Context, in Session) (*Session, error) {
	if err := checkNew(&in, s.now()); err != nil {
		return nil, err
	}
	in.ID, in.Created = newID(), s.now()
	ops, data, err := s.creation(&in)
	if err != nil {
		return nil, err
	}
	for range tries {
		guards, err := s.notSignedOut(ctx, &in)
		if err != nil {
			return nil, err
		}
		version, err := s.store.Apply(ctx, append(guards, ops...)...)
		if errors.Is(err, store.ErrConflict) {
			continue // a sign-out came between: look at it
		}
		if err != nil {
			return nil, fmt.Errorf("create session: %w", err)
		}
		session, err := decodeSession(data, version)
		if err != nil {
			return nil, fmt.Errorf("create session: %w", err)
		}
		session.Tokens = in.Tokens
		return session, nil
	}
	return nil, fmt.Errorf("create session: %d sign-outs of it came between: %w", tries, store.ErrConflict)
}

// creation returns the writes of a new session, and its JSON.
func (s *Sessions) creation(in *Session) ([]store.Op, []byte, error) {
	data, err := encode(in)
	if err != nil {
		return nil, nil, err
	}
	tokens, err := encode(storedTokens(in.Tokens))
	if err != nil {
		return nil, nil, err
	}
	session, secrets := sessionKey(in.ID), tokensKey(in.ID)
	ops := []store.Op{
		{Key: session, Value: s.sealer.Seal(session, data)},
		{Key: secrets, Value: s.sealer.Seal(secrets, tokens)},
	}
	if !in.RefreshAt.IsZero() {
		ops = append(ops, store.Op{Key: refreshKey(in.RefreshAt, in.ID), Value: []byte{}})
	}
	for _, key := range indices(in) {
		ops = append(ops, store.Op{Key: key, Value: []byte{}})
	}
	for i := range ops {
		ops[i].Expires, ops[i].Expect = in.Expires, store.Absent
	}
	return ops, data, nil
}

// indices are the keys by which a sign-out finds the session.
func indices(in *Session) []string {
	keys := []string{byParty(bySubject, in.Issuer, in.Subject) + in.ID}
	if in.Browser != "" {
		keys = append(keys, byParty(byBrowser, "", in.Browser)+in.ID)
	}
	if in.SID != "" {
		keys = append(keys, byParty(bySID, in.Issuer, in.SID)+in.ID)
	}
	return keys
}

// notSignedOut returns the conditions under which the sign-in may be stored: that no sign-out is added to those that it has seen.
func (s *Sessions) notSignedOut(ctx context.Context, in *Session) ([]store.Op, error) {
	keys := []string{signedOut(everybody, "", ""), signedOut(bySubject, in.Issuer, in.Subject)}
	if in.SID != "" {
		keys = append(keys, signedOut(bySID, in.Issuer, in.SID))
	}
	var guards []store.Op
	for _, key := range keys {
		guard := store.Op{Key: key, Guard: true, Expect: store.Absent}
		item, err := s.store.Get(ctx, key)
		switch {
		case err == nil:
			if !in.Started.After(signOutTime(item.Value)) {
				return nil, ErrRevoked
			}
			guard.Expect = item.Version
		case !errors.Is(err, store.ErrNotFound):
			return nil, fmt.Errorf("read sign-outs: %w", err)
		}
		guards = append(guards, guard)
	}
	return guards, nil
}

// signOutTime reads a tombstone. One that cannot be read counts as a sign-out yet to come.
func signOutTime(value []byte) time.Time {
	if len(value) != 8 {
		return time.Unix(1<<40, 0)
	}
	return time.Unix(0, int64(binary.BigEndian.Uint64(value)))
}

// Issue makes a cookie for a session on one host (lower case, without port) and returns its value. ErrNone when the session is gone.
func (s *Sessions) Issue(ctx context.Context, id, host string) (string, error) {
	if host == "" || host != strings.ToLower(host) {
		return "", fmt.Errorf("issue cookie: %q is no host in lower case", host)
	}
	for range tries {
		session, _, err := s.read(ctx, id)
		if err != nil {
			return "", err
		}
		value, ops, err := s.issue(ctx, session, host)
		if err != nil {
			return "", err
		}
		if _, err := s.store.Apply(ctx, ops...); err == nil {
			return value, nil
		} else if !errors.Is(err, store.ErrConflict) {
			return "", fmt.Errorf("issue cookie: %w", err)
		}
		// The session changed meanwhile, or is gone.
	}
	return "", fmt.Errorf("issue cookie: its session changed %d times meanwhile: %w", tries, store.ErrConflict)
}

// issue returns a new value and the writes that make it good, as long as the session stays as it is.
func (s *Sessions) issue(ctx context.Context, session *Session, host string) (string, []store.Op, error) {
	value, hash := newCookie()
	data, err := encode(link{Session: session.ID, Host: host})
	if err != nil {
		return "", nil, err
	}
	key := cookieKey(hash)
	ops := []store.Op{
		{Key: sessionKey(session.ID), Guard: true, Expect: store.Version(session.Version)},
		{Key: key, Value: s.sealer.Seal(key, data), Expires: session.Expires},
		{Key: cookiesOf(session.ID) + strings.TrimPrefix(key, cookiePrefix), Value: []byte{}, Expires: session.Expires},
	}
	cookies, err := s.store.List(ctx, cookiesOf(session.ID), "", maxCookies)
	if err != nil {
		return "", nil, fmt.Errorf("list cookies: %w", err)
	}
	if len(cookies) == maxCookies {
		oldest := slices.MinFunc(cookies, func(a, b store.Item) int { return cmp.Compare(a.Version, b.Version) })
		ops = append(ops,
			store.Op{Key: oldest.Key, Expect: store.Any},
			store.Op{Key: cookieOf(session.ID, oldest.Key), Expect: store.Any})
	}
	return value, ops, nil
}

// cookieOf returns a cookie's key, given its key in the list of its session.
func cookieOf(id, listed string) string {
	return cookiePrefix + strings.TrimPrefix(listed, cookiesOf(id))
}

// List returns the live sessions of a subject, without their tokens: at most 100, in no particular order.
func (s *Sessions) List(ctx context.Context, issuer, subject string) ([]*Session, error) {
	return s.list(ctx, byParty(bySubject, issuer, subject))
}

// OfBrowser returns the live sessions of one browser, which are of different providers, without their tokens.
func (s *Sessions) OfBrowser(ctx context.Context, browser string) ([]*Session, error) {
	if browser == "" {
		return nil, nil
	}
	return s.list(ctx, byParty(byBrowser, "", browser))
}

func (s *Sessions) list(ctx context.Context, index string) ([]*Session, error) {
	var sessions []*Session
	ids, err := s.listed(ctx, index)
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		session, _, err := s.read(ctx, id)
		if errors.Is(err, ErrNone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		sessions = append(sessions, session)
	}
	return sessions, nil
}

// listed returns the session ids of an index, at most maxListed.
func (s *Sessions) listed(ctx context.Context, index string) ([]string, error) {
	items, err := s.store.List(ctx, index, "", maxListed)
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	ids := make([]string, len(items))
	for i, item := range items {
		ids[i] = strings.TrimPrefix(item.Key, index)
	}
	return ids, nil
}
