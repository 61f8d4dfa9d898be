package main

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestKilledDuringAppliesSoak kills doorward as a power cut does while a change of several routes is under way, again and again. What was answered
// for is kept; what was not is there whole or not at all; and Envoy comes to the same without being started anew.
func TestKilledDuringAppliesSoak(t *testing.T) {
	kills := 8
	if os.Getenv("DOORWARD_SOAK") != "" {
		kills = 200
	}
	f := newFleet(t, externalParts(t))
	urls := []string{speaker(t, "one"), speaker(t, "two")}
	f.startEnvoy()
	begun := time.Now()
	f.mustApply(nil, f.route("steady", urls[0]))
	window := max(6*time.Millisecond, 2*time.Since(begun)/3) // about as long as a change takes here
	f.says("steady", "one", 20*time.Second)
	random := rand.New(rand.NewPCG(5, 6))
	known := map[string]string{"steady": urls[0]}
	answered, made := 0, 0
	for i := range kills {
		then, remove, put := f.anyChange(random, known, urls)
		done := make(chan error, 1)
		go func() { _, err := f.apply("wait=10s", remove, put...); done <- err }()
		time.Sleep(time.Duration(random.Int64N(int64(window))))
		f.kill()
		err := <-done
		f.startDoorward()
		now := f.pushed()
		switch {
		case maps.Equal(now, then):
			made++
		case err == nil:
			t.Fatalf("the change %v, -%v was answered for, and there is\n%v\nwant\n%v", put, remove, now, then)
		case !maps.Equal(now, known):
			t.Fatalf("of the change %v, -%v there is a part:\n%v\nwant\n%v\nor\n%v", put, remove, now, known, then)
		}
		if err == nil {
			answered++
		}
		if known = now; i%20 == kills%20 || i == kills-1 {
			f.agrees(known, urls)
		}
	}
	t.Logf("%d kills within %v: %d changes answered for, %d made", kills, window, answered, made)
	if kills == 200 && (answered < 10 || made > 190) {
		t.Error("the kills do not come at moments that say something")
	}
}

// anyChange puts two or three of a few routes and removes one, and returns what there is then.
func (f *fleet) anyChange(random *rand.Rand, known map[string]string, urls []string) (then map[string]string, remove, put []string) {
	then = maps.Clone(known)
	for _, n := range random.Perm(8)[:4] {
		name := fmt.Sprint("k", n)
		if _, there := then[name]; there && remove == nil {
			remove = append(remove, name)
			delete(then, name)
			continue
		}
		then[name] = urls[random.IntN(len(urls))]
		put = append(put, f.route(name, then[name]))
	}
	return then, remove, put
}

// pushed are the routes that doorward has kept, by name, and where they lead.
func (f *fleet) pushed() map[string]string {
	f.Helper()
	var list struct {
		Routes []routeState `json:"routes"`
	}
	if err := f.admin.Get(context.Background(), routesPath, nil, &list); err != nil {
		f.Fatal(err)
	}
	out := make(map[string]string)
	for _, r := range list.Routes {
		out[r.Name] = r.To
	}
	return out
}

// agrees wants Envoy to have exactly these routes, soon.
func (f *fleet) agrees(known map[string]string, urls []string) {
	f.Helper()
	want := []string{"auth.localhost"}
	for name := range known {
		want = append(want, name+".localhost")
	}
	slices.Sort(want)
	var got []string
	for end := time.Now().Add(10 * time.Second); !slices.Equal(got, want); time.Sleep(50 * time.Millisecond) {
		if got = f.dump().routes; time.Now().After(end) {
			f.Fatalf("Envoy has the routes of\n%s\nkept are\n%s", strings.Join(got, " "), strings.Join(want, " "))
		}
	}
	for name, url := range known {
		f.says(name, []string{"one", "two"}[slices.Index(urls, url)], 5*time.Second)
	}
}
