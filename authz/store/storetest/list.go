package storetest

import (
	"fmt"
	"slices"
	"time"

	"doorward/authz/store"
)

const highest = "\U0010FFFF" // the last code point

func testList(s *suite) {
	for _, key := range []string{"b", "a/" + highest, "a/1", "a", "a0", "a/", "a/1/x", highest, "a/" + highest + highest, "A", "a.", "ä"} {
		s.apply(put(key, "v", store.Absent))
	}
	under := []string{"a/", "a/1", "a/1/x", "a/" + highest, "a/" + highest + highest}
	s.lists("", "", 100, slices.Concat([]string{"A", "a", "a."}, under, []string{"a0", "b", "ä", highest})...)
	s.lists("a/", "", 100, under...)
	s.lists("a/"+highest, "", 100, under[3:]...)
	s.lists(highest, "", 100, highest)
	s.lists("a/", "", 2, "a/", "a/1")
	s.lists("a/", "a/1", 2, "a/1/x", "a/"+highest)
	s.lists("a/", "a/0", 1, "a/1")
	s.lists("a/", "A", 1, "a/")
	s.lists("a/", "a/"+highest+highest, 100)
	s.lists("a/", "a0", 100)
	s.lists("a/", "zzz", 100)
	s.lists("zzz", "", 100)
	s.lists("a/", highest, 100)

	s.apply(remove("a/1", store.Any))
	s.lists("a/", "", 2, "a/", "a/1/x")

	v := s.apply(put("a/1", "again", store.Absent))
	items, err := s.store.List(s.ctx, "a/1", "", 1)
	if err != nil || len(items) != 1 || items[0].Version != v || string(items[0].Value) != "again" {
		s.Fatalf("list: got %v, %v, want a/1 with its value and version %d", items, err, v)
	}
}

func testPages(s *suite) {
	var want []string
	for i := range 250 {
		key := fmt.Sprintf("p/%03d", i)
		want = append(want, key)
		s.apply(put(key, "v", store.Absent))
	}
	s.apply(put("o", "v", store.Absent), put("q", "v", store.Absent))
	var got []string
	for after := ""; ; after = got[len(got)-1] {
		page := s.keys("p/", after, 100)
		if len(page) == 0 {
			break
		}
		got = append(got, page...)
	}
	if !slices.Equal(got, want) {
		s.Fatalf("paging by 100 gave %d keys, want %d: %q", len(got), len(want), got)
	}
}

func testExpiry(s *suite) {
	soon, later := time.Now().Add(400*time.Millisecond), time.Now().Add(time.Hour)
	v := s.apply(
		store.Op{Key: "e/soon", Value: []byte("v"), Expires: soon},
		store.Op{Key: "e/later", Value: []byte("v"), Expires: later},
		store.Op{Key: "e/past", Value: []byte("v"), Expires: time.Now().Add(-time.Hour)},
		put("e/never", "v", store.Absent),
	)
	s.lacks("e/past")
	if got := s.has("e/later", "v").Expires; got.Sub(later).Abs() > time.Millisecond {
		s.Fatalf("e/later expires %v, want %v", got, later)
	}
	s.apply(guard("e/soon", v))
	s.eventually("e/soon has expired", func() bool { return !time.Now().Before(soon.Add(10 * time.Millisecond)) })
	s.lacks("e/soon")
	s.lists("e/", "", 10, "e/later", "e/never")
	s.conflict(guard("e/soon", v))
	s.conflict(put("e/soon", "x", v))
	s.apply(store.Op{Key: "e/soon", Value: []byte("again"), Expect: store.Absent})
	if got := s.has("e/soon", "again"); !got.Expires.IsZero() {
		s.Fatalf("an item written anew kept the expiry %v", got.Expires)
	}

	// A write replaces the expiry, in both directions.
	s.apply(store.Op{Key: "e/later", Value: []byte("v"), Expires: time.Now().Add(-time.Second), Expect: store.Any})
	s.lacks("e/later")
}

// testDue writes a key anew whose old item was due: collecting the old one, whenever it happens, must not take the new one.
func testDue(s *suite) {
	for range 50 {
		s.apply(store.Op{Key: "k", Value: []byte("old"), Expires: time.Now().Add(-time.Second), Expect: store.Any})
		s.apply(put("k", "new", store.Absent))
	}
	time.Sleep(50 * time.Millisecond)
	s.has("k", "new")
}
