package stream

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"doorward/authz/session"
)

// register is the sign-ins as a test has them: in memory, and failing when it is told to. Tickets are id and version in plain text.
type register struct {
	mu        sync.Mutex // guards what follows
	live      map[string]session.Session
	unread    error // of Live
	unwatched error // of Watch
	watches   map[chan string]context.CancelFunc
	afterRead func() // once, before Live returns
	reads     int
}

func newRegister(ids ...string) *register {
	r := &register{live: make(map[string]session.Session), watches: make(map[chan string]context.CancelFunc)}
	for _, id := range ids {
		r.live[id] = session.Session{ID: id, Version: 1, Expires: time.Now().Add(time.Hour), User: session.User{ID: id, Groups: []string{"staff"}}}
	}
	return r
}

func (r *register) OpenTicket(ticket string) (string, uint64, error) {
	if len(ticket) < 2 {
		return "", 0, session.ErrTicket
	}
	version, err := strconv.ParseUint(ticket[1:], 10, 64)
	return ticket[:1], version, err
}

func (r *register) Live(_ context.Context, id string) (*session.Session, time.Time, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reads++
	s, ok := r.live[id]
	if after := r.afterRead; after != nil {
		r.afterRead = nil
		r.mu.Unlock()
		after()
		r.mu.Lock()
	}
	switch {
	case r.unread != nil:
		return nil, time.Time{}, r.unread
	case !ok || !time.Now().Before(s.Expires):
		return nil, time.Time{}, session.ErrNone
	}
	return &s, s.Expires, nil
}

func (r *register) Watch(ctx context.Context) (<-chan string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.unwatched != nil {
		return nil, r.unwatched
	}
	ctx, cancel := context.WithCancel(ctx)
	in, out := make(chan string, 100), make(chan string)
	r.watches[in] = cancel
	go func() {
		defer close(out)
		for {
			select {
			case id := <-in:
				select {
				case out <- id:
				case <-ctx.Done():
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return out, nil
}

// change has a session changed, or ended by nil, and tells of it as told; "-" tells nobody.
func (r *register) change(id string, f func(*session.Session), told string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.live[id]
	if f == nil {
		delete(r.live, id)
	} else {
		f(&s)
		s.Version++
		r.live[id] = s
	}
	for in := range r.watches {
		if told != "-" {
			in <- told
		}
	}
}

// fail has reads fail with unread and watches with unwatched; those that are under way end.
func (r *register) fail(unread, unwatched error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.unread, r.unwatched = unread, unwatched
	if unwatched != nil {
		for in, cancel := range r.watches {
			cancel()
			delete(r.watches, in)
		}
	}
}

// newServer is a Server that runs until the test ends.
func newServer(t *testing.T, r *register, limit int) (*Server, context.CancelFunc) {
	t.Helper()
	s, err := New(Config{Sessions: r, Limit: func() int { return limit }, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var run sync.WaitGroup
	run.Go(func() { _ = s.Run(ctx) })
	stop := func() { cancel(); run.Wait() }
	t.Cleanup(stop)
	synctest.Wait()
	return s, stop
}

func (s *Server) begun(t *testing.T, ticket string) *stream {
	t.Helper()
	st, err := s.begin(t.Context(), ticket)
	if err != nil {
		t.Fatalf("%s: %v", ticket, err)
	}
	return st
}

// reason is why a stream has ended, nil while it is open.
func (st *stream) reason() error {
	synctest.Wait()
	select {
	case err := <-st.end:
		return err
	default:
		return nil
	}
}

func TestWhatEndsAStream(t *testing.T) {
	cannot := errors.New("the store is away")
	for _, row := range []struct {
		name string
		do   func(r *register, stop func())
		want error
	}{
		{"nothing", func(*register, func()) { time.Sleep(30 * time.Minute) }, nil},
		{"the session is revoked", func(r *register, _ func()) { r.change("a", nil, "a") }, errEnded},
		{"it is, and the watcher was too slow to be told which", func(r *register, _ func()) { r.change("a", nil, "") }, errEnded},
		{"another session is", func(r *register, _ func()) { r.change("b", nil, "b") }, nil},
		{"the session expires", func(*register, func()) { time.Sleep(time.Hour + time.Second) }, errEnded},
		{"it would have, but was given more time", func(r *register, _ func()) {
			r.change("a", func(s *session.Session) { s.Expires = s.Expires.Add(time.Hour) }, "a")
			time.Sleep(time.Hour + time.Second)
		}, nil},
		{"it would have, was given more time, and nobody was told", func(r *register, _ func()) {
			r.change("a", func(s *session.Session) { s.Expires = s.Expires.Add(time.Hour) }, "-")
			time.Sleep(time.Hour + time.Second)
		}, nil},
		{"it expires earlier than it would have", func(r *register, _ func()) {
			r.change("a", func(s *session.Session) { s.Expires = time.Now().Add(time.Minute) }, "a")
			time.Sleep(time.Minute + time.Second)
		}, errEnded},
		{"it expires while the store is away", func(r *register, _ func()) {
			time.Sleep(time.Hour - time.Second)
			r.fail(cannot, nil)
			time.Sleep(2 * time.Second)
		}, errEnded},
		{"a group is taken away", func(r *register, _ func()) {
			r.change("a", func(s *session.Session) { s.User.Groups = nil }, "a")
		}, errChanged},
		{"the record is written again as it was", func(r *register, _ func()) {
			r.change("a", func(*session.Session) {}, "a")
		}, nil},
		{"changes cannot be told: the session lives", func(r *register, _ func()) {
			r.fail(nil, cannot)
			time.Sleep(time.Minute)
		}, nil},
		{"changes cannot be told: it is revoked", func(r *register, _ func()) {
			r.fail(nil, cannot)
			r.change("a", nil, "a")
			time.Sleep(2 * time.Second)
		}, errEnded},
		{"changes cannot be told for a while in which it is revoked", func(r *register, _ func()) {
			r.fail(nil, cannot)
			r.change("a", nil, "a")
			r.fail(nil, nil)
			time.Sleep(2 * time.Second)
		}, errEnded},
		{"the store is away for a moment", func(r *register, _ func()) {
			r.fail(cannot, cannot)
			time.Sleep(5 * time.Second)
			r.fail(nil, nil)
			time.Sleep(time.Minute)
		}, nil},
		{"the store is away for long", func(r *register, _ func()) {
			r.fail(cannot, cannot)
			time.Sleep(15 * time.Second)
		}, errUnknown},
		{"doorward stops", func(_ *register, stop func()) { stop() }, errStopping},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegister("a", "b")
				s, stop := newServer(t, r, 10)
				first, second := s.begun(t, "a1"), s.begun(t, "a1")
				row.do(r, stop)
				if got := first.reason(); !errors.Is(got, row.want) || row.want == nil && got != nil {
					t.Errorf("the stream ended with %v, want %v", got, row.want)
				}
				if got := second.reason(); !errors.Is(got, row.want) {
					t.Errorf("the session's other stream ended with %v, want %v", got, row.want)
				}
				s.remove(first)
				s.remove(second)
				if s.Open() != 0 || len(s.held) != 0 {
					t.Errorf("%d streams of %d sessions are left", s.Open(), len(s.held))
				}
			})
		})
	}
}

func TestWhatDoesNotBegin(t *testing.T) {
	for _, row := range []struct {
		name, ticket string
		prepare      func(r *register, s *Server, stop func())
		want         error
	}{
		{"no ticket", "", nil, session.ErrTicket},
		{"the session has ended", "a1", func(r *register, _ *Server, _ func()) { r.change("a", nil, "a") }, errEnded},
		{"it ends while it is read", "a1", func(r *register, _ *Server, _ func()) {
			r.afterRead = func() { r.change("a", nil, "a") }
		}, errEnded},
		{"it has changed since the request was decided", "a1", func(r *register, _ *Server, _ func()) {
			r.change("a", func(s *session.Session) { s.User.Groups = nil }, "a")
		}, errChanged},
		{"the store is away", "a1", func(r *register, _ *Server, _ func()) { r.fail(errors.New("away"), nil) }, errUnknown},
		{"the session has as many as it may", "a1", func(_ *register, s *Server, _ func()) {
			_, _ = s.begin(context.Background(), "a1")
			_, _ = s.begin(context.Background(), "a1")
		}, errMany},
		{"doorward stops", "a1", func(_ *register, _ *Server, stop func()) { stop() }, errStopping},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRegister("a", "b")
				s, stop := newServer(t, r, 2)
				if row.prepare != nil {
					row.prepare(r, s, stop)
					synctest.Wait()
				}
				before := s.Open()
				st, err := s.begin(t.Context(), row.ticket)
				if err == nil {
					err = st.reason() // ended as it began
				}
				if !errors.Is(err, row.want) {
					t.Errorf("began with %v, want %v", err, row.want)
				}
				if s.Open() != before {
					t.Errorf("%d streams are open, want %d", s.Open(), before)
				}
				r.fail(nil, nil)
				if row.want != errStopping {
					s.begun(t, "b1") // others may
				}
			})
		})
	}
}

func TestAStreamThatEndsMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister("a")
		s, _ := newServer(t, r, 1)
		st := s.begun(t, "a1")
		if _, err := s.begin(t.Context(), "a1"); !errors.Is(err, errMany) {
			t.Fatalf("the second: %v, want %v", err, errMany)
		}
		s.remove(st)
		s.remove(st) // once is enough
		s.begun(t, "a1")
		if s.Open() != 1 {
			t.Errorf("%d streams are open, want 1", s.Open())
		}
	})
}

// TestNothingIsReadForNobody: what happens to sessions without streams costs nothing.
func TestNothingIsReadForNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRegister("a", "b")
		s, _ := newServer(t, r, 1)
		s.begun(t, "a1")
		before := r.reads
		for range 50 {
			r.change("b", func(*session.Session) {}, "b")
		}
		time.Sleep(10 * time.Minute)
		if r.reads != before {
			t.Errorf("%d reads of sessions, want none", r.reads-before)
		}
	})
}
