package xds

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestEnvoyServesWildcards(t *testing.T) {
	f := newFront(t, "")
	apps, one, other := f.upstream("apps"), f.upstream("one"), f.upstream("other")
	routes := line("other", "other.localhost", other, "")
	f.serve(routes)
	if _, _, err := f.handshake(&tls.Config{ServerName: "x.apps.localhost"}); err == nil {
		t.Error("a wildcard is served that there is not")
	}
	open := f.client("", true)
	if a := f.do(open, "GET", fmt.Sprintf("https://other.localhost:%d/", f.https)); a.Seen.Upstream != "other" {
		t.Fatalf("the exact host: %+v", a)
	}
	f.serve(routes + line("apps", "*.apps.localhost", apps, "") + line("deep", "*.deep.apps.localhost", apps, ", prefix: /deep") + line("one", "one.apps.localhost", one, ""))
	for host, want := range map[string]string{"x.apps.localhost": "apps", "y-2.apps.localhost": "apps", "one.apps.localhost": "one", "other.localhost": "other"} {
		a := f.get(host, "/")
		if a.Seen.Upstream != want || a.Seen.Header.Get("X-Forwarded-Host") != fmt.Sprintf("%s:%d", host, f.https) {
			t.Errorf("%s: %d %s, forwarded for %s; want %s", host, a.Status, a.Seen.Upstream, a.Seen.Header.Get("X-Forwarded-Host"), want)
		}
	}
	if a := f.get("a.deep.apps.localhost", "/deep"); a.Status != 200 {
		t.Errorf("a wildcard below a wildcard: %d", a.Status)
	}
	for _, host := range []string{"apps.localhost", "x.y.apps.localhost", "x.apps.localhost.evil.localhost"} {
		if _, _, err := f.handshake(&tls.Config{ServerName: host}); err == nil {
			t.Errorf("%s has a certificate", host)
		}
	}
	// A chain leads to its own hosts alone.
	for _, row := range []struct{ sni, host string }{
		{"x.apps.localhost", "other.localhost"}, {"other.localhost", "x.apps.localhost"}, {"other.localhost", "one.apps.localhost"},
		{"x.apps.localhost", "one.apps.localhost"}, {"x.apps.localhost", "*.apps.localhost"}, {"x.apps.localhost", "a.deep.apps.localhost"},
		{"a.deep.apps.localhost", "x.apps.localhost"}, {"x.apps.localhost", "X.apps.localhost.evil"},
	} {
		a := f.do(f.client(row.sni, true), "GET", fmt.Sprintf("https://127.0.0.1:%d/", f.https), "Host", row.host)
		if a.Status != 421 {
			t.Errorf("a connection for %s asked for %s: %d, want 421", row.sni, row.host, a.Status)
		}
	}
	// The connection from before the chains were there is as it was.
	if !f.reuses(open, "other.localhost") {
		t.Error("adding a filter chain has ended a connection of another one")
	}
	f.serve(routes)
	f.eventually("the wildcard goes", func() error {
		if _, _, err := f.handshake(&tls.Config{ServerName: "x.apps.localhost"}); err == nil {
			return fmt.Errorf("a handshake succeeds")
		}
		return nil
	})
}

// reuses asks a host and says whether that went over a connection that was open.
func (f *front) reuses(c *http.Client, host string) (reused bool) {
	f.t.Helper()
	ctx := httptrace.WithClientTrace(f.t.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }})
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s:%d/", host, f.https), nil)
	if err != nil {
		f.t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		f.t.Fatal(err)
	}
	res.Body.Close()
	return reused && res.StatusCode == http.StatusOK
}

// TestEnvoyNamesUnderAWildcardCostNothing: thousands of names that a stranger thinks of take no memory that stays.
func TestEnvoyNamesUnderAWildcardCostNothing(t *testing.T) {
	f := newFront(t, "")
	f.serve(line("apps", "*.apps.localhost", f.upstream("apps"), ""))
	ask := func(from, n int) {
		for i := range n {
			c, _, err := f.handshake(&tls.Config{ServerName: fmt.Sprintf("n%d.apps.localhost", from+i)})
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		}
	}
	const names = 5000
	ask(0, names/5) // what the first handshakes take is not the names'
	before := f.memory()
	ask(names, names)
	if grown := f.memory() - before; grown > 5 {
		t.Errorf("%d names took %.1f MiB", names, grown)
	}
	if secrets := strings.Count(f.admin("/config_dump?resource=dynamic_active_secrets"), `"name": "*.apps.localhost"`); secrets < 1 || secrets > 2 {
		t.Errorf("%d secrets of the wildcard", secrets)
	}
}

// allocated is what Envoy has allocated, in MiB. It is counted when asked for, while the statistic of that name is seconds old.
func (f *front) allocated() float64 {
	f.t.Helper()
	var page struct{ Allocated string }
	if err := json.Unmarshal([]byte(f.admin("/memory")), &page); err != nil {
		f.t.Fatal(err)
	}
	bytes, err := strconv.ParseFloat(page.Allocated, 64)
	if err != nil {
		f.t.Fatal(err)
	}
	return bytes / (1 << 20)
}

// memory is what Envoy has allocated, in MiB, at its lowest of a second.
func (f *front) memory() float64 {
	var least []float64
	for range 10 {
		least = append(least, f.allocated())
		time.Sleep(100 * time.Millisecond)
	}
	return slices.Min(least)
}

// TestEnvoyForgetsNamesThatNobodyHas: each is refused at once, and neither Envoy nor the server keeps it.
func TestEnvoyForgetsNamesThatNobodyHas(t *testing.T) {
	f := newFront(t, "")
	f.serve(line("a", "a.localhost", f.upstream("u"), ""))
	var slowest time.Duration
	ask := func(from, n int) {
		for i := range n {
			_, took, err := f.handshake(&tls.Config{ServerName: fmt.Sprintf("n%d.nobody.localhost", from+i)})
			if err == nil {
				t.Fatal("a name that nobody has was answered with a certificate")
			}
			slowest = max(slowest, took)
		}
	}
	const names = 2000
	ask(0, names/4)
	before := f.memory()
	ask(names, names)
	if grown := f.memory() - before; grown > 2 {
		t.Errorf("%d names took %.1f MiB", names, grown)
	}
	if slowest > time.Second {
		t.Errorf("one was refused after %v", slowest)
	}
	f.server.mu.Lock()
	defer f.server.mu.Unlock()
	for st := range f.server.streams {
		if secrets := st.feeds[secretKind]; len(secrets.subscribed) > 20 || len(secrets.unknown) > 20 {
			t.Errorf("the server keeps %d names", len(secrets.subscribed))
		}
	}
}
