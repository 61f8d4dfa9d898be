package session

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"doorward/authz/store"
)

// Rotate puts a new key first in the file and seals with it from then on. The ones before it still open, until Forget.
func (s *Sealer) Rotate() error {
	var key [32]byte
	rand.Read(key[:])
	return s.rewrite(func(lines []string) []string {
		return append([]string{keyPrefix + base64.RawURLEncoding.EncodeToString(key[:])}, lines...)
	})
}

// Forget removes all keys but the one that seals. What they sealed does not open any more.
func (s *Sealer) Forget() error {
	return s.rewrite(func(lines []string) []string { return lines[:1] })
}

// Old says whether there are keys that only open.
func (s *Sealer) Old() bool { return len(*s.keys.Load()) > 1 }

// Changed is when the key file was last written.
func (s *Sealer) Changed() (time.Time, error) {
	info, err := os.Stat(s.file)
	if err != nil {
		return time.Time{}, fmt.Errorf("look at sealing key: %w", err)
	}
	return info.ModTime(), nil
}

// rewrite replaces the lines that hold keys, as they are in the file now, and takes up what it has written. Calls must not overlap.
func (s *Sealer) rewrite(change func(lines []string) []string) error {
	data, err := os.ReadFile(s.file)
	if err != nil {
		return fmt.Errorf("read sealing key: %w", err)
	}
	if _, err := parseKeys(data); err != nil {
		return fmt.Errorf("sealing key %s: %w", s.file, err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, keyPrefix) {
			lines = append(lines, line)
		}
	}
	text := keyFileIntro + strings.Join(change(lines), "\n") + "\n"
	keys, err := parseKeys([]byte(text))
	if err != nil {
		return err
	}
	if err := writeKeyFile(s.file, text, os.Rename); err != nil {
		return fmt.Errorf("write sealing key %s: %w", s.file, err)
	}
	s.keys.Store(&keys)
	return nil
}

// isOld says whether a stored value was sealed with a key that only opens.
func (s *Sealer) isOld(value []byte) bool {
	if len(value) < sealHeader+sealNonce+sealTag || value[0] != sealVersion {
		return false
	}
	for _, key := range (*s.keys.Load())[1:] {
		if bytes.Equal(value[1:sealHeader], key.id[:]) {
			return true
		}
	}
	return false
}

// Reseal seals every record of a store anew that an old key sealed for its own key, and returns how many there were and how many are left, because
// they changed meanwhile.
func (s *Sealer) Reseal(ctx context.Context, records store.Store) (done, left int, err error) {
	for item, err := range store.All(ctx, records, "") {
		if err != nil {
			return done, left, fmt.Errorf("list records: %w", err)
		}
		if !s.isOld(item.Value) {
			continue
		}
		plain, err := s.Open(item.Key, item.Value)
		if err != nil {
			continue // not sealed for its key, or damaged: it opens for nobody
		}
		op := store.Op{Key: item.Key, Value: s.Seal(item.Key, plain), Expires: item.Expires, Expect: item.Version}
		switch _, err := records.Apply(ctx, op); {
		case err == nil:
			done++
		case errors.Is(err, store.ErrConflict):
			left++
		default:
			return done, left, fmt.Errorf("seal a record anew: %w", err)
		}
	}
	return done, left, nil
}
