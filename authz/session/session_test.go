package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"doorward/authz/store"
	"doorward/authz/store/bolt"
)

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
