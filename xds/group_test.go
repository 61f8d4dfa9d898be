package xds

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"doorward/xds/node"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

const (
	routeEU     = `  - {name: e, from: "https://e.example.com", to: "http://shared", policy: public, groups: eu}` + "\n"
	routeUS     = `  - {name: u, from: "https://u.example.com", to: ["http://shared", "http://us"], policy: public, groups: us}` + "\n"
	routeBoth   = `  - {name: b, from: "https://b.example.com", to: "http://both", policy: public, groups: [us, eu]}` + "\n"
	routeMoved  = `  - {name: e, from: "https://e.example.com", to: "http://shared", policy: public, groups: us}` + "\n"
	routeOpened = `  - {name: e, from: "https://e.example.com", to: "http://shared", policy: public}` + "\n"
)

func (c *control) build(b *Builder, routes string) *Change {
	c.t.Helper()
	change, err := b.Build(input(c.t, configOf(c.t, routes)))
	if err != nil {
		c.t.Fatal(err)
	}
	b.Adopt(change)
	return change
}

// TestEnvoysSeeWhatIsOfTheirGroup: clusters, scopes, routes and certificates, whatever they ask for.
func TestEnvoysSeeWhatIsOfTheirGroup(t *testing.T) {
	c := newControl(t)
	c.Install(c.build(new(Builder), routeA+routeEU+routeUS+routeBoth))
	for group, want := range map[string]struct{ clusters, hosts []string }{
		"eu":       {[]string{"http://both:80", "http://shared:80", "http://up:80"}, []string{"a.example.com", "auth.example.com", "b.example.com", "e.example.com"}},
		"us":       {[]string{"http://both:80", "http://shared:80", "http://up:80", "http://us:80"}, []string{"a.example.com", "auth.example.com", "b.example.com", "u.example.com"}},
		"mars":     {[]string{"http://up:80"}, []string{"a.example.com", "auth.example.com"}},
		"doorward": {[]string{"http://up:80"}, []string{"a.example.com", "auth.example.com"}},
	} {
		e := c.connectAs("one", group)
		e.subscribe(clusterKind)
		e.ack(e.expect(clusterKind, want.clusters...))
		e.subscribe(scopeKind)
		e.ack(e.expect(scopeKind, want.hosts...))
		all := []string{"a.example.com", "auth.example.com", "b.example.com", "e.example.com", "u.example.com"}
		var answers []string
		for _, host := range all {
			if !slices.Contains(want.hosts, host) {
				host = "-" + host
			}
			answers = append(answers, host)
		}
		slices.Sort(answers)
		for _, k := range []kind{routeKind, secretKind} {
			e.subscribe(k, all...)
			e.ack(e.expect(k, answers...))
		}
	}
	for _, row := range []struct {
		group, host string
		want        bool
	}{{"eu", "e.example.com", true}, {"us", "e.example.com", false}, {"", "e.example.com", false}, {"", "a.example.com", true}, {"", "x.example.com", true}} {
		if got := c.Serves(row.group, row.host); got != row.want {
			t.Errorf("Serves(%q, %q) = %v", row.group, row.host, got)
		}
	}
}

// TestAHostThatMovesLeavesTheOthers: what did not change itself is taken away and given all the same.
func TestAHostThatMovesLeavesTheOthers(t *testing.T) {
	c, b := newControl(t), new(Builder)
	c.Install(c.build(b, routeA+routeEU))
	eu, us := c.connectAs("one", "eu"), c.connectAs("two", "us")
	follow := func(e *client, hosts ...string) {
		e.subscribe(clusterKind)
		e.ack(e.next(clusterKind))
		e.subscribe(scopeKind)
		e.ack(e.expect(scopeKind, hosts...))
		for _, k := range []kind{routeKind, secretKind} {
			e.subscribe(k, "e.example.com")
			e.ack(e.next(k))
		}
	}
	follow(eu, "a.example.com", "auth.example.com", "e.example.com")
	follow(us, "a.example.com", "auth.example.com")

	c.Install(c.build(b, routeA+routeMoved))
	eu.ack(eu.expect(scopeKind, "-e.example.com"))
	eu.ack(eu.expect(routeKind, "-e.example.com"))
	eu.ack(eu.expect(secretKind, "-e.example.com"))
	eu.ack(eu.expect(clusterKind, "-http://shared:80"))
	us.ack(us.expect(clusterKind, "http://shared:80"))
	us.ack(us.expect(secretKind, "e.example.com"))
	us.ack(us.expect(scopeKind, "e.example.com"))
	us.ack(us.expect(routeKind, "e.example.com"))

	c.Install(c.build(b, routeA+routeOpened))
	eu.ack(eu.expect(clusterKind, "http://shared:80"))
	eu.ack(eu.expect(scopeKind, "e.example.com"))
	us.silent(clusterKind, scopeKind, secretKind)

	c.Install(c.build(b, routeA+routeEU+routeUS)) // the cluster stays: us has another host with it
	us.ack(us.expect(clusterKind, "http://us:80"))
	us.ack(us.expect(scopeKind, "u.example.com"))
	us.ack(us.expect(scopeKind, "-e.example.com"))
	us.silent(clusterKind)
}

// TestReachIsWhatThereIs: after any sequence of changes, who sees which cluster is what a build of everything comes to.
func TestReachIsWhatThereIs(t *testing.T) {
	routes := []string{routeA, routeEU, routeUS, routeBoth, routeMoved, routeOpened, ""}
	c, b, s := newControl(t), new(Builder), newServed()
	for i := range 60 {
		text := routes[i%3] + routes[3+i*7%4]
		if i%3 == 1 {
			text = routes[3+i*7%4]
		}
		if text == "" {
			continue
		}
		s.adopt(c.build(b, text))
		want := newServed()
		want.adopt(c.build(new(Builder), text))
		if !maps.EqualFunc(s.reach, want.reach, maps.Equal) {
			t.Fatalf("step %d: %v, want %v", i, s.reach, want.reach)
		}
	}
}

// TestANodeIsWhoItsCertificateSays: not who it says it is, nor of the group that it says.
func TestANodeIsWhoItsCertificateSays(t *testing.T) {
	c := newControl(t)
	first := func(id, cluster string) *discoveryv3.DeltaDiscoveryRequest {
		return &discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[clusterKind], Node: &corev3.Node{Id: id, Cluster: cluster}}
	}
	st := c.Server.connect(&node.Peer{Name: "edge-1", Group: "eu"})
	defer c.disconnect(st)
	if err := st.handle(first("edge-1", "us")); err != nil || st.group != "eu" || st.node != "edge-1" {
		t.Errorf("node %q of %q, %v; want edge-1 of eu", st.node, st.group, err)
	}
	liar := c.Server.connect(&node.Peer{Name: "edge-1", Group: "eu"})
	defer c.disconnect(liar)
	const want = `rpc error: code = PermissionDenied desc = the node id is "edge-2" and the certificate is of node "edge-1": start Envoy with the bootstrap of its own`
	if err := liar.handle(first("edge-2", "eu")); err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

// TestANodeMayNotAskForEverything: what it asks for is kept, so that a node cannot take the memory of all.
func TestANodeMayNotAskForEverything(t *testing.T) {
	c := newControl(t)
	c.Install(c.build(new(Builder), routeA))
	many := func(n int, prefix string) []string {
		names := make([]string, n)
		for i := range names {
			names[i] = prefix + strconv.Itoa(i)
		}
		return names
	}
	for name, row := range map[string]struct {
		requests [][]string
		refused  bool
	}{
		"many":             {[][]string{many(maxNames, "a")}, false},
		"too many":         {[][]string{many(maxNames+1, "a")}, true},
		"little by little": {[][]string{many(maxNames/2, "a"), many(maxNames/2+1, "b")}, true},
		"a long name":      {[][]string{{strings.Repeat("a", maxName+1)}}, true},
	} {
		st := c.Server.connect(&node.Peer{Name: "edge-1"})
		var err error
		for _, names := range row.requests {
			if err == nil {
				err = st.handle(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[secretKind], ResourceNamesSubscribe: names})
			}
		}
		if (err != nil) != row.refused {
			t.Errorf("%s: %v", name, err)
		}
		c.disconnect(st)
	}
}
