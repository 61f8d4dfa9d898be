package token

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// TestRetire withdraws keys that have leaked.
func TestRetire(t *testing.T) {
	t.Run("the one that signs", func(t *testing.T) {
		c, clock := setUp(t)
		r := open(t, c)
		first := r.KeyID()
		want := Refusal("retire signing key: " + first + ` signs now:
- tokens that it signed are good for up to 5m0s; applications would refuse them once they fetch the JWKS again
- its successor would be published only now; applications that cache the JWKS may refuse all new tokens until 2026-03-01T13:06:00Z, or until they are restarted
- applications that cache the JWKS would accept tokens signed by it until then all the same
use --force when the key has leaked; otherwise doorward key rotate replaces it without breaking anything`)
		if err := r.Retire(t.Context(), first, false); err != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		hasKids(t, r, first)
		other := open(t, c)
		retire(t, r, first, true)
		second := r.KeyID()
		hasKids(t, r, second)
		if second == first {
			t.Error("it still signs")
		}
		if err := verify(mint(t, r, alice()), r.JWKS(), clock.Now()); err != nil {
			t.Error(err)
		}
		if got, want := r.Report().Keys[0].Trusted, start.Add(66*time.Minute); !got.Equal(want) {
			t.Errorf("every consumer has the new one from %s, want %s", got, want)
		}
		// Other replicas, and those that start later, have done so too.
		tend(t, other)
		for _, r := range []*Ring{other, open(t, c)} {
			hasKids(t, r, second)
			if r.KeyID() != second {
				t.Errorf("signs with %s, want %s", r.KeyID(), second)
			}
		}
	})
	t.Run("the one that signs while another waits", func(t *testing.T) {
		c, clock := setUp(t)
		r := open(t, c)
		first := r.KeyID()
		rotate(t, r)
		second := kids(t, r.JWKS())[1]
		clock.advance(20 * time.Minute)
		err := r.Retire(t.Context(), first, false)
		if err == nil || !strings.Contains(err.Error(), "its successor is published only since 2026-03-01T12:00:00Z; "+
			"applications that cache the JWKS may refuse all new tokens until 2026-03-01T13:06:00Z") {
			t.Errorf("got %v", err)
		}
		retire(t, r, first, true)
		hasKids(t, r, second)
		if r.KeyID() != second {
			t.Error("the key that waited does not sign")
		}
		if got, want := r.Report().Keys[0].Trusted, start.Add(66*time.Minute); !got.Equal(want) {
			t.Errorf("every consumer has it from %s, want %s", got, want)
		}
	})
	t.Run("one that waits", func(t *testing.T) {
		c, clock := setUp(t)
		r := open(t, c)
		first := r.KeyID()
		rotate(t, r)
		retire(t, r, kids(t, r.JWKS())[1], false)
		hasKids(t, r, first)
		rotate(t, r)
		clock.advance(65 * time.Minute)
		if r.KeyID() != first {
			t.Error("the new key signs too early")
		}
	})
	t.Run("a retired one", func(t *testing.T) {
		c, clock := setUp(t)
		r := open(t, c)
		first := r.KeyID()
		rotate(t, r)
		clock.advance(67 * time.Minute)
		second := r.KeyID()
		want := Refusal("retire signing key: tokens that " + first + " signed are good until 2026-03-01T13:11:00Z; " +
			"applications would refuse them once they fetch the JWKS again\n" +
			"use --force when the key has leaked; otherwise doorward key rotate replaces it without breaking anything")
		if err := r.Retire(t.Context(), first, false); err != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
		hasKids(t, r, first, second)
		clock.advance(5 * time.Minute)
		retire(t, r, first, false)
		hasKids(t, r, second)
	})
	t.Run("an unknown one", func(t *testing.T) {
		c, _ := setUp(t)
		want := Refusal(`retire signing key: there is none with the id "x"; doorward key list shows those that there are`)
		if err := open(t, c).Retire(t.Context(), "x", true); err != want {
			t.Errorf("got %v\nwant %s", err, want)
		}
	})
}

// TestRetireFile withdraws the key of a file that still has it.
func TestRetireFile(t *testing.T) {
	c, clock := setUp(t)
	one, two := keyFile(t), keyFile(t)
	c.SigningKeyFile = one
	r := open(t, c)
	first := r.KeyID()
	retire(t, r, first, true)
	second := r.KeyID()
	hasKids(t, r, second)
	again := open(t, c)
	for how, r := range map[string]*Ring{"running": r, "opened again": again} {
		hasKids(t, r, second)
		want := one + " holds the key " + first + ", which was retired: put another one there"
		if got := r.Report(); got.Problem != want || got.Keys[0].Source != "generated" {
			t.Errorf("%s: got %+v\nwant %s", how, got, want)
		}
	}
	rotate(t, again)
	third := kids(t, again.JWKS())[1]
	clock.advance(2 * time.Hour)
	if again.KeyID() != third {
		t.Error("without a file to give them, keys are not rotated by hand")
	}
	// Another key in another file goes the usual way.
	if err := again.Adopt(t.Context(), Settings{SigningKeyFile: two}); err != nil {
		t.Fatal(err)
	}
	clock.advance(66 * time.Minute)
	if got := again.Report(); got.Problem != "" || got.Keys[len(got.Keys)-1].Source != "file" || got.Keys[len(got.Keys)-1].State != Active {
		t.Errorf("got %+v", got)
	}
	// The one that leaked is not taken up from anywhere.
	signing := again.KeyID()
	if err := again.Adopt(t.Context(), Settings{SigningKeyFile: one}); err != nil {
		t.Fatal(err)
	}
	clock.advance(2 * time.Hour)
	if again.KeyID() != signing {
		t.Error("another key than before signs")
	}
	_, rec, err := again.read(t.Context())
	if err != nil || len(rec.withdrawn) != 1 || !rec.withdrew(first) {
		t.Errorf("withdrawn: %v, %v", rec.withdrawn, err)
	}
}

// TestRetireTwice has a key in the record twice, to sign now and again: it goes at once.
func TestRetireTwice(t *testing.T) {
	c, clock := setUp(t)
	one, two := keyFile(t), keyFile(t)
	c.SigningKeyFile = one
	r := open(t, c)
	first := r.KeyID()
	for _, file := range []string{two, one} {
		if err := r.Adopt(t.Context(), Settings{SigningKeyFile: file}); err != nil {
			t.Fatal(err)
		}
		clock.advance(66*time.Minute - 30*time.Second)
	}
	report := r.Report()
	second := report.Keys[1].ID
	if len(report.Keys) != 3 || report.Keys[0].ID != first || report.Keys[2].ID != first {
		t.Fatalf("got %+v", report.Keys)
	}
	hasKids(t, r, first, second)
	retire(t, r, first, true)
	hasKids(t, r, second)
	if r.KeyID() != second {
		t.Error("the other one does not sign")
	}
}

// TestReport has no more of a key than everybody may know.
func TestReport(t *testing.T) {
	c, clock := setUp(t)
	c.RotateEvery = 24 * time.Hour
	r := open(t, c)
	first := r.KeyID()
	clock.advance(time.Hour)
	rotate(t, r)
	second := kids(t, r.JWKS())[1]
	row := func(more string) string { return strings.NewReplacer("FIRST", first, "SECOND", second).Replace(more) }
	waiting := row(`{"keys":[{"kid":"FIRST","state":"active","source":"generated","published":"2026-03-01T12:00:00.5Z","signs":"2026-03-01T12:00:00.5Z",` +
		`"trusted":"2026-03-01T12:00:00.5Z","retired":"2026-03-01T14:06:00.5Z","gone":"2026-03-01T14:16:00.5Z"},` +
		`{"kid":"SECOND","state":"next","source":"generated","published":"2026-03-01T13:00:00.5Z","signs":"2026-03-01T14:06:00.5Z",` +
		`"trusted":"2026-03-01T14:06:00.5Z"}],"rotates":"2026-03-01T14:06:00.5Z"}`)
	check := func(want string) {
		t.Helper()
		got, err := json.Marshal(r.Report())
		if err != nil || string(got) != want {
			t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
		}
	}
	check(waiting)
	clock.advance(70 * time.Minute)
	check(strings.NewReplacer(`"active"`, `"retired"`, `"next"`, `"active"`, `"rotates":"2026-03-01T14:06:00.5Z"`, `"rotates":"2026-03-02T14:06:00.5Z"`).Replace(waiting))
}

func rotate(t testing.TB, r *Ring) {
	t.Helper()
	if err := r.Rotate(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func retire(t testing.TB, r *Ring, id string, force bool) {
	t.Helper()
	if err := r.Retire(t.Context(), id, force); err != nil {
		t.Fatal(err)
	}
}
