package token

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// TestPropertyConsumers has consumers that keep the JWKS for an hour, of what HTTP caches kept before, meet tokens of two replicas through
// scheduled and manual rotations, replaced files, restarts, downtime and clocks that are apart and jump: none ever meets a token that it
// cannot verify. With DOORWARD_SOAK=1 it does so for a simulated quarter.
func TestPropertyConsumers(t *testing.T) {
	days := 6
	if os.Getenv("DOORWARD_SOAK") == "1" {
		days = 90
	}
	seed := rand.Uint64()
	if os.Getenv("DOORWARD_SOAK") != "1" {
		seed = 1
	}
	t.Logf("seed %d", seed)
	w := newWorld(t, rand.New(rand.NewPCG(seed, 2)))
	for end := start.Add(time.Duration(days) * 24 * time.Hour); w.now.Before(end); {
		w.now = w.now.Add(time.Duration(w.random.IntN(20_000)) * time.Millisecond)
		w.happen()
		for _, r := range w.replicas {
			w.hear(r)
		}
		w.look()
		if t.Failed() {
			return
		}
	}
	for _, what := range []string{"rotated", "rotation refused", "file changed", "restarted", "down", "clock jumped"} {
		if w.happened[what] < days/3 {
			t.Errorf("%s only %d times", what, w.happened[what])
		}
	}
	if len(w.signed) < days {
		t.Errorf("only %d keys signed in %d days", len(w.signed), days)
	}
	t.Logf("%d keys signed: %v", len(w.signed), w.happened)
}

// leeway is what consumers allow a token beyond its end.
const leeway = time.Minute

// world is two replicas and what consumers may have seen of them.
type world struct {
	t        *testing.T
	random   *rand.Rand
	now      time.Time // the true time
	files    []string
	config   Config
	replicas []*replica
	// For each key: the last moment at which some replica served a key set without it, and the end of the last token that it signed.
	lacking map[string]time.Time
	signed  map[string]time.Time

	last     time.Time // when was last looked
	happened map[string]int
}

// replica is a ring with a clock of its own.
type replica struct {
	*Ring
	settings Settings
	apart    time.Duration // how far its clock is from the true time, at most 10 s
	jump     time.Duration // by how much it is wrong now
	rightAt  time.Time     // when that ends
	upAt     time.Time     // when it runs again
	hearsAt  time.Time
	even     *pace
	etag     string
	kids     []string
}

func newWorld(t *testing.T, random *rand.Rand) *world {
	c, _ := setUp(t)
	w := &world{
		t: t, random: random, now: start, last: start, config: c, files: []string{"", "", keyFile(t), keyFile(t)},
		lacking: map[string]time.Time{}, signed: map[string]time.Time{}, happened: map[string]int{},
	}
	for range 2 {
		r := &replica{settings: Settings{RotateEvery: 30 * time.Hour}}
		w.replicas = append(w.replicas, r)
		w.open(r)
	}
	return w
}

// open starts a replica.
func (w *world) open(r *replica) {
	w.t.Helper()
	r.apart = time.Duration(w.random.IntN(20_000)-10_000) * time.Millisecond
	c := w.config
	c.Settings = r.settings
	c.Now = func() time.Time { return w.now.Add(r.apart + r.jump) }
	r.Ring = open(w.t, c)
	r.even = newPace(c.Now(), w.now)
}

// happen does something to one replica now and then.
func (w *world) happen() {
	r := w.replicas[w.random.IntN(len(w.replicas))]
	if r.jump != 0 && !w.now.Before(r.rightAt) {
		r.jump = 0
	}
	if w.now.Before(r.upAt) || r.jump != 0 {
		return // who changes something looks at the clock first
	}
	switch w.random.IntN(3000) {
	case 0, 1:
		var refused Refusal
		switch err := r.Rotate(w.t.Context()); {
		case errors.As(err, &refused):
			w.happened["rotation refused"]++
		case err != nil:
			w.t.Fatal(err)
		default:
			w.happened["rotated"]++
		}
	case 2, 3:
		r.settings.SigningKeyFile = w.files[w.random.IntN(len(w.files))]
		if err := r.Adopt(w.t.Context(), r.settings); err != nil {
			w.t.Fatal(err)
		}
		w.happened["file changed"]++
	case 4:
		r.settings.SigningKeyFile = w.files[w.random.IntN(len(w.files))]
		w.open(r)
		w.happened["restarted"]++
	case 5:
		for _, r := range w.replicas[:1+w.random.IntN(len(w.replicas))] {
			r.upAt = w.now.Add(time.Duration(w.random.IntN(int(20 * time.Hour))))
		}
		w.happened["down"]++
	case 6, 7:
		r.jump = time.Duration(w.random.IntN(int(200*time.Hour))) - 100*time.Hour
		r.rightAt = w.now.Add(time.Duration(w.random.IntN(int(5 * time.Minute))))
		w.happened["clock jumped"]++
	}
}

// hear does what Run does, for a replica that hears of changes within half a minute.
func (w *world) hear(r *replica) {
	if w.now.Before(r.upAt) {
		return
	}
	if !r.upAt.IsZero() {
		r.upAt = time.Time{}
		r.jump = 0
		w.open(r)
	}
	if w.now.Before(r.hearsAt) {
		return
	}
	r.hearsAt = w.now.Add(time.Duration(w.random.IntN(int(30 * time.Second))))
	change := func(rec record, _ time.Time) (record, error) { return rec, nil }
	if r.even.steady(r.config.Now(), w.now, r.config.skew()) {
		change = r.tend
	}
	if err := r.update(w.t.Context(), change); err != nil {
		w.t.Fatal(err)
	}
}

// look has each replica that runs mint a token, and holds it against all key sets that a consumer may have.
func (w *world) look() {
	for _, r := range w.replicas {
		if w.now.Before(r.upAt) {
			continue
		}
		if s := r.at(r.config.Now()); s.etag != r.etag {
			r.etag, r.kids = s.etag, kids(w.t, s.jwks)
		}
		served := map[string]bool{}
		for _, kid := range r.kids {
			served[kid] = true
			if _, known := w.lacking[kid]; !known {
				w.lacking[kid] = w.last // until then nobody served it
			}
		}
		for kid, end := range w.signed {
			if !served[kid] && w.now.Before(end) {
				w.t.Errorf("%s: %s is no longer published, and signed a token that is good until %s", w.now, kid, end)
			}
		}
		for kid := range w.lacking {
			if !served[kid] {
				w.lacking[kid] = w.now
			}
		}
	}
	for _, r := range w.replicas {
		if w.now.Before(r.upAt) || r.jump != 0 {
			continue // tokens of a clock that is wrong are refused anyway
		}
		kid := r.KeyID()
		if since := w.now.Sub(w.lacking[kid]); w.lacking[kid] != start && since <= r.config.ConsumerCache+r.config.maxAge() {
			w.t.Errorf("%s: %s signs, and a key set without it was served %s ago", w.now, kid, since)
		}
		w.signed[kid] = w.now.Add(r.config.Lifetime + leeway)
	}
	w.last = w.now
}
