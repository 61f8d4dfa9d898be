package token

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"testing"
	"time"

	"doorward/authz/store"
)

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
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
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
			if ring.KeyID() != step.active {
				t.Errorf("after %s, %s: signs with %s, want %s", step.after, how, ring.KeyID(), step.active)
			}
			hasKids(t, ring, step.published...)
		}
	}
	_, keys, err := r.read(t.Context())
	if err != nil || len(keys) != 1 {
		t.Errorf("%d keys in the store, %v, want only the one in use", len(keys), err)
	}
}

// TestFileReplaced changes the file that gives the key, or takes it away, between starts.
func TestFileReplaced(t *testing.T) {
	one, two := keyFile(t), keyFile(t)
	id := func(file string) string {
		k, err := readKey(file)
		if err != nil {
			t.Fatal(err)
		}
		return k.id
	}
	lead := func(c Config) time.Duration { c.ConsumerCache = time.Hour; return c.lead() }
	restart := func(c Config, file string) *Ring {
		c.SigningKeyFile = file
		return open(t, c)
	}

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
		want := "rotate signing key: it is given by " + one + ": put another key there and restart"
		if err := r.Rotate(t.Context()); err == nil || err.Error() != want {
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

// TestConsumers has consumers with key sets of all ages verify every token, through rotations and restarts with other files.
func TestConsumers(t *testing.T) {
	const leeway = time.Minute
	c, clock := setUp(t)
	files := []string{"", keyFile(t), keyFile(t)}
	random := mathrand.New(mathrand.NewPCG(1, 2))
	r := open(t, c)
	type published struct {
		at   time.Time
		kids []string
	}
	type minted struct {
		kid     string
		expires time.Time
	}
	var sets []published // what a consumer may hold: for its own time what an HTTP cache had held
	var tokens []minted  // not yet expired
	signed := map[string]bool{}
	for step := range 20_000 {
		switch n := random.IntN(300); {
		case n == 0:
			c.SigningKeyFile = files[random.IntN(len(files))]
			r = open(t, c)
		case n == 1 && c.SigningKeyFile == "":
			if err := r.Rotate(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		now, kid := clock.Now(), r.KeyID()
		signed[kid] = true
		sets = append(sets, published{now, kids(t, r.JWKS())})
		tokens = append(tokens, minted{kid, now.Add(maxLifetime)})
		for now.Sub(sets[0].at) > time.Hour+maxAge {
			sets = sets[1:]
		}
		for now.Sub(tokens[0].expires) > leeway {
			tokens = tokens[1:]
		}
		for _, set := range sets {
			if !slices.Contains(set.kids, kid) {
				t.Fatalf("step %d: a consumer with a key set %s old lacks the key that signs", step, now.Sub(set.at))
			}
		}
		for _, token := range tokens {
			if !slices.Contains(sets[len(sets)-1].kids, token.kid) {
				t.Fatalf("step %d: the key of a token good for another %s is no longer published", step, token.expires.Add(leeway).Sub(now))
			}
		}
		clock.advance(time.Duration(random.IntN(60)) * time.Second)
	}
	if len(signed) < 10 {
		t.Errorf("only %d keys signed", len(signed))
	}
}

// TestTakesNoOlder has what was read before a change arrive after it.
func TestTakesNoOlder(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	item, keys, err := r.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.take(item.Version, keys)
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
}
