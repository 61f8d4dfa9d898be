package xds

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// line is one route of a host as YAML.
func line(name, host, upstream, more string) string {
	return fmt.Sprintf("  - {name: %s, from: \"https://%s:PORT\", to: \"http://%s\", policy: public%s}\n", name, host, upstream, more)
}

// listenerUnchanged fails when a change reached the listener.
func (f *front) listenerUnchanged() {
	f.t.Helper()
	for _, name := range []string{"listener_modified", "listener_in_place_updated", "listener_removed"} {
		if n := f.stat("listener_manager." + name); n != 0 {
			f.t.Errorf("%s is %d", name, n)
		}
	}
}

// load keeps asking while a test changes things; stop says how many requests there were, and reports what went wrong.
func (f *front) underLoad(host, path string) (stop func() int) {
	ctx, cancel := context.WithCancel(context.Background())
	var n int
	var faults []string
	var done sync.WaitGroup
	done.Go(func() {
		c := f.client("", true)
		for ctx.Err() == nil {
			n++
			a, err := try(c, "GET", fmt.Sprintf("https://%s:%d%s", host, f.https, path))
			if err != nil || a.Status != 200 {
				faults = append(faults, fmt.Sprint(a.Status, a.Body, err))
			}
		}
	})
	return func() int {
		f.t.Helper()
		cancel()
		done.Wait()
		if len(faults) > 0 {
			f.t.Errorf("%d of %d requests failed, the first with %s", len(faults), n, faults[0])
		}
		return n
	}
}

func TestEnvoyTakesChanges(t *testing.T) {
	f := newFront(t, "")
	one, two := f.upstream("one"), f.upstream("two")
	steady := line("steady", "steady.localhost", one, "")
	f.serve(steady)
	stop := f.underLoad("steady.localhost", "/")

	f.serve(steady + line("new", "new.localhost", one, ""))
	if a := f.get("new.localhost", "/"); a.Seen.Upstream != "one" {
		t.Errorf("a new host: %d from %q", a.Status, a.Seen.Upstream)
	}
	f.serve(steady + line("new", "new.localhost", two, ""))
	f.eventually("another upstream", func() error {
		if a := f.get("new.localhost", "/"); a.Seen.Upstream != "two" {
			return fmt.Errorf("%d from %q", a.Status, a.Seen.Upstream)
		}
		return nil
	})
	f.serve(steady + line("new", "new.localhost", two, ", prefix: /below"))
	f.eventually("a narrower route", func() error {
		if a := f.get("new.localhost", "/"); a.Status != 404 {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
	open := f.client("", true)
	f.do(open, "GET", fmt.Sprintf("https://new.localhost:%d/below", f.https))
	f.serve(steady)
	f.eventually("the host is gone on an open connection", func() error {
		if a := f.do(open, "GET", fmt.Sprintf("https://new.localhost:%d/below", f.https)); a.Status != 421 {
			return fmt.Errorf("%d", a.Status)
		}
		return nil
	})
	if _, _, err := f.handshake(&tls.Config{ServerName: "new.localhost"}); err == nil {
		t.Error("the certificate of a host that is gone is still served")
	}
	if text := f.admin("/clusters"); strings.Contains(text, two) {
		t.Error("the cluster of a host that is gone is still there")
	}
	for i := range 30 {
		f.serve(steady + line(fmt.Sprint("r", i), fmt.Sprintf("h%d.localhost", i), two, ""))
	}
	if n := stop(); n < 10 {
		t.Errorf("only %d requests were made meanwhile", n)
	}
	f.listenerUnchanged()
}

func TestEnvoyServesANewHostAtOnce(t *testing.T) {
	f := newFront(t, "")
	up := f.upstream("u")
	routes := line("first", "first.localhost", up, "")
	f.serve(routes)
	for i := range 20 {
		host := fmt.Sprintf("h%d.localhost", i)
		// Somebody asked for the host before it was there.
		if _, _, err := f.handshake(&tls.Config{ServerName: host}); err == nil {
			t.Fatal("a host that is not there yet has a certificate")
		}
		routes += line(fmt.Sprint("r", i), host, up, "")
		start := time.Now()
		f.serve(routes)
		if a := f.get(host, "/"); a.Status != 200 {
			t.Fatalf("%s: %d right after Apply", host, a.Status)
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("%s: served after %v", host, took)
		}
	}
}

func TestEnvoyTakesANewCertificate(t *testing.T) {
	f := newFront(t, "")
	f.serve(line("a", "a.localhost", f.upstream("u"), ""))
	serial := func() string {
		c, _, err := f.handshake(&tls.Config{ServerName: "a.localhost"})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	r := f.build(line("a", "a.localhost", "127.0.0.1:1", ""))
	chain, key, err := f.otherCA().Certificate("a.localhost")
	if err != nil {
		t.Fatal(err)
	}
	delete(r.set[secretKind], "a.localhost")
	if err := (siteInput{site: site{host: "a.localhost"}, chain: chain, key: key}).addSecret(r); err != nil {
		t.Fatal(err)
	}
	if err := f.apply(r); err != nil {
		t.Fatal(err)
	}
	f.eventually("the new certificate", func() error {
		if serial() == before {
			return fmt.Errorf("still the old one")
		}
		return nil
	})
	f.listenerUnchanged()
}

// spoil replaces a host's routes by ones that Envoy rejects: RE2 does not compile the expression.
func spoil(t *testing.T, r *Resources, host string) {
	t.Helper()
	delete(r.set[routeKind], host)
	if err := r.add(routeKind, host, &routev3.RouteConfiguration{
		Name: host,
		VirtualHosts: []*routev3.VirtualHost{{Name: host, Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}},
			Action: directResponse(200, ""),
		}}}},
	}); err != nil {
		t.Fatal(err)
	}
}

// manyHosts is a route for each of h0.localhost to h49.localhost.
func manyHosts(upstream, more string) string {
	var routes string
	for i := range 50 {
		routes += line(fmt.Sprint("r", i), fmt.Sprintf("h%d.localhost", i), upstream, more)
	}
	return routes
}

func TestEnvoyRejectsOneOfMany(t *testing.T) {
	f := newFront(t, "")
	up := f.upstream("u")

	// A fresh Envoy: the bad host is not served, the listener is not held up, and all others are served.
	r := f.build(manyHosts(up, ""))
	spoil(t, r, "h7.localhost")
	start := time.Now()
	err := f.apply(r)
	if err == nil || !strings.HasPrefix(err.Error(), `envoy "test-envoy" rejected RDS "h7.localhost": `) || strings.Contains(err.Error(), "\n") {
		t.Fatalf("Apply: %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("isolated after %v", took)
	}
	for _, i := range []int{0, 6, 8, 49} {
		if a := f.get(fmt.Sprintf("h%d.localhost", i), "/"); a.Status != 200 {
			t.Errorf("h%d: %d", i, a.Status)
		}
	}
	if a := f.get("h7.localhost", "/"); a.Status != 421 {
		t.Errorf("the bad host: %d, want 421", a.Status)
	}

	// It is mended, and then all change and it becomes bad again: the others change, it stays as it was.
	f.serve(manyHosts(up, ""))
	if a := f.get("h7.localhost", "/"); a.Status != 200 {
		t.Errorf("the mended host: %d", a.Status)
	}
	r = f.build(manyHosts(up, ", prefix: /below"))
	spoil(t, r, "h7.localhost")
	if err := f.apply(r); err == nil {
		t.Error("Apply reports nothing")
	}
	for i := range 50 {
		want := 404
		if i == 7 {
			want = 200
		}
		f.eventually("the others change", func() error {
			if a := f.get(fmt.Sprintf("h%d.localhost", i), "/"); a.Status != want {
				return fmt.Errorf("h%d: %d, want %d", i, a.Status, want)
			}
			return nil
		})
	}
	rejected := f.server.Envoys()[0].Rejected
	if len(rejected) != 1 || rejected[0].Type != "RDS" || rejected[0].Resource != "h7.localhost" || rejected[0].Message == "" {
		t.Errorf("rejected: %+v", rejected)
	}
	f.listenerUnchanged()
}

func TestEnvoyRejectsACluster(t *testing.T) {
	f := newFront(t, "")
	r := f.build(manyHosts(f.upstream("u"), ""))
	if err := r.add(clusterKind, "bad", &clusterv3.Cluster{
		Name:                 "bad",
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "no.such.type"}},
	}); err != nil {
		t.Fatal(err)
	}
	err := f.apply(r)
	if err == nil || !strings.HasPrefix(err.Error(), `envoy "test-envoy" rejected CDS "bad": `) {
		t.Fatalf("Apply: %v", err)
	}
	if a := f.get("h1.localhost", "/"); a.Status != 200 {
		t.Errorf("another host: %d", a.Status)
	}
}

func TestEnvoyIsNotHeldUpByAName(t *testing.T) {
	f := newFront(t, "")
	up := f.upstream("u")
	f.serve(line("a", "a.localhost", up, ""))
	start := time.Now()
	f.serve(line("a", "a.localhost", up, "") + line("b", "b.localhost", "no-such-name.invalid:80", "") + line("c", "c.localhost", up, ""))
	if took := time.Since(start); took > time.Second {
		t.Errorf("acknowledged after %v", took)
	}
	if a := f.get("c.localhost", "/"); a.Status != 200 {
		t.Errorf("a host with an upstream: %d", a.Status)
	}
	if a := f.get("b.localhost", "/"); a.Status != 503 {
		t.Errorf("a host without: %d", a.Status)
	}
}

func TestEnvoyOutlivesTheControlPlane(t *testing.T) {
	f := newFront(t, "")
	one, two := f.upstream("one"), f.upstream("two")
	f.serve(line("a", "a.localhost", one, "") + line("gone", "gone.localhost", one, ""))
	f.get("a.localhost", "/")
	stop := f.underLoad("a.localhost", "/")
	f.restart()
	f.eventually("Envoy comes back", func() error {
		if n := len(f.server.Envoys()); n != 1 {
			return fmt.Errorf("%d Envoys", n)
		}
		return nil
	})
	if a := f.get("a.localhost", "/"); a.Status != 200 {
		t.Errorf("while nothing is served: %d", a.Status)
	}
	f.serve(line("a", "a.localhost", one, "") + line("b", "b.localhost", two, ""))
	if a := f.get("b.localhost", "/"); a.Status != 200 {
		t.Errorf("a host that is new since: %d", a.Status)
	}
	f.eventually("a host that is gone since", func() error {
		if _, _, err := f.handshake(&tls.Config{ServerName: "gone.localhost"}); err == nil {
			return fmt.Errorf("still has a certificate")
		}
		return nil
	})
	stop()
	f.listenerUnchanged()
}
