package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestExpiryEndsOpenStreams(t *testing.T) {
	s := newStreams(t, newStack, streamRoutes)
	s.write("doorward.yaml", s.read("doorward.yaml")+"\nsession: {lifetime: 4s}\n")
	s.served()
	b := s.browser()
	start := time.Now()
	b.signIn(s.url("grafana", "/"), "alice")
	cookie := b.cookie("grafana")
	socket, events := s.opened(cookie, "grafana", "/live"), s.eventStream(cookie, "grafana", "/events")
	socket.endsWithin("the WebSocket", 6*time.Second)
	events.endsWithin("the event stream", 2*time.Second)
	if lived := time.Since(start); lived < 3*time.Second {
		t.Errorf("the streams ended %v after the sign-in, want 4 s", lived)
	}
}

func TestStreamsOfOneSessionAreBounded(t *testing.T) {
	s := newStreams(t, newStack, streamRoutes)
	s.write("doorward.yaml", s.read("doorward.yaml")+"\nsession: {max_streams: 3}\n")
	s.served()
	alice, bob := s.browser(), s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	bob.signIn(s.url("grafana", "/"), "bob")
	cookie := alice.cookie("grafana")
	first := s.opened(cookie, "grafana", "/live")
	s.opened(cookie, "grafana", "/live")
	s.eventStream(cookie, "grafana", "/events")
	if c := s.webSocket(cookie, "grafana", "/live"); c.status != 429 {
		t.Errorf("the fourth: status %d, want 429", c.status)
	}
	s.opened(bob.cookie("grafana"), "grafana", "/live")
	first.conn.Close()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if c := s.webSocket(cookie, "grafana", "/live"); c.status == 101 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("a closed stream does not make room for another")
		}
	}
}

// TestStreamsNeedTheirService: with nobody behind streams.sock no stream opens, and everything else goes on.
func TestStreamsNeedTheirService(t *testing.T) {
	s := newStreams(t, newStack, streamRoutes)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	cookie := b.cookie("grafana")
	if err := os.Remove(filepath.Join(s.dir, "run", "streams.sock")); err != nil { // Envoy connects at the first stream
		t.Fatal(err)
	}
	before := len(s.grafana.requests())
	if c := s.webSocket(cookie, "grafana", "/live"); c.status != 503 {
		t.Errorf("WebSocket: status %d, want 503", c.status)
	}
	if c := s.request(cookie, "grafana", "/events", "Accept: text/event-stream"); c.status != 503 {
		t.Errorf("event stream: status %d, want 503", c.status)
	}
	if got := len(s.grafana.requests()); got != before {
		t.Errorf("%d requests reached the upstream", got-before)
	}
	if got := b.get(s.url("grafana", "/")); got.StatusCode != 200 {
		t.Errorf("an ordinary request: status %d, want 200", got.StatusCode)
	}
}

// TestDoorwardThatGoesEndsStreams: what nobody can end does not stay. Envoy runs apart and lives on.
func TestDoorwardThatGoesEndsStreams(t *testing.T) {
	s := newStreams(t, newStackApart, streamRoutes)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	cookie := b.cookie("grafana")
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		socket, events := s.opened(cookie, "grafana", "/live"), s.eventStream(cookie, "grafana", "/events")
		stranger := s.opened("", "grafana", "/public/live")
		s.stop(signal)
		socket.endsWithin(signal.String()+": the WebSocket", 2*time.Second)
		events.endsWithin(signal.String()+": the event stream", 2*time.Second)
		if !stranger.works() {
			t.Errorf("%v: a WebSocket of nobody ended too", signal)
		}
		s.start()
		s.opened(cookie, "grafana", "/live")
	}
}

// TestSoakManyOpenStreams: open WebSockets take nothing from ordinary requests, and little memory.
func TestSoakManyOpenStreams(t *testing.T) {
	many := 300
	if os.Getenv("DOORWARD_SOAK") != "" {
		many = 1500
	}
	s := newStreams(t, newStack, streamRoutes)
	s.write("doorward.yaml", s.read("doorward.yaml")+"\nsession: {max_streams: 2000}\n")
	s.served()
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	cookie := b.cookie("grafana")
	first := s.opened(cookie, "grafana", "/live")
	before := s.memory()
	sockets := make([]*connection, many)
	for i := range sockets {
		sockets[i] = s.opened(cookie, "grafana", "/live")
	}
	after := s.memory()
	t.Logf("%d open WebSockets: doorward holds %d KiB more, %d bytes each", many, (after-before)>>10, (after-before)/many)
	if each := (after - before) / many; each > 64<<10 && !raceEnabled {
		t.Errorf("doorward holds %d bytes for each open WebSocket, want at most 64 KiB", each)
	}
	start := time.Now()
	for range 200 {
		if got := b.get(s.url("grafana", "/")); got.StatusCode != 200 {
			t.Fatalf("an ordinary request: status %d\n%s", got.StatusCode, s.log)
		}
	}
	t.Logf("200 ordinary requests beside them took %v", time.Since(start).Round(time.Millisecond))
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("200 ordinary requests took %v", took)
	}
	if many > 300 {
		events := s.eventStream(cookie, "grafana", "/events")
		time.Sleep(40 * time.Second) // longer than any timeout that there is for ordinary requests
		for _, c := range append(sockets, first) {
			if !c.works() {
				t.Fatal("a WebSocket ended by itself")
			}
		}
		events.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if _, err := io.Copy(io.Discard, events.in); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("an event stream ended by itself: %v", err)
		}
	}
	s.openStreams(many + 1 + many/1500)
	b.get(s.url("grafana", "/.pomerium/sign_out"))
	start = time.Now()
	for _, c := range sockets {
		c.endsWithin("", time.Until(start.Add(5*time.Second)))
	}
	t.Logf("all ended within %v", time.Since(start).Round(time.Millisecond))
	s.openStreams(0)
}

// memory is what the program holds, in bytes.
func (s *stack) memory() int {
	s.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.program.Process.Pid))
	if err != nil {
		s.t.Skip("SKIPPED: memory is read from /proc")
	}
	_, rest, _ := strings.Cut(string(text), "VmRSS:")
	var kib int
	fmt.Sscanf(strings.TrimSpace(rest), "%d", &kib)
	return kib << 10
}
