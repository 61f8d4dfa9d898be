package acme

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

// spread is a random time between half of d and d, so that many hosts, and many replicas, do not ask a server at the same moment.
func spread(d time.Duration) time.Duration {
	var b [8]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return d/2 + time.Duration(binary.BigEndian.Uint64(b[:])%uint64(d/2))
}
