package login

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"doorward/authz/session"
	"doorward/authz/store"
)

// ailing is a store that can stop answering.
type ailing struct {
	store.Store
	reads, writes atomic.Bool // fail
}

var errAiling = errors.New("the disk is gone")

func (a *ailing) Get(ctx context.Context, key string) (store.Item, error) {
	if a.reads.Load() {
		return store.Item{}, errAiling
	}
	return a.Store.Get(ctx, key)
}

func (a *ailing) Apply(ctx context.Context, ops ...store.Op) (store.Version, error) {
	if a.writes.Load() {
		return 0, errAiling
	}
	return a.Store.Apply(ctx, ops...)
}

// TestStoreDown holds that nobody gets in, or seems to have got out, when the store cannot be asked.
func TestStoreDown(t *testing.T) {
	w := newWorld(t)
	sick := &ailing{Store: w.h.Store}
	sessions, err := session.New(session.Config{Store: sick, Sealer: w.h.Sealer, Now: w.h.Now})
	if err != nil {
		t.Fatal(err)
	}
	w.h.Store, w.h.Sessions = sick, sessions
	unavailable := []string{"Not available", "Your session cannot be looked up at the moment.", "Try again in a few seconds.", "Try again",
		"Status 503 Request id " + envoyID}

	b := w.browser()
	b.signIn(auth+"/", "alice")
	redeem, again := b.until(wiki+"/", wiki+prefix+"/redeem"), b.until(grafana+"/", grafana+prefix+"/redeem")
	stranger, callback := w.atCallback(auth+"/", "bob")

	sick.reads.Store(true)
	for _, target := range []string{auth + prefix + "/", auth + prefix + "/sign_in", redeem} {
		b.shows("no reads: "+target, b.step(target), 503, unavailable...)
	}
	sick.reads.Store(false)

	sick.writes.Store(true)
	b.shows("a code that cannot be deleted", b.step(again), 503, unavailable...)
	ask := w.h.seal(purposeRequest, request{Host: "wiki.example.com", Nonce: hash([]byte("n")), Flow: "00000000"})
	b.shows("a code that cannot be stored", b.step(auth+prefix+"/sign_in?request="+ask), 503, unavailable...)
	stranger.shows("a session that cannot be stored", stranger.step(callback), 503, unavailable...)
	if stranger.session(auth) != nil {
		t.Error("signed in all the same")
	}
	page := b.step(auth + prefix + "/sign_out")
	b.shows("a sign-out that cannot be stored", page, 503, "Not signed out everywhere",
		"This browser has forgotten your session here, but it could not be ended on other hosts at the moment.",
		"Sign out again on another host that you use, or close the browser.", "Try again")
	if len(b.cookies(auth, "")) != 0 {
		t.Error("the browser still has cookies")
	}
	sick.writes.Store(false)
	if !w.logged("level=ERROR", "the disk is gone") || strings.Contains(page.body, "disk") {
		t.Errorf("the cause belongs into the log and not on the page:\n%s", w.log.String())
	}
}
