package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// streamRoutes have WebSockets and event streams, with a session and without.
const streamRoutes = `
  - {name: open, from: "https://grafana.localhost:{{.Port}}", prefix: /public, to: "{{.Grafana}}", policy: public, allow_websockets: true, streams: true}
  - {name: live, from: "https://grafana.localhost:{{.Port}}", prefix: /live, to: "{{.Grafana}}", policy: grafana, allow_websockets: true, timeout: 1s}
  - {name: events, from: "https://grafana.localhost:{{.Port}}", prefix: /events, to: "{{.Grafana}}", policy: grafana, streams: true}
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: grafana}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: any_authenticated_user, allow_websockets: true}
`

// newStreams is a stack whose applications answer upgrades with an echo of lines, /events with a stream that never ends by itself, and
// everything else at once.
func newStreams(t *testing.T, start func(*testing.T, string) *stack, routes string) *stack {
	t.Helper()
	s := start(t, routes)
	for _, u := range []*application{s.grafana, s.wiki} {
		u.mu.Lock()
		u.app = http.HandlerFunc(streaming)
		u.mu.Unlock()
	}
	return s
}

func streaming(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Header.Get("Upgrade") != "":
		conn, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_, _ = io.Copy(conn, rw)
	case strings.HasSuffix(r.URL.Path, "/poll"):
		<-r.Context().Done()
	case strings.HasSuffix(r.URL.Path, "/events"):
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: begun\n\n")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	default:
		fmt.Fprintln(w, "an ordinary answer")
	}
}

// connection is an open WebSocket or event stream.
type connection struct {
	t      *testing.T
	conn   net.Conn
	in     *bufio.Reader
	status int
}

// request sends one over HTTP/1.1 with a browser's cookie, "" for none, and reads the status line and the headers of the answer.
func (s *stack) request(cookie, host, path string, lines ...string) *connection {
	s.t.Helper()
	name := host + ".localhost"
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	text := "GET " + path + " HTTP/1.1\r\nHost: " + fmt.Sprintf("%s:%d", name, s.port) + "\r\n"
	if cookie != "" {
		text += "Cookie: " + cookie + "\r\n"
	}
	if _, err := io.WriteString(conn, text+strings.Join(append(lines, ""), "\r\n")+"\r\n"); err != nil {
		s.t.Fatal(err)
	}
	c := &connection{t: s.t, conn: conn, in: bufio.NewReaderSize(conn, 512)}
	conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%s%s: %v\n%s", host, path, err, s.log)
		}
		if c.status == 0 {
			fmt.Sscanf(line, "HTTP/1.1 %d", &c.status)
		}
		if line == "\r\n" {
			return c
		}
	}
}

func (s *stack) webSocket(cookie, host, path string) *connection {
	s.t.Helper()
	return s.request(cookie, host, path, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
}

// opened is a WebSocket that works.
func (s *stack) opened(cookie, host, path string) *connection {
	s.t.Helper()
	c := s.webSocket(cookie, host, path)
	if c.status != 101 {
		s.t.Fatalf("WebSocket to %s%s: status %d, want 101\n%s", host, path, c.status, s.log)
	}
	if !c.works() {
		s.t.Fatalf("the WebSocket to %s%s does not work\n%s", host, path, s.log)
	}
	return c
}

// works says whether a line comes back.
func (c *connection) works() bool {
	c.conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c.conn, "ping\n"); err != nil {
		return false
	}
	line, err := c.in.ReadString('\n')
	return err == nil && line == "ping\n"
}

// endsWithin fails the test when the other side does not close.
func (c *connection) endsWithin(what string, most time.Duration) {
	c.t.Helper()
	start := time.Now()
	c.conn.SetReadDeadline(start.Add(most))
	_, err := io.Copy(io.Discard, c.in)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		c.t.Errorf("%s: still open after %v", what, most)
		return
	}
	c.t.Logf("%s: ended after %v", what, time.Since(start).Round(time.Millisecond))
}

// eventStream is an open event stream that has sent something.
func (s *stack) eventStream(cookie, host, path string) *connection {
	s.t.Helper()
	c := s.request(cookie, host, path, "Accept: text/event-stream")
	if c.status != 200 {
		s.t.Fatalf("event stream at %s%s: status %d, want 200\n%s", host, path, c.status, s.log)
	}
	for {
		line, err := c.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("event stream at %s%s: %v\n%s", host, path, err, s.log)
		}
		if strings.HasPrefix(line, "data: begun") {
			return c
		}
	}
}

func TestSignOutEndsOpenStreams(t *testing.T) {
	s := newStreams(t, newStack, streamRoutes)
	alice, bob := s.browser(), s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	alice.get(s.url("wiki", "/"))
	bob.signIn(s.url("grafana", "/"), "bob")
	onGrafana, onWiki, bobs := alice.cookie("grafana"), alice.cookie("wiki"), bob.cookie("grafana")

	socket := s.opened(onGrafana, "grafana", "/live")
	other := s.opened(onWiki, "wiki", "/")
	events := s.eventStream(onGrafana, "grafana", "/events")
	overHTTP2, poll := alice.follows("grafana", "/events"), alice.follows("grafana", "/events/poll")
	public := s.opened(onGrafana, "grafana", "/public/live")
	bobSocket := s.opened(bobs, "grafana", "/live")
	bobEvents := s.eventStream(bobs, "grafana", "/events")
	stranger := s.opened("", "grafana", "/public/live")
	strangerEvents := s.eventStream("", "grafana", "/public/events")
	time.Sleep(1200 * time.Millisecond) // past the route's timeout, which is for the answer to the upgrade
	if !socket.works() {
		t.Error("the WebSocket ended with the route's timeout")
	}

	alice.get(s.url("grafana", "/.pomerium/sign_out"))
	socket.endsWithin("the WebSocket", 2*time.Second)
	other.endsWithin("the WebSocket on another host", 2*time.Second)
	events.endsWithin("the event stream", 2*time.Second)
	if got := <-overHTTP2; got.status != 200 || got.err == nil {
		t.Errorf("the event stream over HTTP/2 ended with status %d and %v, want it to be cut off", got.status, got.err)
	}
	if got := <-poll; got.status != 503 {
		t.Errorf("the long poll ended with status %d, %v, want 503", got.status, got.err)
	}
	public.endsWithin("the WebSocket on a public route, opened with the session", 2*time.Second)
	if !bobSocket.works() {
		t.Error("another person's WebSocket ended too")
	}
	if !stranger.works() {
		t.Error("a WebSocket of nobody ended too")
	}
	for name, c := range map[string]*connection{"another person's event stream": bobEvents, "an event stream of nobody": strangerEvents} {
		c.conn.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, err := io.Copy(io.Discard, c.in)
		if timeout, ok := err.(net.Error); !ok || !timeout.Timeout() {
			t.Errorf("%s ended too: %v", name, err)
		}
	}

	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(path, "session", "revoke", "--user", "bob@example.com", "--config", s.config()).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	bobSocket.endsWithin("a WebSocket whose session the operator revokes", 2*time.Second)
	bobEvents.endsWithin("its event stream", 2*time.Second)
}

// follows asks over HTTP/2, as browsers do, and tells how the answer ended.
func (b *browser) follows(host, path string) <-chan ending {
	b.s.t.Helper()
	request, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodGet, b.s.url(host, path), nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	ended := make(chan ending, 1)
	before := len(b.s.grafana.requests())
	go func() {
		response, err := b.Do(request)
		if err != nil {
			ended <- ending{0, err}
			return
		}
		defer response.Body.Close()
		_, err = io.Copy(io.Discard, response.Body)
		ended <- ending{response.StatusCode, err}
	}()
	for deadline := time.Now().Add(5 * time.Second); len(b.s.grafana.requests()) == before; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			b.s.t.Fatalf("%s does not reach the application", path)
		}
	}
	return ended
}

type ending struct {
	status int
	err    error
}

func TestStrangersOpenNoStreams(t *testing.T) {
	s := newStreams(t, newStack, streamRoutes)
	for _, path := range []string{"/live", "/events"} {
		if c := s.webSocket("", "grafana", path); c.status != 401 && c.status != 403 {
			t.Errorf("WebSocket to %s: status %d", path, c.status)
		}
		if c := s.request("", "grafana", path, "Accept: text/event-stream"); c.status != 401 {
			t.Errorf("%s: status %d, want 401", path, c.status)
		}
	}
	if n := len(s.grafana.requests()); n != 0 {
		t.Errorf("%d requests of strangers reached the upstream", n)
	}
	if n := s.envoyStats("ext_proc.doorward.streams_started"); total(n) != 0 {
		t.Errorf("a denied request opened a stream to doorward: %v", n)
	}
}

func total(stats map[string]uint64) (n uint64) {
	for _, v := range stats {
		n += v
	}
	return n
}

// TestOrdinaryRequestsOpenNoStream: the stream is for what lives long, and costs more than a check.
func TestOrdinaryRequestsOpenNoStream(t *testing.T) {
	s := newStreams(t, newStack, streamRoutes)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	for _, path := range []string{"/", "/live/ordinary"} {
		if got := b.get(s.url("grafana", path)); got.StatusCode != 200 {
			t.Errorf("%s: status %d", path, got.StatusCode)
		}
	}
	const started = "ext_proc.doorward.streams_started"
	if n := s.envoyStats(started); total(n) != 0 {
		t.Errorf("ordinary requests opened streams to doorward: %v", n)
	}
	s.opened(b.cookie("grafana"), "grafana", "/live")
	if n := s.envoyStats(started); total(n) != 1 {
		t.Errorf("a WebSocket opened %v, want one stream", n)
	}
	for range 5 { // which end by themselves
		if got := b.get(s.url("grafana", "/events/ordinary")); got.StatusCode != 200 || got.text != "an ordinary answer\n" {
			t.Errorf("on a route with streams: %d %q", got.StatusCode, got.text)
		}
	}
	s.openStreams(1)
	if n := s.envoyStats(started); total(n) != 6 {
		t.Errorf("five requests of a route with streams and a WebSocket opened %v", n)
	}
	if got := b.get(s.url("grafana", "/other")); got.StatusCode != 200 {
		t.Errorf("status %d", got.StatusCode)
	}
	if n := s.envoyStats(started); total(n) != 6 {
		t.Errorf("another route opened %v", n)
	}
}

// openStreams waits until doorward watches so many.
func (s *stack) openStreams(want int) {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(s.dir, "data", controlSocket))
	}}}
	defer client.CloseIdleConnections()
	var text []byte
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		response, err := client.Get("http://doorward/metrics")
		if err != nil {
			s.t.Fatal(err)
		}
		text, _ = io.ReadAll(response.Body)
		response.Body.Close()
		if strings.Contains(string(text), fmt.Sprintf("\ndoorward_streams_open %d\n", want)) {
			return
		}
	}
	_, at, _ := strings.Cut(string(text), "\ndoorward_streams_open ")
	at, _, _ = strings.Cut(at, "\n")
	s.t.Errorf("doorward watches %s streams, want %d", at, want)
}

// TestTrailersPassWhereStreamsAreWatched: as gRPC's do.
func TestTrailersPassWhereStreamsAreWatched(t *testing.T) {
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Trailer", "X-Sum")
		fmt.Fprintln(w, "body")
		w.(http.Flusher).Flush()
		w.Header().Set("X-Sum", "4")
	}))
	upstream.EnableHTTP2 = true
	upstream.StartTLS()
	t.Cleanup(upstream.Close)
	s := newStack(t, `
  - {name: rpc, from: "https://grafana.localhost:{{.Port}}", to: "`+upstream.URL+`", tls_skip_verify: true, policy: any_authenticated_user, streams: true}
`)
	b := s.browser()
	if got := b.signIn(s.url("grafana", "/"), "alice"); got.text != "body\n" || got.Trailer.Get("X-Sum") != "4" {
		t.Errorf("got %q with the trailers %v, want X-Sum: 4", got.text, got.Trailer)
	}
	s.openStreams(0)
}
