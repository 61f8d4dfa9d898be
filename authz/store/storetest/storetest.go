// Package storetest is the conformance suite that every store.Store passes.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/store"
)

// patience bounds every wait of the suite.
const patience = 20 * time.Second

// Run holds an implementation to the contract of store.Store. open returns an empty store, which the suite closes; several may be
// open at once. The stores expire items by the real clock.
func Run(t *testing.T, open func(t *testing.T) store.Store) {
	for name, test := range map[string]func(*suite){
		"get":                  testGet,
		"expect":               testExpect,
		"batch is atomic":      testAtomic,
		"guard":                testGuard,
		"versions":             testVersions,
		"values":               testValues,
		"invalid":              testInvalid,
		"list":                 testList,
		"list pages":           testPages,
		"expiry":               testExpiry,
		"due but written anew": testDue,
		"counter":              testCounter,
		"lock":                 testLock,
		"watch":                testWatch,
		"watch sees the write": testWatchVisible,
		"watch overflow":       testOverflow,
		"watch ends":           testWatchEnds,
		"context":              testContext,
		"close":                testClose,
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			t.Cleanup(func() { _ = s.Close() })
			test(&suite{T: t, store: s, ctx: t.Context()})
		})
	}
}

// suite reads like the specification: each method states what must hold, and stops the test where it does not.
type suite struct {
	*testing.T
	store store.Store
	ctx   context.Context
}

func (s *suite) apply(ops ...store.Op) store.Version {
	s.Helper()
	v, err := s.store.Apply(s.ctx, ops...)
	if err != nil {
		s.Fatalf("apply %s: %v", describe(ops), err)
	}
	return v
}

func (s *suite) conflict(ops ...store.Op) {
	s.Helper()
	if _, err := s.store.Apply(s.ctx, ops...); !errors.Is(err, store.ErrConflict) {
		s.Fatalf("apply %s: got %v, want ErrConflict", describe(ops), err)
	}
}

func (s *suite) has(key, value string) store.Item {
	s.Helper()
	item, err := s.store.Get(s.ctx, key)
	if err != nil {
		s.Fatalf("get %q: %v", key, err)
	}
	if item.Key != key || string(item.Value) != value {
		s.Fatalf("get %q: got %q = %q, want %q", key, item.Key, item.Value, value)
	}
	return item
}

func (s *suite) lacks(key string) {
	s.Helper()
	if item, err := s.store.Get(s.ctx, key); !errors.Is(err, store.ErrNotFound) {
		s.Fatalf("get %q: got %q, %v, want ErrNotFound", key, item.Value, err)
	}
}

func (s *suite) keys(prefix, after string, limit int) []string {
	s.Helper()
	items, err := s.store.List(s.ctx, prefix, after, limit)
	if err != nil {
		s.Fatalf("list %q after %q: %v", prefix, after, err)
	}
	var keys []string
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	return keys
}

func (s *suite) lists(prefix, after string, limit int, want ...string) {
	s.Helper()
	if got := s.keys(prefix, after, limit); !slices.Equal(got, want) {
		s.Fatalf("list %q after %q, at most %d: got %q, want %q", prefix, after, limit, got, want)
	}
}

// eventually waits for a condition.
func (s *suite) eventually(what string, holds func() bool) {
	s.Helper()
	for end := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("after %s still not: %s", patience, what)
		}
	}
}

func put(key, value string, expect store.Version) store.Op {
	return store.Op{Key: key, Value: []byte(value), Expect: expect}
}

func remove(key string, expect store.Version) store.Op {
	return store.Op{Key: key, Expect: expect}
}

func guard(key string, expect store.Version) store.Op {
	return store.Op{Key: key, Expect: expect, Guard: true}
}

func describe(ops []store.Op) string {
	var b strings.Builder
	for _, op := range ops {
		fmt.Fprintf(&b, "{%.40q=%.40q expect %d} ", op.Key, op.Value, op.Expect)
	}
	return b.String()
}

func testGet(s *suite) {
	s.lacks("a")
	v := s.apply(put("a", "1", store.Absent))
	if item := s.has("a", "1"); item.Version != v || !item.Expires.IsZero() {
		s.Fatalf("got version %d, expires %v, want %d and never", item.Version, item.Expires, v)
	}
	item := s.has("a", "1")
	item.Value[0] = 'x'
	s.has("a", "1")
	s.apply(remove("a", store.Any))
	s.lacks("a")
}

func testExpect(s *suite) {
	v1 := s.apply(put("a", "1", store.Absent))
	s.conflict(put("a", "2", store.Absent))
	s.conflict(put("a", "2", v1+1))
	s.conflict(put("b", "2", v1))
	s.conflict(remove("b", v1))
	s.conflict(remove("a", store.Absent))
	s.has("a", "1")
	s.lacks("b")

	v2 := s.apply(put("a", "2", v1))
	s.conflict(put("a", "3", v1))
	s.conflict(remove("a", v1))
	s.apply(put("a", "3", store.Any))
	s.conflict(remove("a", v2))
	v4 := s.apply(put("a", "4", store.Any))
	s.apply(remove("a", v4))
	s.lacks("a")

	s.apply(remove("a", store.Absent))
	s.apply(remove("a", store.Any))
	s.apply(put("a", "5", store.Absent))
	s.conflict(put("a", "6", v4))
	s.has("a", "5")
}

func testAtomic(s *suite) {
	v := s.apply(put("a", "1", store.Absent), put("b", "1", store.Absent))
	if got := s.has("a", "1").Version; got != v {
		s.Fatalf("a has version %d, want %d", got, v)
	}
	if got := s.has("b", "1").Version; got != v {
		s.Fatalf("b has version %d, want %d", got, v)
	}
	s.conflict(put("a", "2", v), remove("b", v), put("c", "2", v))
	s.conflict(put("c", "2", store.Absent), put("a", "2", store.Absent))
	s.has("a", "1")
	s.has("b", "1")
	s.lacks("c")
	s.apply(put("a", "2", v), remove("b", v), put("c", "2", store.Absent))
	s.has("a", "2")
	s.lacks("b")
	s.has("c", "2")
}

func testGuard(s *suite) {
	v := s.apply(put("a", "1", store.Absent))
	s.apply(guard("a", v), put("b", "1", store.Absent))
	if got := s.has("a", "1").Version; got != v {
		s.Fatalf("a guarded item went from version %d to %d", v, got)
	}
	s.conflict(guard("a", store.Absent), put("c", "1", store.Absent))
	s.conflict(guard("a", v+1), put("c", "1", store.Absent))
	s.conflict(guard("gone", v), put("c", "1", store.Absent))
	s.lacks("c")
	s.apply(guard("gone", store.Absent), put("c", "1", store.Absent))
	s.lacks("gone")
	s.apply(store.Op{Key: "gone", Value: []byte("x"), Guard: true})
	s.lacks("gone")
}

func testVersions(s *suite) {
	last := store.Version(0)
	for i := range 20 {
		v := s.apply(put(fmt.Sprintf("key%d", i%3), "x", store.Any))
		if v <= last || v == store.Any {
			s.Fatalf("version %d came after %d", v, last)
		}
		last = v
	}
	s.apply(remove("key0", store.Any))
	if v := s.apply(put("key0", "x", store.Absent)); v <= last {
		s.Fatalf("the version of a key made anew is %d, after %d", v, last)
	}
}

func testValues(s *suite) {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	longest := strings.Repeat("k", store.MaxKey)
	for key, value := range map[string][]byte{
		"empty":                  {},
		"bytes":                  all,
		"largest":                bytes.Repeat([]byte{0xff}, store.MaxValue),
		longest:                  []byte("v"),
		"\U0010FFFF/ü/ /\n":      []byte("v"),
		"key with spaces & %2F.": []byte("v"),
	} {
		given := bytes.Clone(value)
		s.apply(store.Op{Key: key, Value: given})
		clear(given)
		s.has(key, string(value))
	}
}

func testInvalid(s *suite) {
	tooLong := strings.Repeat("k", store.MaxKey+1)
	for _, key := range []string{"", "\xff", "a\xc3", "a\x00b", tooLong} {
		if _, err := s.store.Apply(s.ctx, put(key, "v", store.Any)); err == nil {
			s.Errorf("apply took the key %.20q", key)
		}
		if _, err := s.store.Get(s.ctx, key); err == nil || errors.Is(err, store.ErrNotFound) {
			s.Errorf("get %.20q: got %v, want another error", key, err)
		}
		if key == "" {
			continue
		}
		if _, err := s.store.List(s.ctx, key, "", 1); err == nil {
			s.Errorf("list took the prefix %.20q", key)
		}
		if _, err := s.store.List(s.ctx, "", key, 1); err == nil {
			s.Errorf("list took the key %.20q to come after", key)
		}
		if _, err := s.store.Watch(s.ctx, key); err == nil {
			s.Errorf("watch took the prefix %.20q", key)
		}
	}
	for what, ops := range map[string][]store.Op{
		"no op":           {},
		"a key twice":     {put("a", "1", store.Any), remove("a", store.Any)},
		"a value too big": {{Key: "a", Value: make([]byte, store.MaxValue+1), Expect: store.Any}},
	} {
		if _, err := s.store.Apply(s.ctx, ops...); err == nil || errors.Is(err, store.ErrConflict) {
			s.Errorf("apply of %s: got %v, want another error", what, err)
		}
	}
	if _, err := s.store.List(s.ctx, "", "", 0); err == nil {
		s.Error("list took a limit of 0")
	}
	s.lists("", "", 10)
}
