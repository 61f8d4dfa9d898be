package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
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

func TestCreate(t *testing.T) {
	f := setUp(t)
	in := f.alice()
	made := f.create(in)

	want := in
	want.ID, want.Version, want.Created, want.Started = made.ID, made.Version, f.clock.now(), time.Time{}
	if !reflect.DeepEqual(*made, want) {
		t.Errorf("created\n%#v, want\n%#v", *made, want)
	}
	if made.Version == 0 || !validID(made.ID) {
		t.Errorf("version %d, id %q", made.Version, made.ID)
	}
	loaded, err := f.Load(f.ctx, made.ID)
	if err != nil || !reflect.DeepEqual(loaded, made) {
		t.Errorf("loaded\n%#v, %v, want\n%#v", loaded, err, made)
	}
	if loaded.Tokens != in.Tokens {
		t.Error("the tokens did not come back")
	}
	made.Tokens = Tokens{}
	cookie := f.issue(made.ID, host)
	for _, how := range []string{"from the store", "from memory"} {
		if found := f.finds(cookie, host, made.ID); !reflect.DeepEqual(found, made) {
			t.Errorf("found %s\n%#v, want\n%#v", how, found, made)
		}
	}
	if other := f.create(f.alice()); other.ID == made.ID || other.Version == made.Version {
		t.Errorf("two sign-ins share an id or a version: %v, %v", made, other)
	}
}

func TestCreateRefuses(t *testing.T) {
	f := setUp(t)
	for want, change := range map[string]func(*Session){
		"create session: no issuer":                                         func(s *Session) { s.Issuer = "" },
		"create session: no subject":                                        func(s *Session) { s.Subject = "" },
		"create session: no user id":                                        func(s *Session) { s.User.ID = "" },
		"create session: it expires at 2026-03-01T12:00:00Z, which is past": func(s *Session) { s.Expires = f.clock.now() },
		"create session: it expires at 0001-01-01T00:00:00Z, which is past": func(s *Session) { s.Expires = time.Time{} },
		"encode session: 300478 bytes, the limit is 262144: have the provider send fewer claims or groups": func(s *Session) {
			s.User.Name = strings.Repeat("x", 300_000)
		},
	} {
		in := f.alice()
		change(&in)
		if _, err := f.Create(f.ctx, in); err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("refused sign-ins left %q", keys)
	}
}

func TestNothingIsNil(t *testing.T) {
	f := setUp(t)
	in := f.alice()
	in.User.Groups, in.User.Claims = nil, nil
	made := f.create(in)
	cookie := f.issue(made.ID, host)
	loaded, err := f.Load(f.ctx, made.ID)
	if err != nil {
		t.Fatal(err)
	}
	for how, s := range map[string]*Session{"created": made, "loaded": loaded, "found": f.finds(cookie, host, made.ID)} {
		if s.User.Groups == nil || s.User.Claims == nil {
			t.Errorf("%s: groups %v, claims %v, want empty ones", how, s.User.Groups, s.User.Claims)
		}
	}
}

func TestFind(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie, wiki := f.issue(alice.ID, host), f.issue(alice.ID, "wiki.example.com")
	if cookie == wiki || len(cookie) != 43 {
		t.Fatalf("cookies %q and %q, want two of 43 characters", cookie, wiki)
	}
	for range 2 {
		f.finds(cookie, host, alice.ID)
		f.finds(wiki, "wiki.example.com", alice.ID)
		f.findsNone(cookie, "wiki.example.com")
		f.findsNone(wiki, host)
		f.findsNone(cookie, "")
		f.findsNone(cookie, host+":443")
		f.findsNone(alice.ID, host)
	}
	f.clock.advance(14*time.Hour - time.Second)
	f.finds(cookie, host, alice.ID)
	f.clock.advance(time.Second)
	f.findsNone(cookie, host)
	if _, err := f.Load(f.ctx, alice.ID); !errors.Is(err, ErrNone) {
		t.Errorf("load of an expired session: got %v, want ErrNone", err)
	}
	if _, err := f.Issue(f.ctx, alice.ID, host); !errors.Is(err, ErrNone) {
		t.Errorf("issue for an expired session: got %v, want ErrNone", err)
	}
}

// TestExpiresByOurClock has a store whose clock stands still.
func TestExpiresByOurClock(t *testing.T) {
	db, err := bolt.OpenAt(filepath.Join(t.TempDir(), "store"), func() time.Time { return start })
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	f := replica(t, &clock{}, &spy{Store: db}, openSealer(t, filepath.Join(t.TempDir(), "key")))
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	f.clock.advance(14 * time.Hour)
	f.findsNone(cookie, host)
	if _, err := f.Load(f.ctx, alice.ID); !errors.Is(err, ErrNone) {
		t.Errorf("load: got %v, want ErrNone", err)
	}
}

// TestFindReadsMemory counts the store's reads.
func TestFindReadsMemory(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	other := f.issue(alice.ID, "wiki.example.com")
	f.eventually("the events of the writes were taken", func() bool {
		f.finds(cookie, host, alice.ID)
		before := f.store.gets.Load()
		f.finds(cookie, host, alice.ID)
		return f.store.gets.Load() == before
	})
	made, _ := newCookie()
	reads := func(what string, want int64, find func()) {
		t.Helper()
		before := f.store.gets.Load()
		find()
		if got := f.store.gets.Load() - before; got != want {
			t.Errorf("%s: %d reads of the store, want %d", what, got, want)
		}
	}
	reads("a known cookie", 0, func() { f.finds(cookie, host, alice.ID) })
	reads("a known cookie on a wrong host", 0, func() { f.findsNone(cookie, "wiki.example.com") })
	reads("another cookie on a wrong host", 2, func() { f.findsNone(other, host) })
	reads("then on the right one", 0, func() { f.finds(other, "wiki.example.com", alice.ID) })
	reads("a cookie that nobody issued", 1, func() { f.findsNone(made, host) })
	reads("the same again", 0, func() { f.findsNone(made, host) })
	f.clock.advance(unknownLife)
	reads("the same later", 1, func() { f.findsNone(made, host) })
	for _, malformed := range malformedCookies(cookie) {
		reads(fmt.Sprintf("%q", malformed), 0, func() { f.findsNone(malformed, host) })
	}
	f.cache.mu.Lock()
	f.cache.cool(f.cache.links[mustHash(t, cookie)].id)
	f.cache.mu.Unlock()
	reads("a session that is only packed", 0, func() { f.finds(cookie, host, alice.ID) })
	f.clock.advance(24 * time.Hour)
	reads("an expired session", 0, func() { f.findsNone(cookie, host) })
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

// TestSealed looks for what a reader of the store must not learn.
func TestSealed(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	hash := mustHash(t, cookie)
	items, err := f.store.List(f.ctx, "", "", 100)
	if err != nil || len(items) != 6 {
		t.Fatalf("%d items, %v, want session, tokens, cookie and three indices", len(items), err)
	}
	for _, item := range items {
		stored := item.Key + " " + string(item.Value)
		for _, secret := range []string{cookie, "alice", "example.com", "provider-session", "id-token", "access-token", "refresh-token", "engineering"} {
			if strings.Contains(stored, secret) {
				t.Errorf("%s holds %q", item.Key, secret)
			}
		}
		if !item.Expires.Equal(alice.Expires) {
			t.Errorf("%s expires %v, want with the session", item.Key, item.Expires)
		}
	}

	// A record moved to another's key does not open.
	bob := f.create(f.alice())
	record, err := f.store.Get(f.ctx, sessionKey(bob.ID))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.store.Apply(f.ctx, store.Op{Key: sessionKey(alice.ID), Value: record.Value, Expect: store.Any}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(f.ctx, alice.ID); !errors.Is(err, ErrNone) || err.Error() != "no session: its record does not open" {
		t.Errorf("load of a moved record: got %v", err)
	}
	if _, err := f.store.Apply(f.ctx, store.Op{Key: cookieKey(hash), Value: []byte(`{"session":"` + bob.ID + `","host":"` + host + `"}`), Expect: store.Any}); err != nil {
		t.Fatal(err)
	}
	f.eventually("the cache has dropped both", func() bool {
		_, err := f.Find(f.ctx, cookie, host)
		return errors.Is(err, ErrNone)
	})
	if err := f.Revoke(f.ctx, alice.ID); err != nil {
		t.Errorf("revoke of a record that does not open: %v", err)
	}
	for _, key := range f.keys() {
		if strings.HasPrefix(key, cookiePrefix) || strings.Contains(key, alice.ID) && !strings.HasPrefix(key, "session-s") {
			t.Errorf("%s is left", key)
		}
	}
}

func TestRedacted(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	encoded, err := json.Marshal(struct{ Tokens Tokens }{alice.Tokens})
	if err != nil {
		t.Fatal(err)
	}
	for _, printed := range []string{
		fmt.Sprint(alice.Tokens), fmt.Sprintf("%+v", *alice), fmt.Sprintf("%#v", *alice), fmt.Sprintf("%v", alice), string(encoded),
		alice.Tokens.LogValue().String(),
	} {
		if strings.Contains(printed, "-token") || !strings.Contains(printed, "[redacted]") {
			t.Errorf("printed %s", printed)
		}
	}
}

func TestHashID(t *testing.T) {
	if got, want := HashID("00000000000000000000000000000000"), "84e0c0eafaa95a34"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
