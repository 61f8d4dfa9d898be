package xds

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Envoy knows more rules for its resources than their schema has.
func TestEnvoyTakesTheUpstreamGoldens(t *testing.T) {
	f := newFront(t, "")
	for _, name := range []string{"upstreams", "retries", "mirrors", "hsts", "upstream_tls"} {
		text, err := os.ReadFile("testdata/in/" + name + ".yaml")
		if err != nil {
			t.Fatal(err)
		}
		_, routes, _ := strings.Cut(string(text), "\nroutes:\n")
		for _, pem := range []string{"cert.pem", "key.pem"} {
			routes = strings.ReplaceAll(routes, ": "+pem, ": "+absolute(t, filepath.Join("testdata/in", pem)))
		}
		f.serve(strings.ReplaceAll(routes, ".example.com\"", ".localhost:PORT\""))
	}
}

// replica is one of several servers of an application, with a behaviour that can change.
type replica struct {
	address string
	asked   atomic.Int32
	status  atomic.Int32 // of the answers but those of /healthz
	sick    atomic.Bool  // what /healthz says
	mu      sync.Mutex
	seen    []*http.Request // but those to /healthz
}

func (f *front) replica(name string) *replica {
	f.t.Helper()
	r := new(replica)
	r.status.Store(200)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	r.address = l.Addr().String()
	server := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path == "/healthz" {
			if r.sick.Load() || req.Host != r.address {
				w.WriteHeader(503)
			}
			return
		}
		r.asked.Add(1)
		r.mu.Lock()
		r.seen = append(r.seen, req)
		r.mu.Unlock()
		if req.URL.Path == "/hang" {
			<-req.Context().Done()
			return
		}
		w.Header().Set("X-Proto", req.Proto)
		w.Header().Set("Strict-Transport-Security", "max-age=1")
		if status := int(r.status.Load()); status != 200 {
			w.WriteHeader(status)
			return
		}
		echo(name)(w, req)
	})}
	server.Protocols.SetHTTP1(true)
	server.Protocols.SetUnencryptedHTTP2(true)
	go server.Serve(l)
	f.t.Cleanup(func() { server.Close() })
	return r
}

func (r *replica) requests() []*http.Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.seen)
}

// shares asks n times and counts who answered; a status stands for an answer of nobody's.
func (f *front) shares(n int, path string, header ...string) map[string]int {
	f.t.Helper()
	out := make(map[string]int)
	c := f.client("", true)
	for range n {
		a := f.do(c, "GET", fmt.Sprintf("https://a.localhost:%d%s", f.https, path), header...)
		who := a.Seen.Upstream
		if who == "" {
			who = fmt.Sprint(a.Status)
		}
		out[who]++
	}
	return out
}

// only waits until every answer comes from one replica, or has one status.
func (f *front) only(who, path string) {
	f.t.Helper()
	f.eventually("only "+who+" answers", func() error {
		if got := f.shares(10, path); got[who] != 10 {
			return fmt.Errorf("answers are of %v", got)
		}
		return nil
	})
}

func TestEnvoySpeaksHTTP2WithoutTLS(t *testing.T) {
	f := newFront(t, "")
	r := f.replica("r")
	f.serve(fmt.Sprintf(`
  - {name: h2c, from: "https://a.localhost:PORT", to: "h2c://%[1]s", policy: public}
  - {name: http, from: "https://a.localhost:PORT", prefix: /http, to: "http://%[1]s", policy: public}
`, r.address))
	for path, want := range map[string]string{"/": "HTTP/2.0", "/http": "HTTP/1.1"} {
		if a := f.get("a.localhost", path); a.Header.Get("X-Proto") != want || a.Seen.Host != r.address {
			t.Errorf("%s: %s for %s, want %s", path, a.Header.Get("X-Proto"), a.Seen.Host, want)
		}
	}
}

func TestEnvoyLeavesSickEndpointsAlone(t *testing.T) {
	f := newFront(t, "")
	one, two := f.replica("one"), f.replica("two")
	one.sick.Store(true)
	f.serve(fmt.Sprintf(`
  - name: a
    from: "https://a.localhost:PORT"
    to: [{url: "http://%s", weight: 3}, {url: "http://%s", weight: 1}]
    health_check: {path: /healthz, interval: 100ms, timeout: 200ms, healthy_threshold: 1, unhealthy_threshold: 2}
    policy: public
`, one.address, two.address))
	f.only("two", "/")
	one.sick.Store(false)
	f.eventually("one is used again", func() error {
		if got := f.shares(40, "/"); got["one"] < 20 || got["one"] > 38 || got["one"]+got["two"] != 40 {
			return fmt.Errorf("answers are of %v, want 3 to 1", got)
		}
		return nil
	})
	two.sick.Store(true)
	f.only("one", "/")
	one.sick.Store(true)
	f.only("503", "/") // rather than an answer of a sick one
	two.sick.Store(false)
	f.only("two", "/")
}

func TestEnvoyEjectsWhoAnswersWithErrors(t *testing.T) {
	f := newFront(t, "")
	one, two := f.replica("one"), f.replica("two")
	f.serve(fmt.Sprintf(`
  - name: a
    from: "https://a.localhost:PORT"
    to: ["http://%s", "http://%s"]
    outlier_detection: {consecutive_5xx: 3, interval: 100ms, base_ejection_time: 1s}
    policy: public
`, one.address, two.address))
	if got := f.shares(20, "/"); got["one"] != 10 || got["two"] != 10 {
		t.Errorf("answers are of %v, want half and half", got)
	}
	one.status.Store(500)
	if got := f.shares(40, "/"); got["500"] < 3 || got["500"] > 8 { // each of Envoy's threads has a turn of its own
		t.Errorf("answers are %v; one is ejected after 3 errors", got)
	}
	one.status.Store(200)
	f.eventually("it comes back", func() error {
		if got := f.shares(20, "/"); got["one"] != 10 {
			return fmt.Errorf("answers are of %v", got)
		}
		return nil
	})
	one.status.Store(500)
	two.status.Store(500)
	f.shares(40, "/")
	if got := f.shares(10, "/"); got["500"] != 10 {
		t.Errorf("when all fail: %v; half of the endpoints at most are ejected", got)
	}
}

func TestEnvoyTriesAgain(t *testing.T) {
	f := newFront(t, "")
	r := f.replica("r")
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	f.serve(fmt.Sprintf(`
  - {name: unseen, from: "https://a.localhost:PORT", to: ["http://%[2]s", "http://%[1]s"], retry: {}, policy: public}
  - {name: safe, from: "https://a.localhost:PORT", prefix: /safe, to: ["http://%[2]s", "http://%[1]s"], retry: {on: [gateway_error], statuses: [429], attempts: 3}, policy: public}
  - {name: all, from: "https://a.localhost:PORT", prefix: /all, to: "http://%[1]s", retry: {on: [gateway_error], attempts: 3, unsafe_methods: true}, policy: public}
  - {name: unasked, from: "https://a.localhost:PORT", prefix: /unasked, to: "http://%[1]s", policy: public}
`, r.address, dead))
	c := f.client("", true)
	ask := func(method, path string) int {
		return f.do(c, method, fmt.Sprintf("https://a.localhost:%d%s", f.https, path)).Status
	}
	for _, method := range []string{"GET", "POST"} {
		for range 10 { // half of them meet the dead one first
			if status := ask(method, "/"); status != 200 {
				t.Errorf("%s with a dead endpoint: %d", method, status)
			}
			if status := ask(method, "/safe"); status != 200 {
				t.Errorf("%s with a dead endpoint, of another reason: %d", method, status)
			}
		}
	}
	for _, req := range r.requests() {
		if req.Header.Get("X-Pomerium-Jwt-Assertion") != "signed" {
			t.Fatalf("a request without its identity: %v", req.Header)
		}
	}
	for _, row := range []struct {
		method, path string
		status, want int
	}{
		{"GET", "/", 503, 1}, {"POST", "/", 503, 1},
		{"GET", "/safe", 503, 4}, {"HEAD", "/safe", 503, 4}, {"GET", "/safe", 429, 4}, {"GET", "/safe", 500, 1},
		{"POST", "/safe", 503, 1}, {"PUT", "/safe", 503, 1}, {"DELETE", "/safe", 429, 1},
		{"GET", "/all", 503, 4}, {"POST", "/all", 503, 4},
		{"GET", "/unasked", 503, 1}, {"POST", "/unasked", 503, 1},
	} {
		r.status.Store(int32(row.status))
		r.asked.Store(0)
		f.eventually("the live one is asked", func() error { // a try that meets the dead one is answered by the other, or not at all
			if status := ask(row.method, row.path); status != row.status {
				return fmt.Errorf("answered %d", status)
			}
			if r.asked.Load() == 0 {
				return errors.New("not asked")
			}
			return nil
		})
		got := int(r.asked.Load())
		if row.path == "/safe" && row.want > 1 && got >= 2 {
			continue // some of the tries met the dead one
		}
		if got != row.want {
			t.Errorf("%s %s answered with %d: %d requests, want %d", row.method, row.path, row.status, got, row.want)
		}
	}
	for _, req := range r.requests() {
		if req.Header.Get("X-Pomerium-Jwt-Assertion") != "signed" {
			t.Fatalf("a request that was sent again lost its identity: %v", req.Header)
		}
	}
}

// Names like localhost have two addresses, and many applications listen at one of them.
func TestEnvoyTriesEachAddressOfAName(t *testing.T) {
	f := newFront(t, "")
	_, port, _ := strings.Cut(f.replica("r").address, ":")
	f.serve(fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", to: "http://localhost:%s", policy: public}
`, port))
	f.eventually("the name is resolved", func() error {
		if got := f.shares(1, "/"); got["r"] != 1 {
			return fmt.Errorf("answered by %v", got)
		}
		return nil
	})
	if got := f.shares(100, "/"); got["r"] != 100 {
		t.Errorf("answers are of %v", got)
	}
}

// What is kept of a body for another try, or a copy, has a bound; more is neither refused nor held up.
func TestEnvoyPassesLargeBodies(t *testing.T) {
	const large = 20 << 20
	f := newFront(t, "")
	var got atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and reads nothing
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { silent.Close() })
	f.serve(fmt.Sprintf(`
  - {name: plain, from: "https://a.localhost:PORT", to: "http://%[1]s", policy: public}
  - {name: retry, from: "https://a.localhost:PORT", prefix: /retry, to: "http://%[1]s", retry: {on: [5xx], unsafe_methods: true}, policy: public}
  - {name: mirror, from: "https://a.localhost:PORT", prefix: /mirror, to: "http://%[1]s", mirror: [{to: "http://%[2]s"}], policy: public}
  - {name: stuck, from: "https://a.localhost:PORT", prefix: /stuck, to: "http://%[1]s", mirror: [{to: "http://%[3]s"}], policy: public}
`, l.Addr(), f.replica("mirror").address, silent.Addr()))
	for path, size := range map[string]int64{"/": large, "/retry": large, "/mirror": large, "/stuck": mirrorBuffer} {
		got.Store(0)
		response, err := f.client("", true).Post(fmt.Sprintf("https://a.localhost:%d%s", f.https, path), "text/plain", io.LimitReader(zeros{}, size))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		response.Body.Close()
		if response.StatusCode != 200 || got.Load() != size {
			t.Errorf("%s: %d after %d bytes, want %d", path, response.StatusCode, got.Load(), size)
		}
	}
	if size := f.memory(); size > 16 {
		t.Errorf("Envoy keeps %.1f MiB", size)
	}
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func TestEnvoyBreaksTheCircuit(t *testing.T) {
	f := newFront(t, "")
	r := f.replica("r")
	f.serve(fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", to: "h2c://%[1]s", circuit_breaker: {max_requests: 2}, policy: public}
  - {name: b, from: "https://b.localhost:PORT", to: "http://%[1]s", policy: public}
`, r.address))
	for range 2 {
		c := f.client("", true)
		c.Timeout = 5 * time.Second
		go try(c, "GET", fmt.Sprintf("https://a.localhost:%d/hang", f.https))
	}
	f.eventually("two requests are open", func() error {
		if n := r.asked.Load(); n != 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	start := time.Now()
	a := f.get("a.localhost", "/")
	if took := time.Since(start); a.Status != 503 || a.Body != bodyUpstream || took > 500*time.Millisecond {
		t.Errorf("the third: %d %q after %v, want 503 at once", a.Status, a.Body, took)
	}
	if a := f.get("b.localhost", "/"); a.Status != 200 {
		t.Errorf("another route to the same upstream: %d", a.Status)
	}
}

func TestEnvoyMirrors(t *testing.T) {
	f := newFront(t, "underscore_headers: keep")
	app, bare, whole := f.replica("app"), f.replica("bare"), f.replica("whole")
	f.serve(fmt.Sprintf(`
  - name: a
    from: "https://a.localhost:PORT"
    to: "http://%s"
    set_request_headers: {X-Api-Key: "of the app"}
    mirror: [{to: "http://%s"}, {to: "http://%s", with_identity: true}]
    policy: any_authenticated_user
`, app.address, bare.address, whole.address))
	a := f.do(f.client("", true), "POST", fmt.Sprintf("https://a.localhost:%d/x?y=z", f.https), "Cookie", "app=1", "Authorization", "Basic eDp5", "X-Plain", "1")
	if a.Status != 200 || a.Seen.Upstream != "app" {
		t.Fatalf("the answer is %d from %q", a.Status, a.Seen.Upstream)
	}
	secret := []string{"Cookie", "Authorization", "X-Pomerium-Jwt-Assertion", "X-Api-Key"}
	for _, row := range []struct {
		mirror *replica
		whole  bool
	}{{bare, false}, {whole, true}} {
		f.eventually("a copy arrives", func() error {
			if n := len(row.mirror.requests()); n != 1 {
				return fmt.Errorf("%d requests", n)
			}
			return nil
		})
		req := row.mirror.requests()[0]
		if req.Method != "POST" || req.RequestURI != "/x?y=z" || req.Host != row.mirror.address || req.Header.Get("X-Plain") != "1" {
			t.Errorf("the copy is %s %s for %s, %v", req.Method, req.RequestURI, req.Host, req.Header)
		}
		for _, name := range secret {
			if got := req.Header.Get(name); (got != "") != row.whole {
				t.Errorf("with_identity %v: %s is %q", row.whole, name, got)
			}
		}
	}
	// What is denied has no copy, and a mirror that is down changes nothing.
	f.get("a.localhost", "/denied/403")
	for range 5 {
		f.get("a.localhost", "/")
	}
	f.eventually("the others arrive", func() error {
		if n := len(bare.requests()); n != 6 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
}

func TestEnvoyKeepsToOneEndpoint(t *testing.T) {
	f := newFront(t, "")
	var to []string
	for i := range 4 {
		to = append(to, fmt.Sprintf("\"http://%s\"", f.replica(fmt.Sprint("r", i)).address))
	}
	list := "[" + strings.Join(to, ", ") + "]"
	f.serve(fmt.Sprintf(`
  - {name: header, from: "https://a.localhost:PORT", prefix: /header, to: %[1]s, load_balancing: ring_hash, hash_on: {header: X-Tenant}, policy: public}
  - {name: cookie, from: "https://a.localhost:PORT", prefix: /cookie, to: %[1]s, load_balancing: maglev, hash_on: {cookie: at}, policy: public}
  - {name: address, from: "https://a.localhost:PORT", prefix: /address, to: %[1]s, load_balancing: ring_hash, hash_on: {client_ip: true}, policy: public}
  - {name: random, from: "https://a.localhost:PORT", to: %[1]s, load_balancing: random, policy: public}
`, list))
	homes := make(map[string]bool)
	for i := range 20 {
		got := f.shares(5, "/header", "X-Tenant", fmt.Sprint("tenant", i))
		if len(got) != 1 {
			t.Errorf("tenant %d is at %v", i, got)
		}
		for who := range got {
			homes[who] = true
		}
	}
	if len(homes) < 2 {
		t.Errorf("all tenants are at %v", homes)
	}
	if got := f.shares(20, "/address"); len(got) != 1 {
		t.Errorf("one address is at %v", got)
	}
	if got := f.shares(60, "/"); len(got) != 4 {
		t.Errorf("random ones are at %v", got)
	}
	first := f.get("a.localhost", "/cookie")
	set := first.Header.Get("Set-Cookie")
	for _, part := range []string{"at=", "Path=/", "HttpOnly", "Secure", "SameSite=Lax"} {
		if !strings.Contains(set, part) {
			t.Errorf("the cookie is %q, without %q", set, part)
		}
	}
	pair, _, _ := strings.Cut(set, ";")
	if got := f.shares(10, "/cookie", "Cookie", strings.ReplaceAll(pair, "\"", "")); len(got) != 1 || got[first.Seen.Upstream] != 10 {
		t.Errorf("with the cookie %q of %s: %v", pair, first.Seen.Upstream, got)
	}
}

func TestEnvoyVerifiesEachEndpoint(t *testing.T) {
	f := newFront(t, "")
	ca := filepath.Join(f.dir, "ca", "ca.pem")
	one, two, wrong := f.secureUpstream("one.localhost", nil), f.secureUpstream("two.localhost", nil), f.secureUpstream("other.localhost", nil)
	f.serve(fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", to: ["https://one.localhost:%s", "https://two.localhost:%s"], load_balancing: round_robin, tls_custom_ca_file: %[4]s, policy: public}
  - {name: b, from: "https://a.localhost:PORT", prefix: /b, to: ["https://one.localhost:%[1]s", "https://two.localhost:%[3]s"], load_balancing: round_robin, tls_custom_ca_file: %[4]s, policy: public}
  - {name: c, from: "https://a.localhost:PORT", prefix: /c, to: ["https://one.localhost:%[1]s", "https://two.localhost:%[3]s"], health_check: {path: /, interval: 100ms}, tls_custom_ca_file: %[4]s, policy: public}
`, one, two, wrong, ca))
	f.eventually("both names are resolved", func() error {
		if got := f.shares(10, "/"); got["one.localhost HTTP/2.0"] != 5 || got["two.localhost HTTP/2.0"] != 5 {
			return fmt.Errorf("answers are of %v", got)
		}
		return nil
	})
	f.only("one.localhost HTTP/2.0", "/c")
	f.eventually("both names are resolved", func() error {
		if got := f.shares(10, "/b"); got["one.localhost HTTP/2.0"] != 5 || got["503"] != 5 {
			return fmt.Errorf("answers are of %v; the second has another's certificate", got)
		}
		return nil
	})
}

func TestEnvoyIsStrictAboutTransport(t *testing.T) {
	f := newFront(t, "")
	r := f.replica("r")
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	f.serve(fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", to: "http://%[1]s", hsts: {max_age: 8760h, include_subdomains: true}, policy: public}
  - {name: dead, from: "https://a.localhost:PORT", prefix: /dead, to: "http://%[2]s", hsts: {max_age: 8760h, include_subdomains: true}, policy: public}
  - {name: moved, from: "https://a.localhost:PORT", prefix: /moved, redirect: {path: /}, hsts: {max_age: 8760h, include_subdomains: true}, policy: public}
  - {name: fixed, from: "https://a.localhost:PORT", prefix: /fixed, response: {status: 404}, hsts: {max_age: 8760h, include_subdomains: true}, policy: public}
  - {name: b, from: "https://b.localhost:PORT", prefix: /b, to: "http://%[1]s", hsts: {max_age: 0s}, policy: public}
  - {name: plain, from: "https://b.localhost:PORT", prefix: /plain, to: "http://%[1]s", policy: public}
`, r.address, dead))
	const year, forget, upstreams = "max-age=31536000; includeSubDomains", "max-age=0", "max-age=1"
	for _, row := range []struct {
		host, path string
		status     int
		want       string
	}{
		{"a", "/", 200, year}, {"a", "/dead", 503, year}, {"a", "/moved", 302, year}, {"a", "/fixed", 404, year},
		{"a", "/denied/403", 403, year}, {"a", "/denied/302", 302, year}, {"a", "/denied/401", 401, year},
		{"a", "/.pomerium/", 200, year}, {"a", "/x;a/b", 400, year},
		{"b", "/b", 200, forget}, {"b", "/plain", 200, upstreams}, {"b", "/none", 404, ""}, {"b", "/.pomerium/", 200, ""},
	} {
		a := f.get(row.host+".localhost", row.path)
		if got := strings.Join(a.Header.Values("Strict-Transport-Security"), " and "); a.Status != row.status || got != row.want {
			t.Errorf("%s%s: %d with %q, want %d with %q", row.host, row.path, a.Status, got, row.status, row.want)
		}
	}
	if a := f.do(f.client("", false), "GET", fmt.Sprintf("http://127.0.0.1:%d/", f.http), "Host", "a.localhost"); a.Header.Get("Strict-Transport-Security") != "" {
		t.Error("the header is sent over http too (RFC 6797, section 7.2)")
	}
	f.stopAuthz()
	if a := f.get("a.localhost", "/"); a.Status != 503 || a.Header.Get("Strict-Transport-Security") != year {
		t.Errorf("without authz: %d with %q", a.Status, a.Header.Get("Strict-Transport-Security"))
	}
}

func TestEnvoyIsNotHeldUp(t *testing.T) {
	dns, err := net.ListenPacket("udp", "127.0.0.1:0") // takes questions and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer dns.Close()
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	hanging := fmt.Sprintf(", health_check: {path: /healthz}, to: [\"http://%s\", \"http://%[1]s\"]", silent.Addr())
	for _, row := range []struct {
		name, slow string
		most       time.Duration
	}{
		{"a name that is not answered", `, to: "http://unanswered.example.com"`, time.Second},
		{"a checked name that is not answered", `, health_check: {path: /healthz}, to: "http://unanswered.example.com"`, time.Second},
		{"a health check that is not answered", hanging, 1500 * time.Millisecond},
		{"a ring of weights that are far apart", fmt.Sprintf(`, load_balancing: ring_hash, hash_on: {client_ip: true}, to: [{url: "http://%s", weight: 4294967294}, "http://127.0.0.1:1"]`,
			silent.Addr()), time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			f := newFrontBy(t, "", dns.LocalAddr().String())
			up := f.upstream("u")
			first := line("a", "a.localhost", up, "")
			f.serve(first)
			slow := `  - {name: slow, from: "https://slow.localhost:PORT", policy: public` + row.slow + "}\n"
			for _, step := range []struct{ what, host, routes string }{
				{"together with it", "b.localhost", first + slow + line("b", "b.localhost", up, "")},
				{"after it", "c.localhost", first + slow + line("b", "b.localhost", up, "") + line("c", "c.localhost", f.upstream("another"), "")},
			} {
				start := time.Now()
				f.serve(step.routes)
				if a := f.get(step.host, "/"); a.Status != 200 {
					t.Errorf("%s: %d", step.what, a.Status)
				}
				if took := time.Since(start); took > row.most {
					t.Errorf("%s: served after %v, want %v", step.what, took, row.most)
				} else {
					t.Logf("%s: served after %v", step.what, took)
				}
			}
			if strings.Contains(row.slow, "unanswered") {
				dns.SetReadDeadline(time.Now().Add(5 * time.Second))
				if _, _, err := dns.ReadFrom(make([]byte, 1024)); err != nil {
					t.Errorf("the name was not asked for: %v", err)
				}
			}
		})
	}
}
