package session

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/store"
)

func TestRevoke(t *testing.T) {
	f := setUp(t)
	alice, other := f.create(f.alice()), f.create(f.alice())
	cookie, wiki := f.issue(alice.ID, host), f.issue(alice.ID, "wiki.example.com")
	stays := f.issue(other.ID, host)
	for range 2 {
		f.finds(cookie, host, alice.ID)
		f.finds(wiki, "wiki.example.com", alice.ID)
	}
	if err := f.Revoke(f.ctx, alice.ID); err != nil {
		t.Fatal(err)
	}
	f.findsNone(cookie, host)
	f.findsNone(wiki, "wiki.example.com")
	f.finds(stays, host, other.ID)
	if _, err := f.Load(f.ctx, alice.ID); !errors.Is(err, ErrNone) {
		t.Errorf("load: got %v, want ErrNone", err)
	}
	if _, err := f.Issue(f.ctx, alice.ID, host); !errors.Is(err, ErrNone) {
		t.Errorf("issue: got %v, want ErrNone", err)
	}
	for _, id := range []string{alice.ID, newID(), "", "../session", strings.Repeat("x", 5000)} {
		if err := f.Revoke(f.ctx, id); err != nil {
			t.Errorf("revoke %.40q, which is gone: %v", id, err)
		}
	}
	if err := f.Revoke(f.ctx, other.ID); err != nil {
		t.Fatal(err)
	}
	if keys := f.keys(); len(keys) != 1 || !strings.HasPrefix(keys[0], "signed-out/sid/") {
		t.Errorf("left in the store: %q, want one tombstone", keys)
	}
	f.clock.advance(tombstoneLife)
	if keys := f.keys(); len(keys) != 0 {
		t.Errorf("left in the store an hour later: %q", keys)
	}
}

// TestSignedOut has a sign-out come before, during and after a sign-in.
func TestSignedOut(t *testing.T) {
	before := func(s *Session) {}
	after := func(s *Session) { s.Started = s.Started.Add(2 * time.Second) }
	tests := []struct {
		name    string
		signOut func(*fixture, *Session) error
		signIn  func(*Session)
		refused bool
	}{
		{"sid, begun before", revokeSID, before, true},
		{"sid, begun after", revokeSID, after, false},
		{"sid, begun at the same moment", revokeSID, func(s *Session) { s.Started = s.Started.Add(time.Second) }, true},
		{"sid, unknown when begun", revokeSID, func(s *Session) { s.Started = time.Time{} }, true},
		{"sid, another one's", revokeSID, func(s *Session) { s.SID = "other" }, false},
		{"sid, none", revokeSID, func(s *Session) { s.SID = "" }, false},
		{"sid, another issuer's", revokeSID, func(s *Session) { s.Issuer = "https://other.example.com" }, false},
		{"subject, begun before", revokeSubject, before, true},
		{"subject, begun after", revokeSubject, after, false},
		{"subject, another one's", revokeSubject, func(s *Session) { s.Subject, s.SID = "bob", "bobs" }, false},
		{"subject, another issuer's", revokeSubject, func(s *Session) { s.Issuer = "https://other.example.com" }, false},
		{"our own sign-out, begun before", revokeOwn, before, true},
		{"our own sign-out, begun after", revokeOwn, after, false},
		{"our own sign-out, another sid", revokeOwn, func(s *Session) { s.SID = "other" }, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := setUp(t)
			in := f.alice()
			test.signIn(&in)
			existing := f.create(f.alice())
			f.clock.advance(time.Second)
			if err := test.signOut(f, existing); err != nil {
				t.Fatal(err)
			}
			if _, err := f.Load(f.ctx, existing.ID); !errors.Is(err, ErrNone) {
				t.Errorf("load of what was signed out: got %v, want ErrNone", err)
			}
			f.clock.advance(time.Second)
			_, err := f.Create(f.ctx, in)
			if refused := errors.Is(err, ErrRevoked); refused != test.refused || !refused && err != nil {
				t.Errorf("sign-in: got %v, want refused: %v", err, test.refused)
			}
		})
	}
}

func revokeSID(f *fixture, s *Session) error     { return f.RevokeSID(f.ctx, s.Issuer, s.SID) }
func revokeSubject(f *fixture, s *Session) error { return f.RevokeSubject(f.ctx, s.Issuer, s.Subject) }
func revokeOwn(f *fixture, s *Session) error     { return f.Revoke(f.ctx, s.ID) }

// TestSignedOutFirst has the sign-out come when there is no session yet.
func TestSignedOutFirst(t *testing.T) {
	for name, signOut := range map[string]func(*fixture, *Session) error{"sid": revokeSID, "subject": revokeSubject} {
		f := setUp(t)
		in := f.alice()
		f.clock.advance(time.Second)
		if err := signOut(f, &in); err != nil {
			t.Fatal(err)
		}
		if _, err := f.Create(f.ctx, in); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: got %v, want ErrRevoked", name, err)
		}
	}
	f := setUp(t)
	for _, err := range []error{
		f.RevokeSID(f.ctx, "", "sid"), f.RevokeSID(f.ctx, "https://idp.example.com", ""), f.RevokeSubject(f.ctx, "", "x"), f.RevokeSubject(f.ctx, "x", ""),
	} {
		if err == nil {
			t.Error("a sign-out of nobody was taken")
		}
	}
}

// TestSignedOutBetween has the sign-out come after Create has looked for one and before it writes.
func TestSignedOutBetween(t *testing.T) {
	for name, signOut := range map[string]func(*fixture, *Session) error{"sid": revokeSID, "subject": revokeSubject} {
		f := setUp(t)
		in := f.alice()
		f.clock.advance(time.Second)
		hook := func(key string) {
			if strings.HasPrefix(key, "signed-out/") {
				f.store.afterGet.Store(nil)
				if err := signOut(f, &in); err != nil {
					t.Error(err)
				}
			}
		}
		f.store.afterGet.Store(&hook)
		if _, err := f.Create(f.ctx, in); !errors.Is(err, ErrRevoked) {
			t.Errorf("%s: got %v, want ErrRevoked", name, err)
		}
		if keys := f.keys(); len(keys) != 1 {
			t.Errorf("%s: left in the store: %q, want the tombstone", name, keys)
		}
	}
}

// TestSignOutRaces has sign-ins and one sign-out run at once: none that began before it may be live afterwards.
func TestSignOutRaces(t *testing.T) {
	for round := range 20 {
		f := setUp(t)
		in := f.alice()
		in.SID = fmt.Sprint("sid", round)
		f.clock.advance(time.Second)
		var wg sync.WaitGroup
		made := make([]*Session, 8)
		for i := range made {
			wg.Go(func() {
				s, err := f.Create(f.ctx, in)
				if err != nil && !errors.Is(err, ErrRevoked) {
					t.Error(err)
				}
				made[i] = s
			})
		}
		if err := f.RevokeSID(f.ctx, in.Issuer, in.SID); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		for _, s := range made {
			if s == nil {
				continue
			}
			if _, err := f.Load(f.ctx, s.ID); !errors.Is(err, ErrNone) {
				t.Fatalf("round %d: a session outlived its sign-out: %v", round, err)
			}
		}
	}
}

// TestFindRacesRevoke has a lookup read the store before a revocation and finish after it. It may still find the session, but must not
// bring it back for the lookups that follow.
func TestFindRacesRevoke(t *testing.T) {
	for _, prefix := range []string{cookiePrefix, sessionPrefix} {
		f := setUp(t)
		alice := f.create(f.alice())
		cookie := f.issue(alice.ID, host)
		hook := func(key string) {
			if !strings.HasPrefix(key, prefix) {
				return
			}
			f.store.afterGet.Store(nil)
			if err := f.Revoke(f.ctx, alice.ID); err != nil {
				t.Error(err)
			}
		}
		f.store.afterGet.Store(&hook)
		if _, err := f.Find(f.ctx, cookie, host); err != nil && !errors.Is(err, ErrNone) {
			t.Errorf("%s: the lookup under way: %v", prefix, err)
		}
		if f.store.afterGet.Load() != nil {
			t.Fatalf("%s: the lookup did not read the store", prefix)
		}
		f.findsNone(cookie, host)
	}
}

// TestUnpackRacesRevoke does the same for a session that was held packed.
func TestUnpackRacesRevoke(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	hash := mustHash(t, cookie)
	f.eventually("the session is held", func() bool {
		f.finds(cookie, host, alice.ID)
		return f.cache.find(hash, f.clock.now()).session != nil
	})
	f.cache.mu.Lock()
	held := f.cache.packed[f.cache.links[hash].id]
	f.cache.cool(f.cache.links[hash].id)
	f.cache.mu.Unlock()
	before := f.cache.find(hash, f.clock.now())
	if held == nil || before.packed == nil {
		t.Fatal("the session is not held packed")
	}
	if err := f.Revoke(f.ctx, alice.ID); err != nil {
		t.Fatal(err)
	}
	session, size, err := f.cache.packer.unpack(before.packed)
	if err != nil {
		t.Fatal(err)
	}
	f.cache.warm(before.generation, before.id, session, size)
	f.findsNone(cookie, host)
}

// TestFindWhileRevoking hammers lookups while sessions are revoked: the first lookup after Revoke returned finds none.
func TestFindWhileRevoking(t *testing.T) {
	f := setUp(t)
	for range 50 {
		f.clock.advance(time.Second)
		alice := f.create(f.alice())
		cookie := f.issue(alice.ID, host)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_, _ = f.Find(f.ctx, cookie, host)
					}
				}
			})
		}
		f.finds(cookie, host, alice.ID)
		if err := f.Revoke(f.ctx, alice.ID); err != nil {
			t.Fatal(err)
		}
		for range 100 {
			f.findsNone(cookie, host)
		}
		close(stop)
		wg.Wait()
	}
}

// TestReplicas has one process revoke what another holds in memory.
func TestReplicas(t *testing.T) {
	a := setUp(t)
	b := replica(t, a.clock, a.store, a.sealer)
	alice := a.create(a.alice())
	cookie := a.issue(alice.ID, host)
	b.finds(cookie, host, alice.ID)
	b.finds(cookie, host, alice.ID)
	if err := a.RevokeSID(a.ctx, alice.Issuer, alice.SID); err != nil {
		t.Fatal(err)
	}
	b.eventually("the other process has dropped it", func() bool {
		_, err := b.Find(b.ctx, cookie, host)
		return errors.Is(err, ErrNone)
	})
}

// TestWatchLost has the store's changes go untold: nothing may be held, and all comes back by itself.
func TestWatchLost(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	f.finds(cookie, host, alice.ID)
	f.store.noWatch.Store(true)
	s, err := New(Config{Store: f.store, Sealer: f.sealer, Now: f.clock.now})
	if err != nil {
		t.Fatal(err)
	}
	blind := &fixture{T: t, Sessions: s, ctx: f.ctx, clock: f.clock, store: f.store}
	ended := make(chan error, 1)
	go func() { ended <- s.Run(f.ctx) }()
	for range 2 {
		before := f.store.gets.Load()
		blind.finds(cookie, host, alice.ID)
		if got := f.store.gets.Load() - before; got != 2 {
			t.Errorf("%d reads of the store, want 2", got)
		}
	}
	if err := f.Revoke(f.ctx, alice.ID); err != nil {
		t.Fatal(err)
	}
	blind.findsNone(cookie, host)
	f.store.noWatch.Store(false)
	blind.eventually("the cache is on", func() bool { return blind.cached(true) })
	if err := f.store.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, store.ErrClosed) {
			t.Errorf("run on a closed store: got %v, want ErrClosed", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("run on a closed store does not end")
	}
	blind.eventually("the cache is off", func() bool { return blind.cached(false) })
	if _, err := blind.Find(blind.ctx, cookie, host); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("find without a store: got %v, want an error that is not ErrNone", err)
	}
}

func TestEvents(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	cookie := f.issue(alice.ID, host)
	hash := mustHash(t, cookie)
	holds := func() bool {
		held := f.cache.find(hash, f.clock.now())
		return held.linked && held.session != nil
	}
	for _, key := range []string{"", sessionKey(alice.ID), cookieKey(hash), cookiePrefix + "nonsense"} {
		f.eventually("the cookie is held", func() bool { f.finds(cookie, host, alice.ID); return holds() })
		f.drop(key)
		if holds() {
			t.Errorf("an event of %q left the cookie in memory", key)
		}
	}
	f.eventually("the cookie is held", func() bool { f.finds(cookie, host, alice.ID); return holds() })
	f.drop(sessionKey(newID()))
	if !holds() {
		t.Error("an event of another session dropped this one")
	}
}

// TestRevokeMany has more sessions than are listed at a time.
func TestRevokeMany(t *testing.T) {
	f := setUp(t)
	var last *Session
	for range maxListed + 5 {
		last = f.create(f.alice())
	}
	f.clock.advance(time.Second)
	if err := f.RevokeSubject(f.ctx, last.Issuer, last.Subject); err != nil {
		t.Fatal(err)
	}
	for _, key := range f.keys() {
		if !strings.HasPrefix(key, "signed-out/") {
			t.Errorf("%s is left", key)
		}
	}
}
