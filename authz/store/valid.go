package store

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// CheckKey says why a key cannot be one. Implementations call it before they touch anything.
func CheckKey(key string) error {
	if key == "" {
		return errors.New("store: a key may not be empty")
	}
	return CheckPrefix(key)
}

// CheckPrefix says why a prefix cannot be one. The empty prefix is every key's.
func CheckPrefix(prefix string) error {
	switch {
	case len(prefix) > MaxKey:
		return fmt.Errorf("store: key %.32q... has %d bytes, the limit is %d", prefix, len(prefix), MaxKey)
	case !utf8.ValidString(prefix):
		return fmt.Errorf("store: key %q is not UTF-8", prefix)
	case strings.Contains(prefix, "\x00"):
		return fmt.Errorf("store: key %q has a NUL byte", prefix)
	}
	return nil
}

// CheckOps says why a batch cannot be applied whatever the store holds.
func CheckOps(ops []Op) error {
	if len(ops) == 0 {
		return errors.New("store: an empty batch")
	}
	seen := make(map[string]struct{}, len(ops))
	for _, op := range ops {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
		if _, ok := seen[op.Key]; ok {
			return fmt.Errorf("store: key %q stands twice in one batch", op.Key)
		}
		seen[op.Key] = struct{}{}
		if len(op.Value) > MaxValue {
			return fmt.Errorf("store: the value of %q has %d bytes, the limit is %d", op.Key, len(op.Value), MaxValue)
		}
	}
	return nil
}

// CheckList says why a List cannot be answered.
func CheckList(prefix, after string, limit int) error {
	if limit < 1 {
		return fmt.Errorf("store: a list of at most %d items", limit)
	}
	if err := CheckPrefix(prefix); err != nil {
		return err
	}
	return CheckPrefix(after)
}
