package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// next returns the next event's key, or "closed".
func next(t *testing.T, events <-chan Event) string {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			return "closed"
		}
		return fmt.Sprintf("%q", e.Key)
	case <-time.After(10 * time.Second):
		t.Fatal("no event")
		return ""
	}
}

// TestHub publishes while nobody reads.
func TestHub(t *testing.T) {
	var h Hub
	events, err := h.Watch(t.Context(), "a/")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if got := next(t, events); got != w {
				t.Fatalf("got %s, want %s", got, w)
			}
		}
	}
	h.Publish("a/1")
	expect(`"a/1"`)

	// The first of these may be on its way already when the second one comes.
	h.Publish("a/1", "b/1", "a/2")
	for range 5 {
		h.Publish("a/2", "a/3", "a/3")
	}
	expect(`"a/1"`)
	seen := map[string]int{}
	h.Publish("a/end")
	for got := next(t, events); got != `"a/end"`; got = next(t, events) {
		seen[got]++
	}
	if seen[`"a/3"`] != 1 || seen[`"a/2"`] != 1 || len(seen) != 2 {
		t.Errorf("got %v, want a/2 and a/3 once each", seen)
	}

	for i := range 3 * pendingKeys {
		h.Publish(fmt.Sprint("a/", i))
	}
	got := next(t, events)
	if got == `"a/0"` { // it was on its way
		got = next(t, events)
	}
	if got != `""` {
		t.Errorf("got %s, want the overflow", got)
	}

	h.Reset()
	for got := ""; got != "closed"; {
		got = next(t, events)
	}
	if events, err = h.Watch(t.Context(), ""); err != nil {
		t.Fatalf("watch after a reset: %v", err)
	}
	h.Publish("x")
	expect(`"x"`)
	h.Close()
	h.Close()
	expect("closed")
	if _, err := h.Watch(t.Context(), ""); !errors.Is(err, ErrClosed) {
		t.Errorf("watch after close: got %v, want ErrClosed", err)
	}
	h.Publish("x")
}
