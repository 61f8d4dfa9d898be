package session

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestUpdate(t *testing.T) {
	f := setUp(t)
	made := f.create(f.alice())
	cookie := f.issue(made.ID, host)
	f.finds(cookie, host, made.ID)
	groups := func(groups ...string) func(*Session) error {
		return func(s *Session) error { s.User.Groups = groups; return nil }
	}
	changed, err := f.Update(t.Context(), made.ID, groups("operations"))
	if err != nil || changed.Version == made.Version || !slices.Equal(changed.User.Groups, []string{"operations"}) {
		t.Fatalf("got %+v, %v", changed, err)
	}
	if found := f.finds(cookie, host, made.ID); found.Version != changed.Version || found.User.Groups[0] != "operations" {
		t.Errorf("a lookup after the update finds %+v", found)
	}
	same, err := f.Update(t.Context(), made.ID, func(s *Session) error {
		s.Tokens.Refresh = "second"
		s.ID, s.Subject, s.Expires, s.Issuer, s.SID, s.Browser = "x", "mallory", s.Expires.Add(time.Hour), "x", "x", "x"
		return nil
	})
	if err != nil || same.Version != changed.Version || same.Subject != made.Subject || !same.Expires.Equal(made.Expires) {
		t.Errorf("new tokens alone make %+v of %+v, %v", same, changed, err)
	}
	full, err := f.Load(t.Context(), made.ID)
	if err != nil || full.Tokens.Refresh != "second" || full.Version != changed.Version {
		t.Errorf("stored are %q in version %d, %v", full.Tokens.Refresh, full.Version, err)
	}
	refusal := errors.New("no")
	if _, err := f.Update(t.Context(), made.ID, func(*Session) error { return refusal }); err != refusal {
		t.Errorf("got %v", err)
	}
	if err := f.Revoke(t.Context(), made.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Update(t.Context(), made.ID, groups("x")); !errors.Is(err, ErrNone) {
		t.Errorf("the update of a session that is gone: %v", err)
	}
}

// A sign-out that comes while an update is under way wins.
func TestUpdateRacesASignOut(t *testing.T) {
	f := setUp(t)
	made := f.create(f.alice())
	_, err := f.Update(t.Context(), made.ID, func(s *Session) error {
		s.User.Groups = []string{"x"}
		return f.Revoke(context.Background(), made.ID)
	})
	if !errors.Is(err, ErrNone) {
		t.Errorf("got %v", err)
	}
	if _, err := f.Load(t.Context(), made.ID); !errors.Is(err, ErrNone) {
		t.Errorf("the session is back: %v", err)
	}
}

func TestDueRefreshes(t *testing.T) {
	f := setUp(t)
	first, second := f.alice(), f.alice()
	first.RefreshAt, second.RefreshAt = f.clock.now().Add(10*time.Minute), f.clock.now().Add(20*time.Minute)
	one, two := f.create(first), f.create(second)
	due := func() (ids []string, owned []Refresh) {
		t.Helper()
		owned, err := f.Due(t.Context(), time.Minute, 100)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range owned {
			ids = append(ids, r.ID)
		}
		return ids, owned
	}
	if ids, _ := due(); len(ids) != 0 {
		t.Errorf("due before its time: %q", ids)
	}
	f.clock.advance(10 * time.Minute)
	ids, owned := due()
	if !slices.Equal(ids, []string{one.ID}) {
		t.Fatalf("due are %q, want %s", ids, one.ID)
	}
	if ids, _ := due(); len(ids) != 0 {
		t.Errorf("a second owner of %q", ids)
	}
	f.clock.advance(time.Minute)
	if ids, _ := due(); !slices.Equal(ids, []string{one.ID}) {
		t.Errorf("an owner that crashed is followed for %q", ids)
	}
	if err := f.Again(t.Context(), owned[0], f.clock.now()); err != nil {
		t.Errorf("an owner that is late: %v", err)
	}
	if ids, _ := due(); len(ids) != 0 {
		t.Errorf("an owner that is late has put %q back", ids)
	}
	f.clock.advance(9 * time.Minute)
	ids, owned = due()
	if !slices.Equal(ids, []string{one.ID, two.ID}) {
		t.Fatalf("due are %q", ids)
	}
	for i, at := range []time.Time{{}, f.clock.now().Add(time.Hour)} {
		if err := f.Again(t.Context(), owned[i], at); err != nil {
			t.Fatal(err)
		}
	}
	f.clock.advance(time.Hour)
	if ids, _ := due(); !slices.Equal(ids, []string{two.ID}) {
		t.Errorf("due are %q, want %s", ids, two.ID)
	}
}

func TestIdle(t *testing.T) {
	f := setUp(t)
	limit := func() time.Duration { return time.Hour }
	f.idleLimit = limit
	made := f.create(f.alice())
	cookie := f.issue(made.ID, host)
	for range 10 { // in use, every half an hour
		f.clock.advance(30 * time.Minute)
		f.finds(cookie, host, made.ID)
		f.writes(made.ID)
	}
	again := replica(t, f.clock, f.store, f.sealer) // another process, which has seen no use of it
	again.idleLimit = limit
	f.clock.advance(59 * time.Minute)
	again.finds(cookie, host, made.ID)
	again.writes(made.ID)
	f.clock.advance(59 * time.Minute) // this process has not seen that use, but looks before it ends a session
	f.finds(cookie, host, made.ID)
	f.writes(made.ID)
	f.clock.advance(time.Hour)
	if _, err := f.Find(t.Context(), cookie, host); !errors.Is(err, ErrNone) {
		t.Errorf("after an hour: %v", err)
	}
	f.eventually("the session is revoked", func() bool {
		_, err := f.Load(t.Context(), made.ID)
		return errors.Is(err, ErrNone)
	})
}

// writes waits until the use of a session at this moment is in the store.
func (f *fixture) writes(id string) {
	f.Helper()
	f.eventually("the use is written", func() bool {
		at, err := f.lastUse(f.ctx, &Session{ID: id})
		return err == nil && at.Unix() == f.clock.now().Unix()
	})
}

// A look into memory is all that a use costs while the last one is recent.
func TestIdleReadsSeldom(t *testing.T) {
	f := setUp(t)
	f.idleLimit = func() time.Duration { return time.Hour }
	made := f.create(f.alice())
	cookie := f.issue(made.ID, host)
	f.finds(cookie, host, made.ID)
	f.writes(made.ID)
	f.eventually("1000 uses within a moment read nothing, once the news of the session's beginning is through", func() bool {
		before := f.store.gets.Load()
		for range 1000 {
			f.finds(cookie, host, made.ID)
		}
		return f.store.gets.Load() == before
	})
}

func TestOfBrowser(t *testing.T) {
	f := setUp(t)
	one, two, other := f.alice(), f.alice(), f.alice()
	one.Browser, two.Browser, two.Issuer = "b1", "b1", "https://second.example.com"
	made := []string{f.create(one).ID, f.create(two).ID}
	f.create(other)
	sessions, err := f.OfBrowser(t.Context(), "b1")
	if err != nil || len(sessions) != 2 || !slices.Contains(made, sessions[0].ID) || !slices.Contains(made, sessions[1].ID) {
		t.Errorf("got %+v, %v", sessions, err)
	}
	if sessions, err := f.OfBrowser(t.Context(), ""); err != nil || sessions != nil {
		t.Errorf("of no browser: %+v, %v", sessions, err)
	}
}

func TestAllAndRevokeEverything(t *testing.T) {
	f := setUp(t)
	made := map[string]string{}
	for range 3 {
		in := f.alice()
		in.SID = newID()
		id := f.create(in).ID
		made[id] = f.issue(id, host)
	}
	late := f.alice() // begun before, and stored after everybody was signed out
	f.clock.advance(time.Second)
	seen := 0
	if err := f.All(t.Context(), func(s *Session) bool { seen++; return made[s.ID] != "" && s.Tokens.Refresh == "" }); err != nil || seen != 3 {
		t.Errorf("saw %d, %v", seen, err)
	}
	if n, err := f.RevokeEverything(t.Context()); n != 3 || err != nil {
		t.Errorf("ended %d, %v", n, err)
	}
	for id, cookie := range made {
		if _, err := f.Find(t.Context(), cookie, host); !errors.Is(err, ErrNone) {
			t.Errorf("%s goes on: %v", id, err)
		}
	}
	if _, err := f.Create(t.Context(), late); !errors.Is(err, ErrRevoked) {
		t.Errorf("a sign-in that began before: %v", err)
	}
	f.clock.advance(time.Second)
	f.create(f.alice())
}
