package token

import (
	"testing"
	"time"
)

// TestClockBehind has the clock go back behind the first key: it signs all the same.
func TestClockBehind(t *testing.T) {
	c, clock := setUp(t)
	want := open(t, c).KeyID()
	clock.advance(-24 * time.Hour)
	r := open(t, c)
	hasKids(t, r, want)
	if r.KeyID() != want {
		t.Errorf("signs with %s, want %s", r.KeyID(), want)
	}
	// The next one signs when it should, though the first one's time has not come.
	rotate(t, r)
	clock.advance(66 * time.Minute)
	if r.KeyID() == want {
		t.Error("the next key does not sign")
	}
}

// TestClockJumps has the clock go forward for a moment, and back: the key that waits waits as long as before, and none is withdrawn.
func TestClockJumps(t *testing.T) {
	c, clock := setUp(t)
	r := open(t, c)
	first := r.KeyID()
	rotate(t, r)
	both := string(r.JWKS())
	clock.advance(time.Hour)
	for _, jump := range []time.Duration{1000 * time.Hour, -1000 * time.Hour} {
		clock.advance(jump)
		r.KeyID()
		if string(r.JWKS()) != both || string(open(t, c).JWKS()) != both {
			t.Errorf("while the clock is %s off, %s is published, want %s", jump, r.JWKS(), both)
		}
		clock.advance(-jump)
		if r.KeyID() != first || string(r.JWKS()) != both {
			t.Errorf("after the clock was %s off, %s signs, want %s", jump, r.KeyID(), first)
		}
	}
}

// TestKeyFromTheFuture has a key added while the clock is ahead: that is said, and what is added when it is right does not wait for it.
func TestKeyFromTheFuture(t *testing.T) {
	for name, file := range map[string]string{"generated": "", "a file's": keyFile(t)} {
		t.Run(name, func(t *testing.T) {
			c, clock := setUp(t)
			r := open(t, c)
			first := r.KeyID()
			clock.advance(1000 * time.Hour)
			if file == "" {
				rotate(t, r)
			} else if err := r.Adopt(t.Context(), Settings{SigningKeyFile: file}); err != nil {
				t.Fatal(err)
			}
			next := kids(t, r.JWKS())[1]
			clock.advance(-1000 * time.Hour)
			want := next + " was published at 2026-04-12T04:00:00Z, which is still to come: the clock was wrong then or is wrong now; " +
				"once it is right, doorward key rotate publishes the key anew"
			if got := r.Report().Problem; got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
			rotate(t, r)
			hasKids(t, r, first, next)
			if got := r.Report().Problem; got != "" {
				t.Errorf("still: %s", got)
			}
			clock.advance(66*time.Minute - time.Nanosecond)
			if r.KeyID() != first {
				t.Error("the new key signs too early")
			}
			clock.advance(time.Nanosecond)
			if r.KeyID() != next {
				t.Error("the new key does not sign")
			}
		})
	}
}

// TestPace holds when Run goes by the clock: not before it has gone evenly for ten minutes.
func TestPace(t *testing.T) {
	monotonic := time.Now()
	wall := start
	p := newPace(wall, monotonic)
	for _, row := range []struct {
		what            string
		wall, monotonic time.Duration
		steady          bool
	}{
		{"at first", 9 * time.Minute, 9 * time.Minute, false},
		{"ten minutes after the start", time.Minute, time.Minute, true},
		{"a clock that is slewed", 61 * time.Second, time.Minute, true},
		{"a jump forward", time.Hour, time.Minute, false},
		{"nine minutes after it", 9 * time.Minute, 9 * time.Minute, false},
		{"a jump back", -time.Hour, time.Minute, false},
		{"ten minutes after it", 10 * time.Minute, 10 * time.Minute, true},
		{"the machine slept", 8 * time.Hour, 0, false},
	} {
		wall, monotonic = wall.Add(row.wall), monotonic.Add(row.monotonic)
		if got := p.steady(wall, monotonic, maxSkew); got != row.steady {
			t.Errorf("%s: %t, want %t", row.what, got, row.steady)
		}
	}
}
