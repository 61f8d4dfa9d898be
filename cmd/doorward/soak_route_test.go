package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// How much the soak does. Envoy's worker threads may answer by what was before for lag after its acknowledgement.
const (
	soakChanges = 2000
	soakShort   = 150 // where DOORWARD_SOAK is not set
	soakHosts   = 60  // that come and go
	soakSteady  = 3   // that stay, and are never to miss a request
	soakLag     = 150 * time.Millisecond
)

// nobody is what a host without a route says: its handshake fails, or it is misdirected.
const nobody = "nobody"

// soak is what was pushed, over time.
type soak struct {
	*fleet
	names []string // of the speakers
	urls  []string

	mu    sync.Mutex
	hosts map[string]*soakHost
	fault error // the first
	asked int
}

// soakHost is what a host says, in the order of the changes; each of it may be said until the next one has been acknowledged for soakLag.
type soakHost struct {
	says  []string
	until []time.Time // zero while it may still be said
}

// TestRoutesSoak changes routes at random while requests run: none is answered by a wrong upstream or with a wrong certificate, none of the steady
// hosts is dropped, and at the end Envoy has what was pushed and nothing else, and no more memory than after a quarter of it.
func TestRoutesSoak(t *testing.T) {
	changes := soakShort
	if os.Getenv("DOORWARD_SOAK") != "" {
		changes = soakChanges
	}
	s := &soak{fleet: newFleet(t, externalParts(t)), hosts: make(map[string]*soakHost)}
	for i := range 6 {
		s.names = append(s.names, fmt.Sprint("speaker ", i))
		s.urls = append(s.urls, speaker(t, s.names[i]))
	}
	var routes []string
	for i := range soakSteady {
		routes = append(routes, s.route(fmt.Sprint("steady", i), s.urls[0]))
	}
	s.startEnvoy()
	s.mustApply(nil, routes...)
	for i := range soakSteady {
		s.says(fmt.Sprint("steady", i), s.names[0], 20*time.Second)
	}
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for i := range soakSteady {
		asking.Go(func() { s.askSteadily(ctx, fmt.Sprint("steady", i)) })
	}
	for seed := range 2 {
		asking.Go(func() { s.askAround(ctx, rand.New(rand.NewPCG(uint64(seed), 7))) })
	}
	early := s.change(rand.New(rand.NewPCG(3, 4)), changes)
	stop()
	asking.Wait()
	if s.fault != nil {
		t.Error(s.fault)
	}
	t.Logf("%d changes, %d requests", changes, s.asked)
	s.holdsWhatWasPushed()
	if changes == soakShort {
		return // memory grows to its steady size at first
	}
	s.giveTime()
	for pid, before := range early {
		if now := rss(t, pid); now > before*1.15+16 {
			t.Errorf("process %d holds %.0f MiB, after %.0f a quarter through", pid, now, before)
		}
	}
}

// change makes n changes of one to three hosts each, and returns what the processes hold after a quarter of them.
func (s *soak) change(random *rand.Rand, n int) (early map[int]float64) {
	for i := range n {
		if i == n/4 && n == soakChanges {
			s.giveTime()
			early = map[int]float64{s.doorward.Process.Pid: rss(s, s.doorward.Process.Pid), s.envoy.Process.Pid: rss(s, s.envoy.Process.Pid)}
		}
		var put, remove []string
		next := make(map[string]string)
		for range 1 + random.IntN(3) {
			name, speaker := fmt.Sprint("h", random.IntN(soakHosts)), random.IntN(len(s.urls))
			if next[name] != "" {
				continue
			}
			if next[name] = s.names[speaker]; random.IntN(3) > 0 {
				put = append(put, s.route(name, s.urls[speaker]))
			} else if next[name] = nobody; s.last(name) != nobody {
				remove = append(remove, name)
			}
		}
		s.begin(next)
		s.mustApply(remove, put...)
		s.done(next)
		if s.failed() {
			break
		}
		if i%10 == 9 {
			s.refuses()
		}
	}
	return early
}

// refuses pushes what is refused as a whole, which changes nothing.
func (s *soak) refuses() {
	s.Helper()
	if _, err := s.apply("", nil, s.route("h0", s.urls[0]), "{name: bad, from: \"http://x\"}"); err == nil {
		s.Fatal("a bad change was taken")
	}
}

// giveTime lets the processes give back what they have taken for a moment.
func (s *soak) giveTime() { time.Sleep(2 * giveBackEvery) }

func (s *soak) last(name string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.host(name).says[len(s.host(name).says)-1]
}

func (s *soak) host(name string) *soakHost {
	if s.hosts[name] == nil {
		s.hosts[name] = &soakHost{says: []string{nobody}, until: []time.Time{{}}}
	}
	return s.hosts[name]
}

// begin notes what hosts may say from now on, done that they may not say anything else much longer.
func (s *soak) begin(next map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, says := range next {
		h := s.host(name)
		h.says, h.until = append(h.says, says), append(h.until, time.Time{})
	}
}

func (s *soak) done(next map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name := range next {
		h := s.host(name)
		for i := range len(h.until) - 1 {
			if h.until[i].IsZero() {
				h.until[i] = time.Now().Add(soakLag)
			}
		}
	}
}

// allowed is what a host may have said between a moment and now.
func (s *soak) allowed(name string, since time.Time) (says []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	h := s.host(name)
	for i, until := range h.until {
		if until.IsZero() || until.After(since) {
			says = append(says, h.says[i])
		}
	}
	return says
}

func (s *soak) fail(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault == nil {
		s.fault = fmt.Errorf(format, args...)
	}
}

func (s *soak) failed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault != nil
}

// askAround asks hosts that come and go, each over a new connection.
func (s *soak) askAround(ctx context.Context, random *rand.Rand) {
	for ctx.Err() == nil && !s.failed() {
		name, begun := fmt.Sprint("h", random.IntN(soakHosts)), time.Now()
		status, says, err := s.ask(name)
		switch {
		case err != nil && strings.Contains(err.Error(), "remote error: tls: handshake failure"), status == http.StatusMisdirectedRequest:
			says = nobody // Envoy has no certificate, or no route
		case err != nil, status != http.StatusOK:
			s.fail("%s: %d %q, %v", name, status, says, err)
		}
		if allowed := s.allowed(name, begun); !slices.Contains(allowed, says) {
			s.fail("%s says %q (%d, %v), which may say %q", name, says, status, err, allowed)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// askSteadily asks a host that stays, over one connection.
func (s *soak) askSteadily(ctx context.Context, name string) {
	host := name + ".localhost"
	client := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: s.roots, ServerName: host},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", s.port))
		},
	}}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil && !s.failed() {
		res, err := client.Get(fmt.Sprintf("https://%s:%d/", host, s.port))
		if err != nil {
			s.fail("%s: %w", name, err)
			return
		}
		text, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK || string(text) != s.names[0] {
			s.fail("%s: %d %q, %v", name, res.StatusCode, text, err)
		}
		s.mu.Lock()
		s.asked++
		s.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
	}
}

// holdsWhatWasPushed wants Envoy to have the routes, scopes and clusters of the hosts that there are, certificates of no others, and nothing else.
func (s *soak) holdsWhatWasPushed() {
	s.Helper()
	hosts, clusters := []string{"auth.localhost"}, map[string]bool{}
	for i := range soakSteady {
		hosts = append(hosts, fmt.Sprintf("steady%d.localhost", i))
	}
	clusters[s.urls[0]] = true
	for name, h := range s.hosts {
		if says := h.says[len(h.says)-1]; says != nobody {
			hosts = append(hosts, name+".localhost")
			clusters[s.urls[slices.Index(s.names, says)]] = true
		}
	}
	slices.Sort(hosts)
	dump := s.dump()
	if got := dump.routes; !slices.Equal(got, hosts) {
		s.Errorf("Envoy has the routes of\n%v\npushed are\n%v", got, hosts)
	}
	if got := dump.scopes; !slices.Equal(got, hosts) {
		s.Errorf("Envoy has the scopes of\n%v\npushed are\n%v", got, hosts)
	}
	for _, name := range dump.clusters {
		if !clusters[name] {
			s.Errorf("Envoy has the cluster %s, which no route leads to", name)
		}
		delete(clusters, name)
	}
	if len(clusters) > 0 {
		s.Errorf("Envoy lacks the clusters %v", clusters)
	}
	for _, name := range dump.secrets {
		if !slices.Contains(hosts, name) {
			s.Errorf("Envoy has a certificate for %s, which there is no more", name)
		}
	}
}

// dumped are the names of what an Envoy has over ADS, sorted.
type dumped struct{ routes, scopes, clusters, secrets []string }

// dump asks the Envoy what it has.
func (f *fleet) dump() (out dumped) {
	f.Helper()
	client := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(f.dir, "data", "run", "admin.sock"))
	}}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://envoy/config_dump")
	if err != nil {
		f.Fatal(err)
	}
	defer res.Body.Close()
	var all struct {
		Configs []struct {
			Type   string                                         `json:"@type"`
			Routes []struct{ Route_config struct{ Name string } } `json:"dynamic_route_configs"`
			Scopes []struct {
				Scopes []struct{ Name string } `json:"scoped_route_configs"`
			} `json:"dynamic_scoped_route_configs"`
			Active  []struct{ Cluster struct{ Name string } } `json:"dynamic_active_clusters"`
			Warming []struct{ Cluster struct{ Name string } } `json:"dynamic_warming_clusters"`
			Secrets []struct{ Name string }                   `json:"dynamic_active_secrets"`
		} `json:"configs"`
	}
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		f.Fatal(err)
	}
	for _, c := range all.Configs {
		for _, r := range c.Routes {
			out.routes = append(out.routes, r.Route_config.Name)
		}
		for _, set := range c.Scopes {
			for _, scope := range set.Scopes {
				out.scopes = append(out.scopes, scope.Name)
			}
		}
		for _, some := range [][]struct{ Cluster struct{ Name string } }{c.Active, c.Warming} {
			for _, cluster := range some {
				out.clusters = append(out.clusters, cluster.Cluster.Name)
			}
		}
		for _, secret := range c.Secrets {
			out.secrets = append(out.secrets, secret.Name)
		}
	}
	for _, list := range [][]string{out.routes, out.scopes, out.clusters, out.secrets} {
		slices.Sort(list)
	}
	return out
}
