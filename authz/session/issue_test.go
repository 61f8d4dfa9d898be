package session

import (
	"errors"
	"slices"
	"testing"
)

func TestIssue(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	for _, bad := range []string{"", "Grafana.example.com"} {
		if _, err := f.Issue(f.ctx, alice.ID, bad); err == nil {
			t.Errorf("issued a cookie for the host %q", bad)
		}
	}
	first := f.issue(alice.ID, host)
	if got := f.finds(first, host, alice.ID).Version; got != alice.Version {
		t.Errorf("issuing a cookie made version %d of %d", got, alice.Version)
	}

	// The session is revoked after Issue has read it.
	hook := func(key string) {
		f.store.afterGet.Store(nil)
		if err := f.Revoke(f.ctx, alice.ID); err != nil {
			t.Error(err)
		}
	}
	f.store.afterGet.Store(&hook)
	if _, err := f.Issue(f.ctx, alice.ID, host); !errors.Is(err, ErrNone) {
		t.Errorf("got %v, want ErrNone", err)
	}
	if keys := f.keys(); len(keys) != 1 {
		t.Errorf("left in the store: %q, want the tombstone", keys)
	}
}

func TestManyCookies(t *testing.T) {
	f := setUp(t)
	alice := f.create(f.alice())
	var cookies []string
	for range maxCookies + 3 {
		cookies = append(cookies, f.issue(alice.ID, host))
	}
	for _, cookie := range cookies[:3] {
		f.findsNone(cookie, host)
	}
	for _, cookie := range cookies[3:] {
		f.finds(cookie, host, alice.ID)
	}
	if err := f.Revoke(f.ctx, alice.ID); err != nil {
		t.Fatal(err)
	}
	if keys := f.keys(); len(keys) != 1 {
		t.Errorf("%d keys left, want the tombstone", len(keys))
	}
}

func TestList(t *testing.T) {
	f := setUp(t)
	in := f.alice()
	want := []string{f.create(in).ID, f.create(in).ID}
	bob := in
	bob.Subject = "bob"
	f.create(bob)
	gone := f.create(in)
	if err := f.Revoke(f.ctx, gone.ID); err != nil {
		t.Fatal(err)
	}
	sessions, err := f.List(f.ctx, in.Issuer, in.Subject)
	var got []string
	for _, s := range sessions {
		got = append(got, s.ID)
	}
	slices.Sort(got)
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// TestParties holds that pairs which read the same when joined are not the same.
func TestParties(t *testing.T) {
	seen := map[string][2]string{}
	for _, pair := range [][2]string{{"a", "bc"}, {"ab", "c"}, {"abc", ""}, {"", "abc"}, {"a/", "b"}, {"a", "/b"}, {"a\x00", "b"}, {"a", "\x00b"}} {
		key := party(pair[0], pair[1])
		if other, ok := seen[key]; ok {
			t.Errorf("%q and %q have one key", pair, other)
		}
		seen[key] = pair
	}
}
