package session

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"doorward/authz/store"
)

// Live returns a session as the store has it now, without its Tokens, and when it ends unless it is used or changed until then; ErrNone when
// it has ended. Any other error means that it cannot be known. No session that is cached is taken, and to be asked about is no use.
func (s *Sessions) Live(ctx context.Context, id string) (*Session, time.Time, error) {
	session, _, err := s.read(ctx, id)
	if err != nil {
		return nil, time.Time{}, err
	}
	limit := s.idleLimit()
	if limit <= 0 {
		return session, session.Expires, nil
	}
	last, err := s.lastUse(ctx, session)
	if err != nil {
		return nil, time.Time{}, err
	}
	raw, _ := parseID(id) // it has been read
	if here, _ := s.uses.of(raw); here.After(last) {
		last = here
	}
	end := last.Add(limit)
	switch {
	case !s.now().Before(end):
		return nil, time.Time{}, ErrNone
	case end.Before(session.Expires):
		return session, end, nil
	}
	return session, session.Expires, nil
}

// Watch reports the ids of sessions that were made, changed or ended, in this process or another; "" says that any of them may have. An
// expiry is reported when the store collects it, which may be minutes later. The channel is closed when ctx ends, and when changes can no
// longer be told: then nothing that is known of a session is to be trusted until another Watch.
func (s *Sessions) Watch(ctx context.Context) (<-chan string, error) {
	return store.Names(ctx, s.store, sessionPrefix, func(key string) string { return strings.TrimPrefix(key, sessionPrefix) })
}

// ticketPurpose is what tickets are sealed for.
const ticketPurpose = "stream"

// ErrTicket says that a text is no ticket of ours.
var ErrTicket = errors.New("the ticket does not open")

// Ticket names a session, and the version of it that a request was decided on, to another part of Doorward: sealed, so that nobody on the
// way can read it or make one. It is 92 characters of base64url. It is not bound to a time or a route and opens nothing. It is "", which
// is no ticket, for a session that Create has not made.
func (s *Sessions) Ticket(found *Session) string {
	raw, ok := parseID(found.ID)
	if !ok {
		return ""
	}
	plain := binary.BigEndian.AppendUint64(raw[:], found.Version)
	return base64.RawURLEncoding.EncodeToString(s.sealer.Seal(ticketPurpose, plain))
}

// OpenTicket returns the id and the version that a ticket names, or ErrTicket. The session may have ended or changed since.
func (s *Sessions) OpenTicket(ticket string) (id string, version uint64, err error) {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(ticket)
	if err != nil {
		return "", 0, ErrTicket
	}
	plain, err := s.sealer.Open(ticketPurpose, sealed)
	if err != nil || len(plain) != 24 {
		return "", 0, ErrTicket
	}
	return hex.EncodeToString(plain[:16]), binary.BigEndian.Uint64(plain[16:]), nil
}
