package policy

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// stats are hits, misses and bypassed, as one text.
func stats(c *Cache) string {
	s := c.Stats()
	return fmt.Sprintf("%d hits %d misses %d bypassed", s.Hits, s.Misses, s.Bypassed)
}

// TestCacheAsks changes one thing between two requests. The second is a hit only when the policy does not read what changed.
func TestCacheAsks(t *testing.T) {
	const reads = `allow if { input.user.name; input.request.path; input.request.query; input.request.headers["x-team"]; input.route.labels.team; input.session.acr }`
	for _, row := range []struct {
		name   string
		rego   string
		change func(*Input)
		hit    bool
	}{
		{"nothing", reads, func(*Input) {}, true},
		{"the path", reads, func(in *Input) { in.Request.Path = "/d/y" }, false},
		{"the query", reads, func(in *Input) { in.Request.Query = "" }, false},
		{"a header that is read", reads, func(in *Input) { withHeaders(in, map[string]string{"x-team": "other"}) }, false},
		{"a header that is read goes", reads, func(in *Input) { withHeaders(in, nil) }, false},
		{"a header that is read becomes empty", `allow if input.request.headers.x == ""`, func(in *Input) { withHeaders(in, map[string]string{"x": ""}) }, false},
		{"a header that is not read", reads, func(in *Input) { withHeaders(in, map[string]string{"x-team": "tools", "x": "y"}) }, true},
		{"the method, which is not read", reads, func(in *Input) { in.Request.Method = "POST" }, true},
		{"the method", `allow if input.request.method`, func(in *Input) { in.Request.Method = "POST" }, false},
		{"the scheme", `allow if input.request.scheme`, func(in *Input) { in.Request.Scheme = "http" }, false},
		{"the host", `allow if input.request.host`, func(in *Input) { in.Request.Host = "h" }, false},
		{"the address", `allow if input.request.client_ip`, func(in *Input) { in.Request.ClientIP = "::1" }, false},
		{"a header, of all", `allow if input.request.headers[_] == "tools"`, func(in *Input) { withHeaders(in, map[string]string{"x-team": "tools"}) }, false},
		{"names of headers", `allow if input.request.headers[_] == "tools"`, func(in *Input) { withHeaders(in, map[string]string{"x-team": "tools", "x": "text/html"}) }, false},
		{"the session's version", reads, func(in *Input) { in.Session.Version++ }, false},
		{"the session", reads, func(in *Input) { in.Session.ID = "other" }, false},
		{"the session's end", reads, func(in *Input) { in.Session.Expires++ }, false},
		{"the session's class", reads, func(in *Input) { in.Session.ACR = "gold" }, false},
		{"the session's methods", reads, func(in *Input) { in.Session.AMR = []string{"pwd"} }, false},
		{"the user", reads, func(in *Input) { in.User.ID = "bob" }, false},
		{"to a stranger", reads, func(in *Input) { in.User, in.Session = nil, nil }, false},
		{"to a stranger, from a policy that does not ask", `allow if input.request.path`, func(in *Input) { in.User, in.Session = nil, nil }, false},
		{"the session, of a policy that does not ask", `allow if input.request.path`, func(in *Input) { in.Session.ID = "other" }, true},
		{"the route", reads, func(in *Input) { in.Route.Name = "other" }, false},
		{"the route's revision", `allow if input.request.path`, func(in *Input) { in.Route.Revision = "r2" }, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			c, p := NewCache(100, 1<<20), compilePackage(t, row.rego)
			c.Decide(t.Context(), p, alice())
			in := alice()
			row.change(in)
			got := c.Decide(t.Context(), p, in)
			want := "0 hits 2 misses 0 bypassed"
			if row.hit {
				want = "1 hits 1 misses 0 bypassed"
			}
			if stats(c) != want {
				t.Errorf("got %s, want %s", stats(c), want)
			}
			if plain := p.Decide(t.Context(), in); !reflect.DeepEqual(got, plain) {
				t.Errorf("the cache says %+v, the policy %+v", got, plain)
			}
		})
	}
}

// TestCacheAsksEnvoy changes one part of Envoy's question between two requests.
func TestCacheAsksEnvoy(t *testing.T) {
	for _, row := range []struct {
		rego   string
		change string // a text of facts, or a header
		hit    bool
	}{
		{`allow if input.attributes.request.http.method`, "method", false},
		{`allow if input.attributes.request.http.method`, "path", true},
		{`allow if input.attributes.request.http.path`, "query", false},
		{`allow if input.attributes.request.http.host`, "host", false},
		{`allow if input.attributes.request.http.scheme`, "scheme", false},
		{`allow if input.attributes.request.http.protocol`, "protocol", false},
		{`allow if input.attributes.request.http.size`, "size", false},
		{`allow if input.attributes.request.http.body`, "body", false},
		{`allow if input.attributes.request.http.body`, "peer", true},
		{`allow if input.attributes.request.http.headers["x-a"]`, "header x-a", false},
		{`allow if input.attributes.request.http.headers["x-a"]`, "header x-b", true},
		{`allow if input.attributes.request.http.headers[_] == "x"`, "header x-b", false},
		{`allow if input.attributes.request.http.headers[":method"]`, "method", false},
		{`allow if input.attributes.source.principal`, "principal", false},
		{`allow if input.attributes.source.principal`, "peer", true},
		{`allow if input.attributes.source.labels.a`, "peer label", false},
		{`allow if input.attributes.source.address.socketAddress.address`, "peer", false},
		{`allow if input.attributes.source.address.socketAddress.address`, "port", true},
		{`allow if input.attributes.source.address.socketAddress.portValue`, "port", false},
		{`allow if input.attributes.source.certificate`, "certificate", false},
		{`allow if input.attributes.destination`, "local", true}, // only whether there is one
		{`allow if input.attributes.destination.address.socketAddress.address`, "local", false},
		{`allow if input.attributes.contextExtensions.a`, "extension", false},
		{`allow if input.attributes.metadataContext.filterMetadata.a`, "metadata", false},
		{`allow if input.attributes.tlsSession.sni`, "sni", false},
		{`allow if input.parsed_path[0]`, "path", false},
		{`allow if input.parsed_query.a`, "query", false},
		{`allow if input.parsed_body.a`, "body", false},
		{`allow if input.parsed_body.a`, "header content-type", false},
		{`allow if input.parsed_body.a`, "header content-length", false},
		{`allow if input.truncated_body`, "header x-envoy-auth-partial-body", false},
		{`allow if input.source_principal`, "principal", false},
		{`allow if input.version.ext_authz`, "principal", true},
		{`allow if input.client_certificate.subject`, "certificate", false},
	} {
		g := &generator{Rand: rand.New(rand.NewPCG(1, 2))}
		before := g.facts()
		for _, name := range texts {
			before.text[name] = "1"
		}
		before.text["certificate"], before.text["body"] = "0", "a"
		before.headers = map[string]string{}
		after := *before
		after.text, after.headers = maps.Clone(before.text), maps.Clone(before.headers)
		if header, is := strings.CutPrefix(row.change, "header "); is {
			after.headers[header] = "2"
		} else {
			after.text[row.change] = map[string]string{"certificate": "1"}[row.change] + "2"
			after.text["certificate"] = after.text["certificate"][:1]
		}
		c, p := NewCache(100, 1<<20), compilePackage(t, row.rego)
		c.Decide(t.Context(), p, before.input())
		c.Decide(t.Context(), p, after.input())
		want := "0 hits 2 misses 0 bypassed"
		if row.hit {
			want = "1 hits 1 misses 0 bypassed"
		}
		if stats(c) != want {
			t.Errorf("%s, %s: got %s, want %s", row.rego, row.change, stats(c), want)
		}
	}
}

// TestPartsDoNotRunTogether has two requests whose parts are the same when they are written one after the other.
func TestPartsDoNotRunTogether(t *testing.T) {
	c := NewCache(100, 1<<20)
	p := compilePackage(t, `allow if { input.request.path; input.request.host; input.request.query; input.request.headers.a; input.request.headers.b }`)
	for _, parts := range [][5]string{{"/a", "b", "q", "x", "y"}, {"/ab", "", "q", "x", "y"}, {"/a", "b", "", "qx", "y"}, {"/a", "b", "q", "", "xy"}, {"/a", "b", "q", "xy", ""}} {
		in := withHeaders(alice(), map[string]string{"a": parts[3], "b": parts[4]})
		in.Request.Path, in.Request.Host, in.Request.Query = parts[0], parts[1], parts[2]
		c.Decide(t.Context(), p, in)
	}
	if want := "0 hits 5 misses 0 bypassed"; stats(c) != want {
		t.Errorf("got %s, want %s", stats(c), want)
	}
}

func TestPoliciesDoNotShareDecisions(t *testing.T) {
	c := NewCache(100, 1<<20)
	yes, no := compilePackage(t, "allow := true"), compilePackage(t, "allow := false")
	if !c.Decide(t.Context(), yes, alice()).Allow || c.Decide(t.Context(), no, alice()).Allow {
		t.Error("one policy got the other's decision")
	}
	again := compilePackage(t, "allow := true") // loaded anew, as after a reload
	if !c.Decide(t.Context(), again, alice()).Allow || c.Stats().Hits != 1 {
		t.Errorf("a policy that did not change is asked again: %s", stats(c))
	}
}

func TestWhatIsNotCached(t *testing.T) {
	for _, row := range []struct {
		name, rego string
		change     func(*Input)
		want       string
	}{
		{"a policy that reads the clock", `allow if time.now_ns() > input.session.expires`, func(*Input) {}, "0 hits 0 misses 2 bypassed"},
		{"a route without a revision, when it is read", `allow if input.route.name`, func(in *Input) { in.Route.Revision = "" }, "0 hits 0 misses 2 bypassed"},
		{"a route without a revision, when it is not", `allow if input.user.name`, func(in *Input) { in.Route.Revision = "" }, "1 hits 1 misses 0 bypassed"},
		{"a user without a session", `allow if input.user.name`, func(in *Input) { in.Session = nil }, "0 hits 0 misses 2 bypassed"},
		{"a session without a name", `allow if input.user.name`, func(in *Input) { in.Session.ID = "" }, "0 hits 0 misses 2 bypassed"},
		{"a long path", `allow if input.request.path`, func(in *Input) { in.Request.Path = string(make([]byte, maxKey)) }, "0 hits 0 misses 2 bypassed"},
		{"an error", `allow if to_number(input.user.name) == 1`, func(*Input) {}, "0 hits 2 misses 0 bypassed"},
		{"a denial", `allow if input.user.name == "Bob"`, func(*Input) {}, "1 hits 1 misses 0 bypassed"},
	} {
		c, p := NewCache(100, 1<<20), compilePackage(t, row.rego)
		for range 2 {
			in := alice()
			row.change(in)
			c.Decide(t.Context(), p, in)
		}
		if stats(c) != row.want {
			t.Errorf("%s: got %s, want %s", row.name, stats(c), row.want)
		}
	}
}

func TestATimeoutIsNotCached(t *testing.T) {
	c := NewCache(100, 1<<20)
	p := compilePackage(t, `allow if count([1 | some a in numbers.range(1, 1000)]) == 1000`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if d := c.Decide(ctx, p, alice()); d.Err == nil {
		t.Fatalf("it was not cut: %+v", d)
	}
	if d := c.Decide(t.Context(), withTimeout(p, time.Minute), alice()); !d.Allow {
		t.Errorf("the timeout was kept: %+v", d)
	}
}

func TestBuiltInPoliciesAreNotCached(t *testing.T) {
	c := NewCache(100, 1<<20)
	p, err := loadText(t, "package p").Policy("any_authenticated_user")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Decide(t.Context(), p, alice()).Allow || c.Decide(t.Context(), p, stranger()).Allow || stats(c) != "0 hits 0 misses 0 bypassed" {
		t.Error(stats(c))
	}
}

func TestNoCache(t *testing.T) {
	var c *Cache
	if d := c.Decide(t.Context(), compilePackage(t, "allow := true"), alice()); !d.Allow || c.Stats() != (CacheStats{}) {
		t.Errorf("got %+v", d)
	}
}

// TestCacheIsBounded streams distinct paths through it.
func TestCacheIsBounded(t *testing.T) {
	p := compilePackage(t, `allow if input.request.path != ""`)
	for _, row := range []struct {
		entries, bytes int
		long           int
	}{
		{entries: 160, bytes: 1 << 30, long: 10},
		{entries: 1 << 20, bytes: 200 << 10, long: 1000},
	} {
		c := NewCache(row.entries, row.bytes)
		in := alice()
		for i := range 5000 {
			in.Request.Path = fmt.Sprintf("/%0*d", row.long, i)
			c.Decide(t.Context(), p, in)
		}
		s := c.Stats()
		if s.Entries > row.entries || s.Bytes > row.bytes || s.Entries < 64 || s.Evicted != 5000-uint64(s.Entries) {
			t.Errorf("%+v: got %+v", row, s)
		}
		c.checkSums(t)
	}
}

// checkSums holds the counts against what is there.
func (c *Cache) checkSums(t *testing.T) {
	t.Helper()
	for i := range c.shards {
		s := &c.shards[i]
		total := 0
		for e := s.queue.Front(); e != nil; e = e.Next() {
			entry := e.Value.(*cached)
			total += entry.size
			if s.entries[entry.hash] != e {
				t.Error("an entry of the queue is not in the map")
			}
		}
		if total != s.bytes || s.queue.Len() != len(s.entries) {
			t.Errorf("%d bytes are counted as %d, %d entries as %d", total, s.bytes, s.queue.Len(), len(s.entries))
		}
	}
}

// TestWhatIsUsedStays: a stream of paths asked for once does not push out those that are asked for again and again.
func TestWhatIsUsedStays(t *testing.T) {
	c, p := NewCache(320, 1<<30), compilePackage(t, `allow if input.request.path != ""`)
	in := alice()
	ask := func(path string) { in.Request.Path = path; c.Decide(t.Context(), p, in) }
	for i := range 4000 {
		ask(fmt.Sprint("/once/", i))
		ask(fmt.Sprint("/often/", i%20))
	}
	if hits := c.Stats().Hits; hits < 3900 {
		t.Errorf("only %d of 4000 were hits", hits)
	}
}

// TestASecondKeyOfOneHash puts two keys where one hash would.
func TestASecondKeyOfOneHash(t *testing.T) {
	s := &NewCache(160, 1<<20).shards[0]
	s.put(7, []byte("one"), Decision{Allow: true})
	if _, ok := s.find(7, []byte("two")); ok {
		t.Error("another key's decision was found")
	}
	s.put(7, []byte("two"), Decision{})
	if _, ok := s.find(7, []byte("one")); ok {
		t.Error("a replaced decision was found")
	}
	if d, ok := s.find(7, []byte("two")); !ok || d.Allow {
		t.Error("the second key's decision was not found")
	}
	if s.queue.Len() != 1 || len(s.entries) != 1 {
		t.Errorf("%d in the queue, %d in the map", s.queue.Len(), len(s.entries))
	}
}

// TestDecisionsDoNotMix has 64 people ask at once, through one cache, again and again; each policy says who is asking.
func TestDecisionsDoNotMix(t *testing.T) {
	p := compilePackage(t, `allow if input.request.path != "/none"
		claims := {"who": input.user.id, "where": input.request.path}
		headers := {"x-who": input.user.id}
		deny contains sprintf("not %s", [input.user.id]) if input.request.path == "/denied"`)
	p = withTimeout(p, time.Minute)
	c := NewCache(200, 1<<20) // fewer than there are keys
	var group sync.WaitGroup
	for n := range 64 {
		group.Go(func() {
			in := alice()
			in.User.ID, in.Session.ID = fmt.Sprint("user", n), fmt.Sprint("session", n)
			for i := range 50 {
				in.Request.Path = []string{"/a", "/b", "/denied", "/c"}[i%4]
				d := c.Decide(context.Background(), p, in)
				if d.Err != nil || d.Claims["who"] != in.User.ID || d.Claims["where"] != in.Request.Path || d.Headers["x-who"] != in.User.ID {
					t.Errorf("%s at %s got %+v", in.User.ID, in.Request.Path, d)
				}
				if denied := in.Request.Path == "/denied"; d.Allow == denied || denied && d.Reasons[0] != "not "+in.User.ID {
					t.Errorf("%s at %s got %+v", in.User.ID, in.Request.Path, d)
				}
			}
		})
	}
	group.Wait()
	c.checkSums(t)
}

// TestMemoryDoesNotGrow has the cache full and asks for more.
func TestMemoryDoesNotGrow(t *testing.T) {
	p := compilePackage(t, `allow if input.request.path != ""`)
	c, in := NewCache(1000, 1<<20), alice()
	ask := func(from, to int) {
		for i := from; i < to; i++ {
			in.Request.Path = fmt.Sprint("/", i)
			c.Decide(t.Context(), p, in)
		}
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	ask(0, 3000)
	before := heap()
	ask(3000, 12000)
	if grown := heap() - before; grown > 256<<10 {
		t.Errorf("the heap grew by %d KiB", grown>>10)
	}
}
