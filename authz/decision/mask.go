package decision

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"net/url"
	"slices"
	"strings"
	"sync"
)

// masker replaces the values of some fields by a keyed hash, so that records of the same person can be told to belong together and nobody
// without the key can tell, or try out, whose they are.
type masker struct {
	fields []string

	mu  sync.Mutex // guards mac
	mac hash.Hash
}

// newMasker returns nil when there is nothing to mask.
func newMasker(fields []string, key []byte) *masker {
	if len(fields) == 0 {
		return nil
	}
	return &masker{fields: fields, mac: hmac.New(sha256.New, key)}
}

// apply masks the fields of r, which shares no slice with the record that it was copied from afterwards.
func (m *masker) apply(r *Record) {
	if m == nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	before := *r
	for _, name := range m.fields {
		switch name {
		case "client_ip":
			m.replace(name, &r.ClientIP)
		case "email":
			m.replace(name, &r.Email)
		case "host":
			m.replace(name, &r.Host)
		case "path":
			m.replace(name, &r.Path)
		case "session":
			m.replace(name, &r.Session)
		case "subject":
			m.replace(name, &r.Subject)
		case "reasons":
			r.Reasons, r.ShadowReasons = m.all(name, r.Reasons), m.all(name, r.ShadowReasons)
		}
	}
	hide(r, before.Email, r.Email)
	hide(r, before.Subject, r.Subject)
	hide(r, before.Session, r.Session)
	hide(r, before.ClientIP, r.ClientIP)
}

// leastHidden is how long a value must be, in bytes, to be looked for in texts: a shorter one is found where it is not meant.
const leastHidden = 4

// hide replaces a value that was masked wherever else it stands: in the path, in a reason, in the cause, which quotes what a policy failed over.
func hide(r *Record, value, masked string) {
	if value == masked || len(value) < leastHidden {
		return
	}
	for _, spelt := range []string{value, url.QueryEscape(value)} {
		r.Path, r.Cause = strings.ReplaceAll(r.Path, spelt, masked), strings.ReplaceAll(r.Cause, spelt, masked)
		for _, reasons := range []*[]string{&r.Reasons, &r.ShadowReasons} {
			for i, reason := range *reasons {
				if strings.Contains(reason, spelt) {
					*reasons = slices.Clone(*reasons)
					(*reasons)[i] = strings.ReplaceAll(reason, spelt, masked)
				}
			}
		}
	}
}

func (m *masker) all(name string, values []string) []string {
	values = slices.Clone(values)
	for i := range values {
		m.replace(name, &values[i])
	}
	return values
}

// replace leaves an empty value as it is. The hash is the first 64 bits of HMAC-SHA256 over the field's name, a NUL and the value.
func (m *masker) replace(name string, value *string) {
	if *value == "" {
		return
	}
	m.mac.Reset()
	m.mac.Write([]byte(name))
	m.mac.Write([]byte{0})
	m.mac.Write([]byte(*value))
	var sum [sha256.Size]byte
	*value = "masked:" + hex.EncodeToString(m.mac.Sum(sum[:0])[:8])
}
