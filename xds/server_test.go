package xds

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

func TestServerWaitsForTheFirstApply(t *testing.T) {
	c := newControl(t)
	e := c.connect("one")
	e.subscribe(clusterKind)
	e.subscribe(secretKind, "h0")
	e.silent(clusterKind, secretKind)
	c.start(hosts(1).build(t))
	e.expect(clusterKind, "up")
	e.expect(secretKind, "h0")
}

func TestServerTakesOverWhatWasAskedBeforeTheFirstApply(t *testing.T) {
	c := newControl(t)
	e := c.connect("one")
	e.resume(clusterKind, map[string]string{"gone": "1"})
	e.resume(secretKind, map[string]string{"h1": "1"}, "h1", "h0", "stranger")
	e.silent(clusterKind, secretKind)
	done := c.start(hosts(1).build(t))
	e.ack(e.expect(secretKind, "-stranger", "h0"))
	clusters := e.expect(clusterKind, "up")
	c.notDone(done)
	e.ack(clusters)
	e.subscribe(scopeKind)
	e.ack(e.expect(scopeKind, "h0"))
	e.subscribe(listenerKind)
	e.nack(e.expect(listenerKind, httpsListener), "no")
	e.silent(clusterKind) // it has yet to say which routes it has
	e.subscribe(routeKind, "h0")
	e.ack(e.expect(routeKind, "h0"))
	e.ack(e.expect(clusterKind, "-gone"))
	e.ack(e.expect(secretKind, "-h1"))
	if err := c.done(done); err == nil {
		t.Error("the rejected listener is not reported")
	}
}

func TestServerAnswersAnEmptyWorld(t *testing.T) {
	c := newControl(t)
	e := c.connect("one")
	e.subscribe(clusterKind)
	c.start(world{}.build(t))
	e.ack(e.expect(clusterKind))
	e.silent(clusterKind)
}

// TestServerOrdersAChange follows one change through: a host is added, one is changed, one is removed, each with a cluster.
func TestServerOrdersAChange(t *testing.T) {
	c := newControl(t)
	e := c.connect("one")
	before := world{
		clusterKind:  {"old": "1", "gone": "1"},
		listenerKind: {httpsListener: "1"},
		routeKind:    {"changed": "1", "removed": "1"},
		scopeKind:    {"changed": "changed", "removed": "removed"},
	}
	done := c.start(before.build(t))
	if err := c.done(done); err != nil {
		t.Fatal(err)
	}
	for _, k := range []kind{clusterKind, listenerKind, scopeKind} {
		e.subscribe(k)
		e.ack(e.next(k))
	}
	e.subscribe(routeKind, "changed", "removed")
	e.ack(e.expect(routeKind, "changed", "removed"))

	done = c.start(world{
		clusterKind:  {"old": "1", "new": "1"},
		listenerKind: {httpsListener: "1"},
		routeKind:    {"changed": "2", "added": "1"},
		scopeKind:    {"changed": "changed", "added": "added"},
	}.build(t))
	clusters := e.expect(clusterKind, "new")
	e.silent(clusterKind, routeKind, scopeKind, listenerKind)
	e.ack(clusters)
	routes, scopes := e.expect(routeKind, "changed"), e.expect(scopeKind, "added")
	e.ack(routes)
	e.silent(clusterKind, routeKind, scopeKind)
	e.ack(scopes)
	removed := e.expect(scopeKind, "-removed")
	e.silent(clusterKind, routeKind)
	e.ack(removed)
	gone := e.expect(routeKind, "-removed")
	e.silent(clusterKind)
	e.ack(gone)
	e.ack(e.expect(clusterKind, "-gone"))
	c.notDone(done) // the new scope's routes were not asked for yet
	e.subscribe(routeKind, "added")
	added := e.expect(routeKind, "added")
	c.notDone(done)
	e.ack(added)
	if err := c.done(done); err != nil {
		t.Fatal(err)
	}
	e.silent(clusterKind, routeKind, scopeKind, listenerKind)
}

func TestServerSendsOnlyWhatChanged(t *testing.T) {
	c := newControl(t)
	r := c.robot("one", nil)
	w := hosts(1000)
	if err := c.done(c.start(w.build(t))); err != nil {
		t.Fatal(err)
	}
	e := c.connect("two")
	e.resume(scopeKind, r.versions(scopeKind))
	e.ack(e.expect(scopeKind))
	w = w.with(scopeKind, map[string]string{"h7": "h8", "h9": ""})
	c.start(w.build(t))
	e.ack(e.expect(scopeKind, "h7"))
	e.ack(e.expect(scopeKind, "-h9"))
}

func TestServerAnswersUnknownNames(t *testing.T) {
	c := newControl(t)
	c.start(hosts(1).build(t))
	e := c.connect("one")
	e.subscribe(secretKind, "h0", "stranger")
	e.ack(e.expect(secretKind, "-stranger", "h0"))
	e.silent(secretKind) // it is told once

	e.unsubscribe(secretKind, "stranger")
	e.subscribe(secretKind, "stranger")
	e.ack(e.expect(secretKind, "-stranger"))

	w := hosts(1).with(secretKind, map[string]string{"stranger": "1"})
	c.start(w.build(t))
	e.ack(e.expect(secretKind, "stranger"))
	c.start(hosts(1).build(t))
	e.ack(e.expect(secretKind, "-stranger"))
}

func TestServerAnswersCertificatesDuringAChange(t *testing.T) {
	c := newControl(t)
	c.start(hosts(2).build(t))
	e := c.connect("one")
	e.subscribe(clusterKind)
	e.expect(clusterKind, "up") // not acknowledged
	e.subscribe(routeKind, "h0")
	e.silent(routeKind)
	e.subscribe(secretKind, "h0", "stranger")
	e.expect(secretKind, "-stranger", "h0")
}

func TestServerKeepsOneResponseOutstanding(t *testing.T) {
	c := newControl(t)
	w := hosts(0)
	c.start(w.build(t))
	e := c.connect("one")
	e.subscribe(clusterKind)
	first := e.expect(clusterKind, "up")
	for i := range 5 {
		c.Install(everything(w.with(clusterKind, map[string]string{"up": fmt.Sprint("v", i), "more": fmt.Sprint(i)}).build(t)))
	}
	e.silent(clusterKind)
	e.ack(&discoveryv3.DeltaDiscoveryResponse{TypeUrl: first.TypeUrl, Nonce: "stale"})
	e.silent(clusterKind)
	e.ack(first)
	last := e.expect(clusterKind, "more", "up")
	for _, res := range last.Resources {
		if got := textOf(clusterKind, res); got != "v4" && got != "4" {
			t.Errorf("%s is %q, want the latest", res.Name, got)
		}
	}
	// What is sent is taken back meanwhile: the acknowledgement is followed by the old version.
	c.Install(everything(w.build(t)))
	e.ack(last)
	e.ack(e.expect(clusterKind, "up"))
	e.expect(clusterKind, "-more")
}

func TestServerResumes(t *testing.T) {
	c := newControl(t)
	w := hosts(100)
	one := c.robot("one", nil)
	if err := c.done(c.start(w.build(t))); err != nil {
		t.Fatal(err)
	}
	one.cancel()

	// A new control plane with another world, and an Envoy that has kept what it had.
	c = newControl(t)
	w = w.with(routeKind, map[string]string{"h3": "2"}).with(clusterKind, map[string]string{"up": "", "other": "1"}).
		with(scopeKind, map[string]string{"h4": ""}).with(routeKind, map[string]string{"h4": ""})
	c.start(w.build(t))
	e := c.connect("one")
	routes := one.versions(routeKind)
	e.resume(clusterKind, one.versions(clusterKind))
	e.resume(listenerKind, one.versions(listenerKind))
	e.resume(scopeKind, one.versions(scopeKind))
	e.resume(routeKind, routes, "h3", "h4", "h5")
	e.ack(e.expect(clusterKind, "other"))
	e.ack(e.expect(listenerKind))
	e.ack(e.expect(routeKind, "h3"))
	e.ack(e.expect(scopeKind, "-h4"))
	e.ack(e.expect(routeKind, "-h4"))
	e.ack(e.expect(clusterKind, "-up"))
	e.silent(clusterKind, listenerKind, scopeKind, routeKind)
}

func TestServerIsolatesARejectedResource(t *testing.T) {
	const n = 1000
	c := newControl(t)
	r := c.robot("one", nil, "h500 2")
	w := hosts(n)
	if err := c.done(c.start(w.build(t))); err != nil {
		t.Fatal(err)
	}
	before := r.count(routeKind)
	changed := make(map[string]string)
	for i := range n {
		changed[fmt.Sprint("h", i)] = "2"
	}
	w = w.with(routeKind, changed)
	err := c.done(c.start(w.build(t)))
	const want = `envoy "one" rejected RDS "h500": something is bad`
	if err == nil || err.Error() != want {
		t.Fatalf("Apply: %v, want %s", err, want)
	}
	if got := r.count(routeKind) - before; got > 25 {
		t.Errorf("%d responses to find one in %d", got, n)
	}
	for i := range n {
		name, want := fmt.Sprint("h", i), "2"
		if i == 500 {
			want = "1"
		}
		if got := r.has(routeKind, name); got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	checkRejected(t, c, "RDS h500: something is bad")

	// Another change leaves it alone; a new version of it is tried, and then nothing is rejected any more.
	w = w.with(routeKind, map[string]string{"h1": "3"})
	if err := c.done(c.start(w.build(t))); err != nil {
		t.Fatal(err)
	}
	checkRejected(t, c, "RDS h500: something is bad")
	w = w.with(routeKind, map[string]string{"h500": "3"})
	if err := c.done(c.start(w.build(t))); err != nil {
		t.Fatal(err)
	}
	checkRejected(t, c)
	if got := r.has(routeKind, "h500"); got != "3" {
		t.Errorf("h500 is %q", got)
	}
}

func TestServerIsolatesManyKinds(t *testing.T) {
	c := newControl(t)
	w := hosts(100).with(clusterKind, map[string]string{"bad": "1"})
	r := c.robot("fresh", nil, "h3 1", "h4 1", "h5 h5", "bad 1")
	err := c.done(c.start(w.build(t)))
	want := `envoy "fresh" rejected CDS "bad": something is bad
envoy "fresh" rejected RDS "h3": something is bad
envoy "fresh" rejected RDS "h4": something is bad
envoy "fresh" rejected SRDS "h5": something is bad`
	if err == nil || err.Error() != want {
		t.Fatalf("Apply:\n%v\nwant\n%s", err, want)
	}
	if r.has(routeKind, "h99") != "1" || r.has(scopeKind, "h3") != "h3" || r.has(clusterKind, "up") != "1" {
		t.Error("the rest is not served")
	}
	// A resource that is gone is not rejected any more.
	w = w.with(clusterKind, map[string]string{"bad": ""}).with(scopeKind, map[string]string{"h5": ""}).
		with(routeKind, map[string]string{"h3": "", "h4": ""}).with(scopeKind, map[string]string{"h3": "", "h4": ""})
	if err := c.done(c.start(w.build(t))); err != nil {
		t.Fatal(err)
	}
	checkRejected(t, c)
}

// checkRejected compares what the first Envoy rejects, as "TYPE name: message".
func checkRejected(t *testing.T, c *control, want ...string) {
	t.Helper()
	var got []string
	for _, r := range c.Envoys()[0].Rejected {
		if r.Time.IsZero() {
			t.Errorf("%s has no time", r.Resource)
		}
		got = append(got, r.Type+" "+r.Resource+": "+r.Message)
	}
	if !slices.Equal(got, want) {
		t.Errorf("rejected: %q, want %q", got, want)
	}
}

func TestServerPutsTheLastGoodVersionBack(t *testing.T) {
	c := newControl(t)
	e := c.connect("one")
	c.start(hosts(1).build(t))
	e.subscribe(routeKind, "h0")
	e.ack(e.expect(routeKind, "h0"))
	c.start(hosts(1).with(routeKind, map[string]string{"h0": "2"}).build(t))
	e.nack(e.expect(routeKind, "h0"), "no")
	back := e.expect(routeKind, "h0")
	if got := textOf(routeKind, back.Resources[0]); got != "1" {
		t.Errorf("put back: %q", got)
	}
	e.ack(back)
	e.silent(routeKind)
	checkRejected(t, c, "RDS h0: no")

	// One that was never good is answered as not there.
	e.subscribe(secretKind, "h0")
	e.nack(e.expect(secretKind, "h0"), "no key")
	e.ack(e.expect(secretKind, "-h0"))
	e.silent(secretKind)
}

// TestServerTakesNoClusterFromUnderRoutes: an Envoy that comes back has routes of which the server knows the version alone. What they may need
// stays until the Envoy has taken others, and longer when it refuses these.
func TestServerTakesNoClusterFromUnderRoutes(t *testing.T) {
	c := newControl(t)
	w := hosts(1).with(routeKind, map[string]string{"h0": "2"})
	r := w.build(t)
	c.start(r)
	clusters := versions(r.set[clusterKind])
	clusters["old"] = "1"
	back := func() *client {
		e := c.connect("back")
		e.resume(clusterKind, clusters)
		e.silent(clusterKind)
		e.resume(listenerKind, versions(r.set[listenerKind]))
		e.ack(e.expect(listenerKind))
		e.resume(scopeKind, versions(r.set[scopeKind]))
		e.ack(e.expect(scopeKind))
		e.silent(clusterKind)
		e.resume(routeKind, map[string]string{"h0": "before"}, "h0")
		return e
	}
	e := back()
	e.ack(e.expect(routeKind, "h0"))
	e.ack(e.expect(clusterKind, "-old"))
	e.cancel()

	for name, next := range map[string]world{
		"other routes":   w.with(routeKind, map[string]string{"h0": "3"}),
		"no host at all": w.with(routeKind, map[string]string{"h0": ""}).with(scopeKind, map[string]string{"h0": ""}),
	} {
		c.start(w.build(t))
		e := back()
		e.nack(e.expect(routeKind, "h0"), "no")
		e.ack(e.expect(clusterKind)) // nothing
		e.silent(clusterKind, routeKind)
		c.start(next.build(t))
		if name == "other routes" {
			e.ack(e.expect(routeKind, "h0"))
		} else {
			scope := e.expect(scopeKind, "-h0")
			e.unsubscribe(routeKind, "h0")
			e.ack(scope)
		}
		e.ack(e.expect(clusterKind, "-old"))
		e.silent(clusterKind, routeKind)
		e.cancel()
	}
}

// TestAnEnvoyThatLosesItsStreamIsBehind: it goes on with what it has.
func TestAnEnvoyThatLosesItsStreamIsBehind(t *testing.T) {
	c := newControl(t)
	c.start(hosts(1).build(t))
	e := c.connect("one")
	e.subscribe(routeKind, "h0")
	routes := e.expect(routeKind, "h0")
	if !c.Behind("h0") {
		t.Error("one that has not acknowledged is not behind")
	}
	e.ack(routes)
	e.subscribe(secretKind, "h0")
	e.expect(secretKind, "h0") // what was sent before is settled
	if c.Behind("h0") {
		t.Error("one that has acknowledged is behind")
	}
	e.cancel()
	for end := time.Now().Add(patience); len(c.Envoys()) > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
	}
	if !c.Behind("h0") {
		t.Error("one that was connected just now is not behind")
	}
	c.mu.Lock()
	c.now = func() time.Time { return time.Now().Add(comesBack) }
	c.mu.Unlock()
	if c.Behind("h0") {
		t.Error("one that is gone is behind")
	}
}

func TestApplyEndsWithItsContext(t *testing.T) {
	c := newControl(t)
	c.start(hosts(8).build(t))
	e := c.connect("slow")
	e.subscribe(clusterKind)
	e.subscribe(scopeKind)
	e.ack(e.expect(clusterKind, "up"))
	e.next(scopeKind) // never acknowledged
	ctx, cancel := context.WithTimeout(context.Background(), quiet)
	defer cancel()
	err := c.Apply(ctx, everything(hosts(8).with(clusterKind, map[string]string{"up": "2"}).build(t)))
	const want = `envoy "slow" has not acknowledged CDS "up": context deadline exceeded`
	if err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Apply: %v\nwant   %s", err, want)
	}
	// The change is still under way.
	e.ack(e.expect(clusterKind, "up"))
	done := c.start(hosts(8).with(clusterKind, map[string]string{"up": "2", "more": "1"}).build(t))
	e.expect(clusterKind, "more")
	c.notDone(done)
	e.cancel()
	if err := c.done(done); err != nil {
		t.Errorf("an Envoy that is gone is waited for: %v", err)
	}
}

// TestChangesDoNotWaitForEachOther: one whose cluster is acknowledged late does not make the next one late, and each is answered for by itself.
func TestChangesDoNotWaitForEachOther(t *testing.T) {
	c := newControl(t)
	c.start(hosts(1).build(t))
	e := c.connect("slow")
	e.subscribe(clusterKind)
	e.subscribe(secretKind, "h0")
	e.ack(e.expect(clusterKind, "up"))
	e.ack(e.expect(secretKind, "h0"))
	slow := c.start(hosts(1).with(clusterKind, map[string]string{"up": "2"}).build(t))
	late := e.expect(clusterKind, "up")
	quick := c.start(hosts(1).with(clusterKind, map[string]string{"up": "2"}).with(secretKind, map[string]string{"h0": "2"}).build(t))
	e.ack(e.expect(secretKind, "h0"))
	if err := c.done(quick); err != nil {
		t.Error(err)
	}
	c.notDone(slow)
	e.nack(late, "no")
	e.ack(e.expect(clusterKind, "up"))
	if err := c.done(slow); err == nil || err.Error() != `envoy "slow" rejected CDS "up": no` {
		t.Errorf("the slow one: %v", err)
	}
}

// TestRoutesWaitForTheirUpstream: routes whose cluster was refused stay as they were, with their old cluster; all others are sent, and so are those of an
// Envoy that has none, which would wait for them.
func TestRoutesWaitForTheirUpstream(t *testing.T) {
	c := newControl(t)
	part := func(cluster, text string) *Resources {
		return world{clusterKind: {cluster: "1"}, routeKind: {text: cluster}}.build(t)
	}
	c.Install(&Change{parts: map[string]*Resources{"h0": part("up", "h0"), "h1": part("up", "h1")}})
	e := c.connect("one")
	e.subscribe(clusterKind)
	e.ack(e.expect(clusterKind, "up"))
	e.subscribe(routeKind, "h0", "h1", "h2")
	e.ack(e.expect(routeKind, "-h2", "h0", "h1"))
	d := c.Install(&Change{parts: map[string]*Resources{"h0": part("bad", "h0"), "h1": part("good", "h1"), "h2": part("bad", "h2")}})
	e.nack(e.expect(clusterKind, "bad", "good"), "no")
	for range 2 {
		if r := e.next(clusterKind); namesOf(r)[0] == "bad" {
			e.nack(r, "no")
		} else {
			e.ack(r)
		}
	}
	e.ack(e.expect(routeKind, "h1", "h2"))
	e.silent(routeKind, clusterKind)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	const want = `envoy "one" rejected CDS "bad": no
envoy "one" rejected RDS "h0": its upstream bad was rejected: no`
	if answers := d.Wait(ctx); len(answers) != 1 || answers[0].State != Rejected || answers[0].Err().Error() != want {
		t.Errorf("answers: %+v", answers)
	}
	// Routes that do not work anyway are no good ones to keep.
	c.Install(&Change{parts: map[string]*Resources{"h2": world{clusterKind: {"bad": "1"}, routeKind: {"h2": "2"}}.build(t)}})
	e.ack(e.expect(routeKind, "h2"))
	c.Install(&Change{parts: map[string]*Resources{"h0": part("good", "h0")}})
	e.ack(e.expect(routeKind, "h0"))
	e.ack(e.expect(clusterKind, "-up"))
}

func TestApplyWaitsForAllThatTheListenerNeeds(t *testing.T) {
	c := newControl(t)
	e := c.connect("fresh")
	e.subscribe(clusterKind)
	e.silent()
	done := c.start(hosts(1).build(t))
	e.ack(e.expect(clusterKind, "up"))
	c.notDone(done)
	e.subscribe(listenerKind)
	e.ack(e.expect(listenerKind, httpsListener))
	c.notDone(done)
	e.subscribe(extensionKind, authzName)
	e.ack(e.expect(extensionKind, authzName))
	c.notDone(done)
	e.subscribe(scopeKind)
	e.ack(e.expect(scopeKind, "h0"))
	c.notDone(done)
	e.subscribe(routeKind, "h0")
	e.ack(e.expect(routeKind, "h0"))
	if err := c.done(done); err != nil {
		t.Fatal(err)
	}
}

func TestApplyDoesNotWaitForWhatARejectionPrevents(t *testing.T) {
	c := newControl(t)
	e := c.connect("fresh")
	e.subscribe(clusterKind)
	e.subscribe(listenerKind)
	e.silent()
	done := c.start(hosts(1).build(t))
	e.ack(e.expect(clusterKind, "up"))
	e.nack(e.expect(listenerKind, httpsListener), "address in use")
	const want = `envoy "fresh" rejected LDS "https": address in use`
	if err := c.done(done); err == nil || err.Error() != want {
		t.Fatalf("Apply: %v, want %s", err, want)
	}
}

func TestEnvoysAreListed(t *testing.T) {
	c := newControl(t)
	c.start(hosts(0).build(t))
	for _, node := range []string{"b", "a"} {
		e := c.connect(node)
		e.subscribe(clusterKind)
		e.ack(e.expect(clusterKind, "up"))
	}
	deadline := time.Now().Add(patience)
	for {
		envoys := c.Envoys()
		if len(envoys) == 2 && envoys[0].Node == "a" && envoys[1].Node == "b" &&
			!envoys[0].Acked["CDS"].IsZero() && !envoys[1].Acked["CDS"].IsZero() && len(envoys[0].Acked) == 1 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("listed: %+v", envoys)
		}
		time.Sleep(time.Millisecond)
	}
}

func TestServerAnswersForeignTypes(t *testing.T) {
	c := newControl(t)
	c.start(hosts(0).build(t))
	e := c.connect("one")
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/x.Y", ResourceNamesSubscribe: []string{"a"}})
	select {
	case r := <-e.other:
		if got := namesOf(r); !slices.Equal(got, []string{"-a"}) || r.TypeUrl != "type.googleapis.com/x.Y" {
			t.Errorf("answer %v", r)
		}
	case <-time.After(patience):
		t.Error("no answer")
	}
}

func TestServerRefusesStateOfTheWorld(t *testing.T) {
	c := newControl(t)
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.conn).StreamAggregatedResources(t.Context())
	if err == nil {
		_, err = g.Recv()
	}
	if err == nil || !strings.Contains(err.Error(), "DELTA_GRPC") {
		t.Errorf("state of the world: %v", err)
	}
}

// TestServerTakesLongRequests: an Envoy that comes back names everything that it has in one request.
func TestServerTakesLongRequests(t *testing.T) {
	c := newControl(t)
	c.start(hosts(1).build(t))
	have := make(map[string]string)
	for i := range 100_000 {
		have[fmt.Sprintf("a-host-with-an-ordinary-name-%d.example.com", i)] = "0123456789abcdef"
	}
	e := c.connect("big")
	e.resume(secretKind, have, "h0")
	e.ack(e.expect(secretKind, "h0"))
}
