package bolt

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"doorward/authz/store"
	"doorward/authz/store/storetest"

	"go.etcd.io/bbolt"
)

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) store.Store {
		return openTest(t, filepath.Join(t.TempDir(), "store"))
	})
}

func openTest(t testing.TB, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func change(t testing.TB, s *Store, ops ...store.Op) store.Version {
	t.Helper()
	v, err := s.Apply(t.Context(), ops...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestReopen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	s := openTest(t, path)
	expires := time.Now().Add(time.Hour)
	change(t, s, store.Op{Key: "gone", Value: []byte("x")})
	last := change(t, s, store.Op{Key: "a", Value: []byte("1"), Expires: expires}, store.Op{Key: "gone", Expect: store.Any})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
	s = openTest(t, path)
	item, err := s.Get(t.Context(), "a")
	if err != nil || string(item.Value) != "1" || item.Version != last || !item.Expires.Equal(expires.Truncate(0)) {
		t.Errorf("got %v, %v, want 1 with version %d that expires %v", item, err, last, expires)
	}
	if _, err := s.Get(t.Context(), "gone"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("a deleted key: %v", err)
	}
	if v := change(t, s, store.Op{Key: "b", Value: []byte("2")}); v <= last {
		t.Errorf("after opening again a version is %d, it was %d before", v, last)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "store")
	refuses := func(path, want string) {
		t.Helper()
		begin := time.Now()
		s, err := Open(path)
		if err == nil {
			_ = s.Close()
		}
		if err == nil || err.Error() != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s took %s", path, took)
		}
	}
	s := openTest(t, path)
	refuses(path, "open store "+path+": another process has it open; stop that process, or give this one another data directory")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	damaged := filepath.Join(dir, "damaged")
	if err := os.WriteFile(damaged, bytes.Repeat([]byte("nonsense"), 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	refuses(damaged, "open store "+damaged+": invalid database: the file is damaged or is no store; restore it from a backup, or move it away to begin anew")
	none := filepath.Join(dir, "none", "store")
	refuses(none, "open store "+none+": open "+none+": no such file or directory")

	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error { return tx.Bucket(metaBucket).Put([]byte(formatKeyName), number(2)) })
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	refuses(path, "open store "+path+": its format 0000000000000002 is not 1: it was written by another version of the program; use that one")
}

// TestCollect has more items expire than are removed at a time, and holds that others stay and that watchers are told.
func TestCollect(t *testing.T) {
	var offset atomic.Int64
	start := time.Now()
	now := func() time.Time { return start.Add(time.Duration(offset.Load())) }
	s, err := open(filepath.Join(t.TempDir(), "store"), now, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	events, err := s.Watch(t.Context(), "last")
	if err != nil {
		t.Fatal(err)
	}
	const n = 3*collectAtOnce + 7
	var ops []store.Op
	for i := range n {
		ops = append(ops, store.Op{Key: fmt.Sprintf("due/%d", i), Value: []byte("x"), Expires: start.Add(time.Minute)})
	}
	change(t, s, ops...)
	change(t, s,
		store.Op{Key: "last", Value: []byte("x"), Expires: start.Add(time.Minute + 1)},
		store.Op{Key: "later", Value: []byte("x"), Expires: start.Add(time.Hour)},
		store.Op{Key: "never", Value: []byte("x")},
		store.Op{Key: "moved", Value: []byte("x"), Expires: start.Add(time.Minute)},
		store.Op{Key: "deleted", Value: []byte("x"), Expires: start.Add(time.Minute)})
	change(t, s, store.Op{Key: "moved", Value: []byte("x"), Expires: start.Add(time.Hour), Expect: store.Any}, store.Op{Key: "deleted", Expect: store.Any})
	if got := stored(t, s, itemBucket); len(got) != n+4 {
		t.Fatalf("%d items in the file, want %d", len(got), n+4)
	}
	if key := (<-events).Key; key != "last" {
		t.Fatalf("event of %q", key)
	}

	offset.Store(int64(time.Minute) + 1)
	select {
	case e := <-events:
		if e.Key != "last" {
			t.Errorf("event of %q, want of the item that was collected", e.Key)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("no event of the item that expired last")
	}
	if got, want := stored(t, s, itemBucket), []string{"later", "moved", "never"}; !slices.Equal(got, want) {
		t.Errorf("in the file: %q, want %q", got, want)
	}
	if got := stored(t, s, expiryBucket); len(got) != 2 {
		t.Errorf("%d expiries in the file, want those of later and moved", len(got))
	}
}

func stored(t *testing.T, s *Store, bucket []byte) []string {
	t.Helper()
	var keys []string
	err := s.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucket).ForEach(func(k, _ []byte) error {
			keys = append(keys, string(k))
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// TestIdle holds that a store which nothing is asked of does not write.
func TestIdle(t *testing.T) {
	s, err := open(filepath.Join(t.TempDir(), "store"), time.Now, time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	change(t, s, store.Op{Key: "a", Value: []byte("x"), Expires: time.Now().Add(time.Hour)})
	transaction := func() (id int) {
		if err := s.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := transaction()
	time.Sleep(50 * time.Millisecond)
	if _, err := s.Apply(t.Context(), store.Op{Key: "a", Guard: true, Expect: store.Absent}); !errors.Is(err, store.ErrConflict) {
		t.Error(err)
	}
	if after := transaction(); after != before {
		t.Errorf("%d transactions were written by a conflict and by time", after-before)
	}
}

// TestGroups holds that writers who wait share a transaction, and each keeps its own result.
func TestGroups(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "store"))
	change(t, s, store.Op{Key: "taken", Value: []byte("x")})
	transactions := func() (id int) {
		if err := s.db.View(func(tx *bbolt.Tx) error { id = tx.ID(); return nil }); err != nil {
			t.Fatal(err)
		}
		return id
	}
	before := transactions()
	const writers, rounds = 32, 20
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				_, err := s.Apply(t.Context(), store.Op{Key: fmt.Sprintf("k/%d/%d", w, i), Value: []byte("x")})
				if err != nil {
					t.Error(err)
				}
				_, err = s.Apply(t.Context(), store.Op{Key: fmt.Sprintf("k/%d/%d/no", w, i), Value: []byte("x")}, store.Op{Key: "taken", Value: []byte("y")})
				if !errors.Is(err, store.ErrConflict) {
					t.Errorf("got %v, want ErrConflict", err)
				}
			}
		})
	}
	wg.Wait()
	items, err := s.List(t.Context(), "k/", "", 2*writers*rounds)
	if err != nil || len(items) != writers*rounds {
		t.Errorf("%d items, %v, want %d", len(items), err, writers*rounds)
	}
	if used := transactions() - before; used >= writers*rounds {
		t.Errorf("%d transactions for %d writes", used, writers*rounds)
	}
}

// TestTimes holds that an expiry which nanoseconds cannot hold does not turn into another one.
func TestTimes(t *testing.T) {
	s := openTest(t, filepath.Join(t.TempDir(), "store"))
	for what, row := range map[string]struct {
		expires time.Time
		lives   bool
	}{
		"never":         {time.Time{}, true},
		"year 9999":     {time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), true},
		"year 2":        {time.Date(2, 1, 1, 0, 0, 0, 0, time.UTC), false},
		"1970":          {time.Unix(0, 0), false},
		"before 1970":   {time.Unix(-5, 0), false},
		"the far past":  {time.Unix(math.MinInt32, 0), false},
		"in an hour":    {time.Now().Add(time.Hour), true},
		"an hour ago":   {time.Now().Add(-time.Hour), false},
		"after int64 s": {time.Unix(1<<40, 0), true},
	} {
		change(t, s, store.Op{Key: "k", Value: []byte("x"), Expires: row.expires, Expect: store.Any})
		if _, err := s.Get(t.Context(), "k"); (err == nil) != row.lives {
			t.Errorf("%s: got %v, want it to live: %v", what, err, row.lives)
		}
	}
}

// FuzzKeys holds that the keys that are accepted come back in order and by prefix, and that the others are refused and change nothing.
func FuzzKeys(f *testing.F) {
	s := openTest(f, filepath.Join(f.TempDir(), "store"))
	s.db.NoSync = true
	f.Add("a", "a/b", "a/")
	f.Add("\U0010FFFF", "\xff", "")
	f.Add(strings.Repeat("k", store.MaxKey), "a\x00b", "k")
	f.Fuzz(func(t *testing.T, a, b, prefix string) {
		var want []string
		for _, key := range []string{a, b} {
			_, err := s.Apply(t.Context(), store.Op{Key: key, Value: []byte(key), Expect: store.Any})
			valid := key != "" && len(key) <= store.MaxKey && utf8.ValidString(key) && !strings.Contains(key, "\x00")
			if (err == nil) != valid {
				t.Fatalf("apply %q: %v", key, err)
			}
			if valid && strings.HasPrefix(key, prefix) && !slices.Contains(want, key) {
				want = append(want, key)
			}
		}
		sort.Strings(want)
		items, err := s.List(t.Context(), prefix, "", 3)
		if err == nil != (store.CheckPrefix(prefix) == nil) {
			t.Fatalf("list %q: %v", prefix, err)
		}
		var got []string
		for _, item := range items {
			got = append(got, item.Key)
			if string(item.Value) != item.Key {
				t.Fatalf("%q has the value %q", item.Key, item.Value)
			}
		}
		if err == nil && !slices.Equal(got, want) {
			t.Fatalf("list %q: got %q, want %q", prefix, got, want)
		}
		for _, key := range want {
			change(t, s, store.Op{Key: key, Expect: store.Any})
		}
		for _, key := range []string{a, b} {
			if store.CheckKey(key) == nil {
				change(t, s, store.Op{Key: key, Expect: store.Any})
			}
		}
	})
}

func BenchmarkGet(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "store"))
	change(b, s, store.Op{Key: "a", Value: make([]byte, 1000)})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Get(b.Context(), "a"); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkApply(b *testing.B) {
	s := openTest(b, filepath.Join(b.TempDir(), "store"))
	value := make([]byte, 1000)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.Apply(b.Context(), store.Op{Key: "a", Value: value, Expect: store.Any}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
