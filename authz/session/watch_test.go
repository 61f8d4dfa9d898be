package session

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestWatchTellsOfChangesInAnotherProcess(t *testing.T) {
	f := setUp(t)
	other := replica(t, f.clock, f.store, f.sealer)
	s := f.create(f.alice())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ids, err := other.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Revoke(t.Context(), s.ID); err != nil {
		t.Fatal(err)
	}
	// The event of the creation may come too.
	for deadline := time.After(5 * time.Second); ; {
		select {
		case id := <-ids:
			if id != s.ID {
				t.Fatalf("told of %q, want %q", id, s.ID)
			}
			if _, _, err := other.Live(t.Context(), id); errors.Is(err, ErrNone) {
				cancel()
				for range ids { // ends
				}
				return
			}
		case <-deadline:
			t.Fatal("not told of the revocation")
		}
	}
}

func TestLive(t *testing.T) {
	f := setUp(t)
	s := f.create(f.alice())
	live, end, err := f.Live(t.Context(), s.ID)
	if err != nil || live.ID != s.ID || live.Version != s.Version || live.Tokens != (Tokens{}) || !end.Equal(s.Expires) {
		t.Errorf("got %+v %v %v, want the session without its tokens, and when it expires", live, end, err)
	}
	f.clock.advance(14 * time.Hour)
	if _, _, err := f.Live(t.Context(), s.ID); !errors.Is(err, ErrNone) {
		t.Errorf("at its end: %v, want ErrNone", err)
	}
	for _, id := range []string{"", "x", newID()} {
		if _, _, err := f.Live(t.Context(), id); !errors.Is(err, ErrNone) {
			t.Errorf("%q: %v, want ErrNone", id, err)
		}
	}
}

func TestTicket(t *testing.T) {
	f := setUp(t)
	s := f.create(f.alice())
	ticket := f.Ticket(s)
	if id, version, err := f.OpenTicket(ticket); err != nil || id != s.ID || version != s.Version {
		t.Errorf("got %s %d %v, want %s %d", id, version, err, s.ID, s.Version)
	}
	if len(ticket) != 92 || strings.Contains(ticket, s.ID) {
		t.Errorf("the ticket %q has %d characters, or shows the id", ticket, len(ticket))
	}
	stranger := setUp(t)
	for what, bad := range map[string]string{
		"nothing":                   "",
		"cut short":                 ticket[:91],
		"longer":                    ticket + "A",
		"changed":                   ticket[:50] + string('A'+(ticket[50]+1)%26) + ticket[51:],
		"the id":                    s.ID,
		"another key's":             stranger.Ticket(s),
		"sealed for something else": base64.RawURLEncoding.EncodeToString(f.sealer.Seal("cookie", make([]byte, 24))),
		"sealed, but of other size": base64.RawURLEncoding.EncodeToString(f.sealer.Seal(ticketPurpose, make([]byte, 25))),
	} {
		if _, _, err := f.OpenTicket(bad); !errors.Is(err, ErrTicket) {
			t.Errorf("%s: %v, want ErrTicket", what, err)
		}
	}
	if got := f.Ticket(&Session{ID: "not one of ours"}); got != "" {
		t.Errorf("the ticket of a session that no store can have is %q, want none", got)
	}
}

// TestLiveIsNoUse: to ask whether a session lives does not keep it from being idle.
func TestLiveIsNoUse(t *testing.T) {
	f := setUp(t)
	f.idleLimit = func() time.Duration { return time.Hour }
	s := f.create(f.alice())
	cookie := f.issue(s.ID, host)
	ends := func(want time.Time) {
		t.Helper()
		if _, end, err := f.Live(t.Context(), s.ID); err != nil || end.Sub(want).Abs() > time.Second {
			t.Errorf("it ends at %v, %v, want %v", end, err, want)
		}
	}
	ends(start.Add(time.Hour))
	f.clock.advance(30 * time.Minute)
	ends(start.Add(time.Hour))
	f.finds(cookie, host, s.ID)
	ends(start.Add(90 * time.Minute))
	f.clock.advance(time.Hour)
	if _, _, err := f.Live(t.Context(), s.ID); !errors.Is(err, ErrNone) {
		t.Errorf("an hour after its last use: %v, want ErrNone", err)
	}
}

// TestLiveAsksForTheLastUse: when that cannot be read, nothing is known.
func TestLiveAsksForTheLastUse(t *testing.T) {
	f := setUp(t)
	f.idleLimit = func() time.Duration { return 24 * time.Hour }
	s := f.create(f.alice())
	if _, end, err := f.Live(t.Context(), s.ID); err != nil || !end.Equal(s.Expires) {
		t.Errorf("it ends at %v, %v, want its expiry, which comes before the idle limit", end, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	after := func(string) { cancel() }
	f.store.afterGet.Store(&after)
	if _, _, err := f.Live(ctx, s.ID); err == nil || errors.Is(err, ErrNone) {
		t.Errorf("with the store away: %v, want an error that is not ErrNone", err)
	}
}
