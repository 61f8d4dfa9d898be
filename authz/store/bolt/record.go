package bolt

import (
	"bytes"
	"encoding/binary"
	"math"
	"time"

	"doorward/authz/store"
)

// A record is what the file has for a key: version (8 bytes, big-endian), expiry (8 bytes, big-endian Unix nanoseconds, 0 for never),
// value.
type record []byte

const recordHeader = 16

// newRecord leaves the version to be set when it is known. The value is copied.
func newRecord(value []byte, expires time.Time) record {
	r := make(record, recordHeader+len(value))
	binary.BigEndian.PutUint64(r[8:], expiryNumber(expires))
	copy(r[recordHeader:], value)
	return r
}

func (r record) setVersion(v store.Version) { binary.BigEndian.PutUint64(r, uint64(v)) }

func (r record) version() store.Version { return store.Version(binary.BigEndian.Uint64(r)) }

// expires is in Unix nanoseconds; 0 means never.
func (r record) expires() uint64 { return binary.BigEndian.Uint64(r[8:]) }

func (r record) item(key string) store.Item {
	item := store.Item{Key: key, Value: bytes.Clone(r[recordHeader:]), Version: r.version()}
	if at := r.expires(); at != 0 {
		item.Expires = time.Unix(0, int64(at)).UTC()
	}
	return item
}

// live returns a stored record, unless there is none or it has expired.
func live(data []byte, now time.Time) (record, bool) {
	if len(data) < recordHeader {
		return nil, false
	}
	r := record(data)
	at := r.expires()
	return r, at == 0 || at > expiryNumber(now)
}

// expiryNumber keeps times that nanoseconds cannot hold in order: all of them long past, or never to come.
func expiryNumber(t time.Time) uint64 {
	switch {
	case t.IsZero():
		return 0
	case t.Year() < 1971:
		return 1
	case t.Year() > 2261:
		return math.MaxInt64
	default:
		return uint64(t.UnixNano())
	}
}

// expiryKey orders the items by their expiry.
func expiryKey(at uint64, key []byte) []byte {
	return append(number(at), key...)
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
