package session

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"doorward/authz/store"
	"doorward/authz/store/bolt"
)

const host = "grafana.example.com"

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// clock is moved by the test.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return start.Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// spy is a store that counts reads and lets a test act between them.
type spy struct {
	store.Store
	gets     atomic.Int64
	afterGet atomic.Pointer[func(key string)]
	noWatch  atomic.Bool
}

func (s *spy) Get(ctx context.Context, key string) (store.Item, error) {
	s.gets.Add(1)
	item, err := s.Store.Get(ctx, key)
	if f := s.afterGet.Load(); f != nil {
		(*f)(key)
	}
	return item, err
}

func (s *spy) Watch(ctx context.Context, prefix string) (<-chan store.Event, error) {
	if s.noWatch.Load() {
		return nil, errors.New("cannot watch")
	}
	return s.Store.Watch(ctx, prefix)
}

type fixture struct {
	*testing.T
	*Sessions
	ctx   context.Context
	clock *clock
	store *spy
}

// setUp returns Sessions on an empty store, with Run running and the cache in use.
func setUp(t *testing.T) *fixture {
	c := &clock{}
	db, err := bolt.OpenAt(filepath.Join(t.TempDir(), "store"), c.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	sealer, err := OpenSealer(filepath.Join(t.TempDir(), "key"))
	if err != nil {
		t.Fatal(err)
	}
	return replica(t, c, &spy{Store: db}, sealer)
}

// replica returns more Sessions on a store.
func replica(t *testing.T, c *clock, db *spy, sealer *Sealer) *fixture {
	s, err := New(Config{Store: db, Sealer: sealer, Now: c.now})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil && !errors.Is(err, store.ErrClosed) {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	f := &fixture{T: t, Sessions: s, ctx: t.Context(), clock: c, store: db}
	f.eventually("the cache is on", func() bool { return f.cached(true) })
	return f
}

func (f *fixture) cached(on bool) bool {
	f.cache.mu.RLock()
	defer f.cache.mu.RUnlock()
	return f.cache.on == on
}

func (f *fixture) eventually(what string, holds func() bool) {
	f.Helper()
	for end := time.Now().Add(10 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			f.Fatalf("still not: %s", what)
		}
	}
}

// alice is a sign-in that starts now.
func (f *fixture) alice() Session {
	return Session{
		Provider: "default",
		Issuer:   "https://idp.example.com/realms/main",
		Subject:  "b4d6c2d5-alice",
		SID:      "provider-session-1",
		User: User{
			ID: "b4d6c2d5-alice", Email: "alice@example.com", EmailVerified: true, Name: "Alice",
			Groups: []string{"engineering"},
			Claims: map[string]any{"number": json.Number("9007199254740993"), "nested": map[string]any{"x": []any{"y", true, nil}}},
		},
		Expires:  f.clock.now().Add(14 * time.Hour),
		AuthTime: f.clock.now().Add(-time.Minute),
		AMR:      []string{"pwd", "otp"},
		ACR:      "2",
		Tokens:   Tokens{ID: "id-token", Access: "access-token", Refresh: "refresh-token", Expiry: f.clock.now().Add(time.Hour)},
		Started:  f.clock.now(),
	}
}

func (f *fixture) create(in Session) *Session {
	f.Helper()
	s, err := f.Create(f.ctx, in)
	if err != nil {
		f.Fatalf("create: %v", err)
	}
	return s
}

func (f *fixture) issue(id, host string) string {
	f.Helper()
	value, err := f.Issue(f.ctx, id, host)
	if err != nil {
		f.Fatalf("issue: %v", err)
	}
	return value
}

func (f *fixture) finds(cookie, host, id string) *Session {
	f.Helper()
	s, err := f.Find(f.ctx, cookie, host)
	if err != nil {
		f.Fatalf("find: %v", err)
	}
	if s.ID != id {
		f.Fatalf("found session %s, want %s", s.ID, id)
	}
	return s
}

func (f *fixture) findsNone(cookie, host string) {
	f.Helper()
	if s, err := f.Find(f.ctx, cookie, host); !errors.Is(err, ErrNone) {
		f.Fatalf("find: got %v, %v, want ErrNone", s, err)
	}
}

// keys lists what the store holds.
func (f *fixture) keys() []string {
	f.Helper()
	items, err := f.store.List(f.ctx, "", "", 10000)
	if err != nil {
		f.Fatal(err)
	}
	var keys []string
	for _, item := range items {
		keys = append(keys, item.Key)
	}
	return keys
}

func malformedCookies(good string) []string {
	return []string{
		"", "x", good[:42], good + "A", good + "=", " " + good[1:], good[:42] + "\n", good[:42] + "\r", "\n" + good,
		good[:42] + "+", good[:42] + "/", good[:42] + "\xff", good[:21] + "=" + good[22:], strings.Repeat("A", 42) + "B",
		strings.Repeat("\n", 43), strings.Repeat("A", 44), strings.Repeat("A", 1<<20),
	}
}

func mustHash(t *testing.T, cookie string) [32]byte {
	hash, ok := hashCookie(cookie)
	if !ok {
		t.Fatalf("%q is no cookie", cookie)
	}
	return hash
}
