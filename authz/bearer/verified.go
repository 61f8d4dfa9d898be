package bearer

import (
	"sync"
	"time"

	"doorward/authz/session"
)

// verifiedSize bounds the verified tokens that are remembered. One takes a few KiB, and only an issuer of the configuration can make one.
const verifiedSize = 1 << 14

// verified remembers verified tokens in two halves: when the young one is full it becomes the old one, so what is used stays and the rest goes, at
// no cost per use. The zero value is ready.
type verified struct {
	mu         sync.Mutex // guards what follows
	young, old map[[16]byte]*verifiedToken
}

// verifiedToken is never changed.
type verifiedToken struct {
	session *session.Session
	set     *keySet
	keys    *keys // of set, with which the token was verified
}

// get returns the session of a token that is still good by the keys that its issuer has now, or nil.
func (v *verified) get(id [16]byte, now time.Time) *session.Session {
	v.mu.Lock()
	t := v.young[id]
	if t == nil {
		if t = v.old[id]; t != nil {
			v.store(id, t)
		}
	}
	v.mu.Unlock()
	if t == nil || !now.Before(t.session.Expires) || t.set.current.Load() != t.keys {
		return nil
	}
	t.set.keepFresh()
	return t.session
}

func (v *verified) put(id [16]byte, t *verifiedToken) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.store(id, t)
}

// store is called with mu held.
func (v *verified) store(id [16]byte, t *verifiedToken) {
	if v.young == nil || len(v.young) >= verifiedSize/2 {
		v.young, v.old = make(map[[16]byte]*verifiedToken), v.young
	}
	v.young[id] = t
}
