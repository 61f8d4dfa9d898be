package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz/store"
)

// testCounter adds one from many goroutines by optimistic concurrency: no update may be lost or made twice.
func testCounter(s *suite) {
	const workers, rounds = 16, 25
	s.apply(put("counter", "0", store.Absent))
	var wg sync.WaitGroup
	var conflicts atomic.Int64
	for w := range workers {
		wg.Go(func() {
			for round := 0; round < rounds; {
				item, err := s.store.Get(s.ctx, "counter")
				if err != nil {
					s.Error(err)
					return
				}
				n, err := strconv.Atoi(string(item.Value))
				if err != nil {
					s.Error(err)
					return
				}
				_, err = s.store.Apply(s.ctx,
					put("counter", strconv.Itoa(n+1), item.Version),
					put(fmt.Sprintf("mark/%02d/%02d", w, round), "x", store.Absent))
				switch {
				case err == nil:
					round++
				case errors.Is(err, store.ErrConflict):
					conflicts.Add(1)
				default:
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.has("counter", strconv.Itoa(workers*rounds))
	if got := len(s.keys("mark/", "", 2*workers*rounds)); got != workers*rounds {
		s.Fatalf("%d marks, want one for each of the %d increments", got, workers*rounds)
	}
	s.Logf("%d conflicts", conflicts.Load())
}

// testLock has many goroutines create one key: exactly one may succeed each time.
func testLock(s *suite) {
	for round := range 20 {
		key := fmt.Sprintf("lock/%d", round)
		var won atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				_, err := s.store.Apply(s.ctx, put(key, "x", store.Absent))
				if err == nil {
					won.Add(1)
				} else if !errors.Is(err, store.ErrConflict) {
					s.Error(err)
				}
			})
		}
		wg.Wait()
		if won.Load() != 1 {
			s.Fatalf("%d of 8 created %s", won.Load(), key)
		}
	}
}

func (s *suite) watch(ctx context.Context, prefix string) <-chan store.Event {
	s.Helper()
	events, err := s.store.Watch(ctx, prefix)
	if err != nil {
		s.Fatalf("watch %q: %v", prefix, err)
	}
	return events
}

// next returns the next event; ok is false when the channel was closed.
func (s *suite) next(events <-chan store.Event) (key string, ok bool) {
	s.Helper()
	select {
	case e, open := <-events:
		return e.Key, open
	case <-time.After(patience):
		s.Fatalf("no event within %s", patience)
		return "", false
	}
}

func (s *suite) sees(events <-chan store.Event, want string) {
	s.Helper()
	if got, ok := s.next(events); !ok || got != want {
		s.Fatalf("got event %q (open: %v), want %q", got, ok, want)
	}
}

func testWatch(s *suite) {
	all, some, none := s.watch(s.ctx, ""), s.watch(s.ctx, "w/"), s.watch(s.ctx, "x/")
	steps := []struct {
		op    store.Op
		under bool // the prefix of some
	}{
		{put("w/1", "a", store.Absent), true},
		{put("other", "a", store.Absent), false},
		{put("w/1", "b", store.Any), true},
		{remove("w/1", store.Any), true},
		{put("w/2", "c", store.Absent), true},
	}
	for _, step := range steps {
		s.apply(step.op)
		s.sees(all, step.op.Key)
		if step.under {
			s.sees(some, step.op.Key)
		}
	}
	s.conflict(put("w/2", "d", store.Absent))
	s.apply(guard("w/2", s.has("w/2", "c").Version))
	s.apply(put("x/end", "v", store.Absent), put("w/end", "v", store.Absent))
	s.sees(some, "w/end")
	s.sees(none, "x/end")
}

// testWatchVisible holds that whoever reads after an event reads what was written, or something later.
func testWatchVisible(s *suite) {
	events := s.watch(s.ctx, "v")
	const last = 200
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 1; i <= last; i++ {
			if _, err := s.store.Apply(s.ctx, put("v", strconv.Itoa(i), store.Any)); err != nil {
				s.Error(err)
				return
			}
		}
	})
	defer wg.Wait()
	for seen := 0; seen < last; {
		if key, ok := s.next(events); !ok || (key != "v" && key != "") {
			s.Fatalf("got event %q (open: %v)", key, ok)
		}
		item, err := s.store.Get(s.ctx, "v")
		if err != nil {
			s.Fatalf("get after an event: %v", err)
		}
		n, err := strconv.Atoi(string(item.Value))
		if err != nil || n < seen {
			s.Fatalf("read %q after %d", item.Value, seen)
		}
		seen = n
	}
}

// testOverflow changes more keys than anybody would keep for a watcher that does not read.
func testOverflow(s *suite) {
	slow := s.watch(s.ctx, "o/")
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := range 25 {
				var ops []store.Op
				for j := range 50 {
					ops = append(ops, put(fmt.Sprintf("o/%d/%d/%d", w, i, j), "v", store.Absent))
				}
				if _, err := s.store.Apply(s.ctx, ops...); err != nil {
					s.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	s.eventually("an event with an empty key", func() bool {
		key, ok := s.next(slow)
		if !ok {
			s.Fatal("the channel of a slow watcher was closed")
		}
		return key == ""
	})
	s.apply(put("o/after", "v", store.Absent))
	s.eventually("events again after the overflow", func() bool {
		key, _ := s.next(slow)
		return key == "o/after"
	})
}

func testWatchEnds(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	ended, stays := s.watch(ctx, ""), s.watch(s.ctx, "")
	unread := s.watch(ctx, "")
	s.apply(put("a", "v", store.Absent))
	s.sees(ended, "a")
	cancel()
	s.eventually("the channel is closed", func() bool { _, ok := s.next(ended); return !ok })
	s.eventually("the channel nobody reads is closed", func() bool { _, ok := s.next(unread); return !ok })
	s.sees(stays, "a")
	s.apply(put("b", "v", store.Absent))
	s.sees(stays, "b")
	if _, err := s.store.Watch(ctx, ""); !errors.Is(err, context.Canceled) {
		s.Fatalf("watch with an ended context: got %v", err)
	}
}

func testContext(s *suite) {
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, get := s.store.Get(ctx, "a")
	_, apply := s.store.Apply(ctx, put("a", "v", store.Absent))
	_, list := s.store.List(ctx, "", "", 1)
	for what, err := range map[string]error{"get": get, "apply": apply, "list": list} {
		if !errors.Is(err, context.Canceled) {
			s.Errorf("%s with an ended context: got %v, want context.Canceled", what, err)
		}
	}
	s.lacks("a")
}

func testClose(s *suite) {
	s.apply(put("a", "v", store.Absent))
	events := s.watch(s.ctx, "")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if _, err := s.store.Apply(s.ctx, put("b", "v", store.Any)); err != nil && !errors.Is(err, store.ErrClosed) {
					s.Errorf("apply while closing: got %v", err)
				}
				if _, err := s.store.Get(s.ctx, "a"); err != nil && !errors.Is(err, store.ErrClosed) {
					s.Errorf("get while closing: got %v", err)
				}
			}
		})
	}
	time.Sleep(20 * time.Millisecond)
	if err := s.store.Close(); err != nil {
		s.Errorf("close: %v", err)
	}
	time.Sleep(20 * time.Millisecond)
	close(stop)
	wg.Wait()
	s.eventually("the watch ends", func() bool { _, ok := s.next(events); return !ok })
	_, get := s.store.Get(s.ctx, "a")
	_, apply := s.store.Apply(s.ctx, put("a", "v", store.Any))
	_, list := s.store.List(s.ctx, "", "", 1)
	_, watch := s.store.Watch(s.ctx, "")
	for what, err := range map[string]error{"get": get, "apply": apply, "list": list, "watch": watch} {
		if !errors.Is(err, store.ErrClosed) {
			s.Errorf("%s after close: got %v, want ErrClosed", what, err)
		}
	}
	if err := s.store.Close(); err != nil {
		s.Errorf("close again: %v", err)
	}
}
