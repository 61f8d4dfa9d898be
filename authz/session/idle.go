package session

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"time"

	"doorward/authz/store"
)

// The idle limit: a session that nobody has used for that long is over. When it was last used is kept in memory and written now and then,
// so that a request costs a look into memory.
const (
	// idleShare is the part of the limit that may pass until a use is written; so much earlier a session may end, after a crash or when the
	// other replicas have not heard of its use.
	idleShare = 20
	// idleQueue is how many uses wait to be written. One that does not fit is written at the next use.
	idleQueue = 1024
	idleBatch = 64
	// maxUses bounds what is remembered; beyond it everything is read again.
	maxUses = 1 << 18
)

// uses remembers when sessions were last used.
type uses struct {
	queue chan [16]byte // to be written
	ended chan string   // ids of sessions whose limit has passed

	mu   sync.RWMutex
	last map[[16]byte]int64 // Unix seconds, as they were last written or read
}

func newUses() uses {
	return uses{queue: make(chan [16]byte, idleQueue), ended: make(chan string, idleQueue), last: make(map[[16]byte]int64)}
}

func usedKey(id string) string { return "session-used/" + id }

// idle says whether a session's idle limit has passed, and notes its use if not.
func (s *Sessions) idle(ctx context.Context, session *Session) (bool, error) {
	limit := s.idleLimit()
	id, ok := parseID(session.ID)
	if limit <= 0 || !ok {
		return false, nil
	}
	now := s.now()
	last, known := s.uses.of(id)
	if age := now.Sub(last); known && age < limit/idleShare {
		return false, nil
	} else if !known || age >= limit {
		stored, err := s.lastUse(ctx, session)
		if err != nil {
			return false, err
		}
		if now.Sub(stored) >= limit {
			select {
			case s.uses.ended <- session.ID:
			default: // it stays of no use
			}
			return true, nil
		}
	}
	s.uses.note(id, now) // before it is in the queue, whose reader looks it up
	select {
	case s.uses.queue <- id:
	default:
		s.uses.forget(id) // so that the next use is written
	}
	return false, nil
}

func (u *uses) forget(id [16]byte) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.last, id)
}

func (u *uses) note(id [16]byte, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.last) >= maxUses {
		clear(u.last)
	}
	u.last[id] = at.Unix()
}

// of returns when a session was last used, as far as this process knows.
func (u *uses) of(id [16]byte) (at time.Time, known bool) {
	u.mu.RLock()
	defer u.mu.RUnlock()
	last, known := u.last[id]
	if !known {
		return time.Time{}, false
	}
	return time.Unix(last, 0), true
}

// lastUse reads when the session was last used. Before the first time it counts as used when it was created.
func (s *Sessions) lastUse(ctx context.Context, session *Session) (time.Time, error) {
	item, err := s.store.Get(ctx, usedKey(session.ID))
	if errors.Is(err, store.ErrNotFound) {
		return session.Created, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read when a session was last used: %w", err)
	}
	if len(item.Value) != 8 {
		return session.Created, nil
	}
	return time.Unix(int64(binary.BigEndian.Uint64(item.Value)), 0), nil
}

// followUses writes the uses that wait and revokes the sessions that are over, until ctx ends. What cannot be written ends a session early,
// and what cannot be revoked is found to be over again.
func (s *Sessions) followUses(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case id := <-s.uses.ended:
			_ = s.Revoke(ctx, id)
		case id := <-s.uses.queue:
			batch := map[[16]byte]bool{id: true}
			for len(batch) < idleBatch && len(s.uses.queue) > 0 {
				batch[<-s.uses.queue] = true
			}
			_, _ = s.store.Apply(ctx, s.usesOf(batch)...)
		}
	}
}

// usesOf are the writes of sessions' last uses. They cease to exist soon after they have lost their meaning.
func (s *Sessions) usesOf(batch map[[16]byte]bool) (ops []store.Op) {
	s.uses.mu.RLock()
	defer s.uses.mu.RUnlock()
	for id := range batch {
		last, known := s.uses.last[id]
		if !known {
			continue
		}
		ops = append(ops, store.Op{
			Key: usedKey(hex.EncodeToString(id[:])), Value: binary.BigEndian.AppendUint64(nil, uint64(last)),
			Expires: time.Unix(last, 0).Add(2 * s.idleLimit()), Expect: store.Any,
		})
	}
	return ops
}
