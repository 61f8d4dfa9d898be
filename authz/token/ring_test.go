package token

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"testing"
	"time"

	"doorward/authz/store"
)

// tend does what Run does each minute.
func tend(t testing.TB, r *Ring) {
	t.Helper()
	if err := r.update(t.Context(), r.tend); err != nil {
		t.Fatal(err)
	}
}

func TestRotate(t *testing.T) {
	c, clock := setUp(t)
	r := open(t, c)
	first := r.KeyID()
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	published := kids(t, r.JWKS())
	if len(published) != 2 || published[0] != first || r.KeyID() != first {
		t.Fatalf("published %q, signs with %s, want the old key to sign and two to be published", published, r.KeyID())
	}
	second := published[1]
	want := Refusal("rotate signing key: " + second + " is published already and signs from 2026-03-01T13:06:00Z; until then there can be no other rotation")
	if err := r.Rotate(t.Context()); err != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	hasKids(t, r, first, second)

	steps := []struct {
		after     time.Duration // in all
		active    string
		published []string
	}{
		{66*time.Minute - time.Nanosecond, first, []string{first, second}}, // consumer's cache, HTTP caches, clocks
		{66 * time.Minute, second, []string{first, second}},
		{76*time.Minute - time.Nanosecond, second, []string{first, second}}, // twice the longest life of a token
		{76 * time.Minute, second, []string{second}},
		{1000 * time.Hour, second, []string{second}},
	}
	var past time.Duration
	for _, step := range steps {
		clock.advance(step.after - past)
		past = step.after
		for how, ring := range map[string]*Ring{"running": r, "opened again": open(t, c)} {
			tend(t, ring)
			if ring.KeyID() != step.active {
				t.Errorf("after %s, %s: signs with %s, want %s", step.after, how, ring.KeyID(), step.active)
			}
			hasKids(t, ring, step.published...)
		}
	}
	_, rec, err := r.read(t.Context())
	if err != nil || len(rec.keys) != 1 {
		t.Errorf("%d keys in the store, %v, want only the one in use", len(rec.keys), err)
	}
}

// TestSchedule has the keys change by themselves: each signs for as long as it should, and its successor is published well before.
func TestSchedule(t *testing.T) {
	c, clock := setUp(t)
	c.RotateEvery = 24 * time.Hour
	a, b := open(t, c), open(t, c)
	first := a.KeyID()
	step := func(d time.Duration) {
		clock.advance(d)
		tend(t, a)
		tend(t, b)
	}
	step(24*time.Hour - 66*time.Minute - time.Nanosecond)
	hasKids(t, a, first)
	if got, want := a.Report().Rotates, start.Add(24*time.Hour); !got.Equal(want) {
		t.Errorf("another key signs at %s, want %s", got, want)
	}
	step(time.Nanosecond)
	if len(kids(t, a.JWKS())) != 2 || string(a.JWKS()) != string(b.JWKS()) {
		t.Fatalf("published %s and %s, want the same successor", a.JWKS(), b.JWKS())
	}
	if got, want := b.Report().Rotates, start.Add(24*time.Hour); !got.Equal(want) {
		t.Errorf("another key signs at %s, want %s", got, want)
	}
	step(66*time.Minute - time.Nanosecond)
	if a.KeyID() != first {
		t.Error("the successor signs too early")
	}
	step(time.Nanosecond)
	second := a.KeyID()
	if second == first || b.KeyID() != second {
		t.Errorf("after a day %s and %s sign, want the successor of %s", second, b.KeyID(), first)
	}
	// After a long time without a running replica there is one change, with all its time.
	clock.advance(1000 * time.Hour)
	r := open(t, c)
	if r.KeyID() != second {
		t.Error("another key signs that nobody has")
	}
	if got, want := r.Report().Rotates, clock.Now().Add(66*time.Minute); !got.Equal(want) {
		t.Errorf("another key signs at %s, want %s", got, want)
	}
	tend(t, r)
	clock.advance(66*time.Minute - time.Nanosecond)
	if len(kids(t, r.JWKS())) != 2 || r.KeyID() != second {
		t.Errorf("signs with %s of %s, want %s", r.KeyID(), r.JWKS(), second)
	}
	// Without a schedule nothing changes.
	if err := r.Adopt(t.Context(), Settings{}); err != nil {
		t.Fatal(err)
	}
	clock.advance(1000 * time.Hour)
	third := r.KeyID()
	tend(t, r)
	hasKids(t, r, third)
	if got := r.Report().Rotates; !got.IsZero() {
		t.Errorf("another key signs at %s, want never", got)
	}
}

// TestFileReplaced changes the file that gives the key, or takes it away, between starts and while running.
func TestFileReplaced(t *testing.T) {
	t.Run("restarted", func(t *testing.T) {
		testFileReplaced(t, func(c Config, file string) *Ring {
			c.SigningKeyFile = file
			return open(t, c)
		})
	})
	rings := map[store.Store]*Ring{}
	t.Run("running", func(t *testing.T) {
		testFileReplaced(t, func(c Config, file string) *Ring {
			r := rings[c.Store]
			if r == nil {
				c.SigningKeyFile = file
				rings[c.Store] = open(t, c)
				return rings[c.Store]
			}
			if err := r.Adopt(t.Context(), Settings{SigningKeyFile: file}); err != nil {
				t.Fatal(err)
			}
			return r
		})
	})
}

func testFileReplaced(t *testing.T, restart func(Config, string) *Ring) {
	one, two := keyFile(t), keyFile(t)
	id := func(file string) string {
		k, err := readKey(file)
		if err != nil {
			t.Fatal(err)
		}
		return k.id
	}
	lead := func(c Config) time.Duration { c.ConsumerCache = time.Hour; return c.lead() }

	t.Run("another file", func(t *testing.T) {
		c, clock := setUp(t)
		restart(c, one)
		r := restart(c, two)
		hasKids(t, r, id(one), id(two))
		if r.KeyID() != id(one) {
			t.Error("the new key signs before it was published")
		}
		clock.advance(lead(c))
		if r.KeyID() != id(two) {
			t.Error("the new key does not sign")
		}
		hasKids(t, r, id(one), id(two))
		clock.advance(retention)
		tend(t, r)
		hasKids(t, r, id(two))
	})
	t.Run("the same file", func(t *testing.T) {
		c, clock := setUp(t)
		restart(c, one)
		clock.advance(time.Hour)
		hasKids(t, restart(c, one), id(one))
	})
	t.Run("back before it signs", func(t *testing.T) {
		c, clock := setUp(t)
		restart(c, one)
		restart(c, two)
		clock.advance(10 * time.Minute)
		r := restart(c, one)
		hasKids(t, r, id(one))
		clock.advance(2 * time.Hour)
		if r.KeyID() != id(one) {
			t.Error("the key that was given up signs")
		}
	})
	t.Run("back when it signs", func(t *testing.T) {
		c, clock := setUp(t)
		restart(c, one)
		restart(c, two)
		clock.advance(lead(c) + time.Minute)
		r := restart(c, one)
		hasKids(t, r, id(one), id(two))
		if r.KeyID() != id(two) {
			t.Error("the first key signs again at once")
		}
		clock.advance(lead(c))
		if r.KeyID() != id(one) {
			t.Error("the first key does not sign again")
		}
	})
	t.Run("back when it is about to sign", func(t *testing.T) {
		c, clock := setUp(t)
		restart(c, one)
		restart(c, two)
		clock.advance(lead(c) - time.Second)
		r := restart(c, one)
		hasKids(t, r, id(one), id(two))
		clock.advance(2 * lead(c))
		if r.KeyID() != id(one) {
			t.Error("the first key does not sign again")
		}
	})
	t.Run("taken away", func(t *testing.T) {
		c, clock := setUp(t)
		restart(c, one)
		r := restart(c, "")
		if r.KeyID() != id(one) || len(kids(t, r.JWKS())) != 2 {
			t.Error("no generated key is published beside the file's")
		}
		clock.advance(lead(c))
		if r.KeyID() == id(one) {
			t.Error("the key of the file that was taken away still signs")
		}
	})
	t.Run("given later", func(t *testing.T) {
		c, clock := setUp(t)
		first := restart(c, "").KeyID()
		r := restart(c, one)
		if r.KeyID() != first {
			t.Error("the file's key signs before it was published")
		}
		clock.advance(lead(c))
		if r.KeyID() != id(one) {
			t.Error("the file's key does not sign")
		}
		want := Refusal("rotate signing key: it is given by jwt.signing_key_file: put another key into " + one)
		if err := r.Rotate(t.Context()); err != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
	t.Run("the generated key as a file", func(t *testing.T) {
		c, _ := setUp(t)
		r := restart(c, "")
		der, err := x509.MarshalPKCS8PrivateKey(r.at(c.Now()).active.private)
		if err != nil {
			t.Fatal(err)
		}
		hasKids(t, restart(c, pemFile(t, &pem.Block{Type: "PRIVATE KEY", Bytes: der})), r.KeyID())
	})
}

// TestTakesNoOlder has what was read before a change arrive after it.
func TestTakesNoOlder(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	version, rec, err := r.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.take(version, rec)
	if got := kids(t, r.JWKS()); len(got) != 2 {
		t.Errorf("published %q, want two keys", got)
	}
}

// TestRun has a replica take over what another one does.
func TestRun(t *testing.T) {
	c, clock := setUp(t)
	a, b := open(t, c), open(t, c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	if err := a.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); string(a.JWKS()) != string(b.JWKS()); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the other replica does not publish the new key")
		}
	}
	clock.advance(2 * time.Hour)
	if a.KeyID() != b.KeyID() {
		t.Error("two replicas sign with different keys")
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run: %v", err)
	}
	if err := c.Store.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Run(t.Context()); !errors.Is(err, store.ErrClosed) {
		t.Errorf("run on a closed store: got %v", err)
	}
	if mint(t, a, Claims{Issuer: "i", Audience: "a", Subject: "s", NotAfter: clock.Now().Add(time.Hour)}) == "" {
		t.Error("without a store nothing is signed")
	}
}

// TestStoreEmptied has somebody delete the record under a running ring: what signs goes on, and is written again.
func TestStoreEmptied(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	want := r.KeyID()
	if _, err := c.Store.Apply(t.Context(), store.Op{Key: ringKey, Expect: store.Any}); err != nil {
		t.Fatal(err)
	}
	tend(t, r)
	for how, r := range map[string]*Ring{"running": r, "opened again": open(t, c)} {
		if r.KeyID() != want {
			t.Errorf("%s: signs with %s, want %s", how, r.KeyID(), want)
		}
	}
}

// TestConsumerCacheGrows has consumers keep the JWKS for longer while a key waits: it waits for longer.
func TestConsumerCacheGrows(t *testing.T) {
	c, clock := setUp(t)
	r := open(t, c)
	first := r.KeyID()
	rotate(t, r)
	c.ConsumerCache = 3 * time.Hour
	clock.advance(time.Hour)
	r = open(t, c)
	clock.advance(2*time.Hour + 6*time.Minute - time.Nanosecond)
	if r.KeyID() != first {
		t.Error("the new key signs before every consumer can have it")
	}
	clock.advance(time.Nanosecond)
	if r.KeyID() == first {
		t.Error("the new key does not sign")
	}
}
