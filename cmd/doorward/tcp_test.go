package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// tcpRoutes have TCP services on hosts of their own, one of them beside an application. SERVICE stands for the service's address.
const tcpRoutes = `
  - {name: db, from: "tcp+https://db.localhost:5432", to: "tcp://SERVICE", policy: grafana}
  - {name: console, from: "https://db.localhost:{{.Port}}", to: "{{.Grafana}}", policy: any_authenticated_user, allow_websockets: true}
  - {name: open, from: "tcp+https://open.localhost:7", to: "tcp://SERVICE", policy: public}
  - {name: robots, from: "tcp+https://robots.localhost:7", to: "tcp://SERVICE", policy: any_authenticated_user, unauthenticated: "401", bearer: {service_tokens: true}}
  - {name: short, from: "tcp+https://short.localhost:7", to: "tcp://SERVICE", policy: public, idle_timeout: 1s}
  - {name: gone, from: "tcp+https://gone.localhost:7", to: "tcp://127.0.0.1:1", policy: public}
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: any_authenticated_user, allow_websockets: true}
`

// echo is a TCP service that sends back what it gets, and once its client has ended, how much that was. It ends first when it is told bye.
type echo struct {
	net.Listener
	mu    sync.Mutex // guards first
	first []string   // the first bytes of each connection that sent any
}

func newEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	e := &echo{Listener: l}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go e.serve(conn)
		}
	}()
	return e
}

func (e *echo) serve(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	if _, err := in.Peek(1); err == nil {
		first, _ := in.Peek(in.Buffered())
		e.mu.Lock()
		e.first = append(e.first, string(first))
		e.mu.Unlock()
	}
	if first, err := in.Peek(4); err == nil && string(first) == "bye\n" {
		io.WriteString(conn, "bye\n")
		return
	}
	n, err := io.Copy(conn, in)
	if err == nil {
		fmt.Fprintf(conn, "that was %d bytes\n", n)
	}
}

func (e *echo) seen() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.first...)
}

func newServices(t *testing.T) (*stack, *echo) {
	t.Helper()
	e := newEcho(t)
	return newStack(t, strings.ReplaceAll(tcpRoutes, "SERVICE", e.Addr().String())), e
}

// client is a running doorward tcp.
type client struct {
	s      *stack
	cmd    *exec.Cmd
	said   *syncBuffer
	exited chan error
	home   string
}

// connect runs doorward tcp for a host, with a home directory of its own, which another run may have used.
func (s *stack) connect(service, home string, flags ...string) *client {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	c := &client{s: s, said: new(syncBuffer), exited: make(chan error, 1), home: home}
	args := []string{"tcp", service, "--edge", fmt.Sprintf("localhost:%d", s.port), "--ca-file", filepath.Join(s.dir, "data", "ca", "ca.pem"), "--no-browser"}
	c.cmd = exec.Command(path, append(args, flags...)...)
	c.cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+home)
	c.cmd.Stderr = c.said
	return c
}

func (c *client) start() *client {
	c.s.t.Helper()
	if err := c.cmd.Start(); err != nil {
		c.s.t.Fatal(err)
	}
	go func() { c.exited <- c.cmd.Wait(); close(c.exited) }()
	c.s.t.Cleanup(func() {
		if c.cmd.Process.Signal(syscall.SIGTERM) == nil {
			c.ends()
		}
	})
	return c
}

// ends waits until the program has ended.
func (c *client) ends() error {
	c.s.t.Helper()
	select {
	case err := <-c.exited:
		return err
	case <-time.After(10 * time.Second):
		c.cmd.Process.Kill()
		c.s.t.Errorf("doorward tcp did not end\n%s", c.said)
		return nil
	}
}

// says waits until the program has said something and returns the expression's first group.
func (c *client) says(expression string) string {
	c.s.t.Helper()
	wanted := regexp.MustCompile(expression)
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if m := wanted.FindStringSubmatch(c.said.String()); m != nil {
			return m[len(m)-1]
		}
	}
	c.s.t.Fatalf("doorward tcp does not say %q but:\n%s\n%s", expression, c.said, c.s.log)
	return ""
}

// address is where it listens.
func (c *client) address() string { c.s.t.Helper(); return c.says(`listening on (\S+)`) }

const asksToSignIn = `sign in at\s+(https://\S+)`

// lets says yes to the question that a browser which is signed in shows at an address, and goes where that leads: to the program.
func (b *browser) lets(page answer) answer {
	b.s.t.Helper()
	form := url.Values{}
	for _, m := range hidden.FindAllStringSubmatch(page.text, -1) {
		form.Set(m[1], m[2])
	}
	if form.Get("challenge") == "" {
		b.s.t.Fatalf("no question but %s\n%s", page.Request.URL, page.text)
	}
	to, _ := page.Request.URL.Parse("/.pomerium/cli")
	req, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		b.s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Sec-Fetch-Site", "same-origin")
	next := b.do(req)
	m := regexp.MustCompile(`href="(http://127\.0\.0\.1:[^"]*)"`).FindStringSubmatch(next.text)
	if m == nil {
		b.s.t.Fatalf("the browser is not sent to the program: %d\n%s", next.StatusCode, next.text)
	}
	return b.get(strings.ReplaceAll(m[1], "&amp;", "&"))
}

// dial opens a connection by way of a running doorward tcp.
func dial(t *testing.T, address string) *net.TCPConn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.TCPConn)
}

// echoes says whether a line comes back.
func echoes(conn net.Conn) bool {
	if _, err := io.WriteString(conn, "ping\n"); err != nil {
		return false
	}
	line := make([]byte, 5)
	_, err := io.ReadFull(conn, line)
	return err == nil && string(line) == "ping\n"
}

func TestTCPService(t *testing.T) {
	s, service := newServices(t)
	c := s.connect("db.localhost:5432", t.TempDir(), "--listen", "127.0.0.1:0").start()
	alice := s.browser()
	page := alice.signIn(c.says(asksToSignIn), "alice")
	if want := "A program on this computer asks to connect to"; !strings.Contains(page.text, want) || !strings.Contains(page.text, "alice@example.com") {
		t.Errorf("the question is not asked: %s", page.text)
	}
	if got := alice.lets(page); got.StatusCode != 200 || !strings.Contains(got.text, "You can close this page") {
		t.Errorf("at the program: %d %s", got.StatusCode, got.text)
	}
	c.says("signed in to db.localhost as alice@example.com, until")
	at := c.address()

	t.Run("bytes both ways, and the client ends first", func(t *testing.T) {
		conn := dial(t, at)
		sent := make([]byte, 1<<20)
		rand.Read(sent)
		go func() {
			conn.Write(sent)
			conn.CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, append(sent, "that was 1048576 bytes\n"...)) {
			t.Errorf("got %d bytes, %v\n%s", len(got), err, c.said)
		}
	})
	t.Run("the service ends first", func(t *testing.T) {
		conn := dial(t, at)
		io.WriteString(conn, "bye\n")
		if got, err := io.ReadAll(conn); err != nil || string(got) != "bye\n" {
			t.Errorf("got %q, %v\n%s", got, err, c.said)
		}
		s.openStreams(0)
	})
	t.Run("no header reaches the service", func(t *testing.T) {
		for _, first := range service.seen() {
			if strings.Contains(first, "HTTP/") || strings.Contains(strings.ToLower(first), "cookie") {
				t.Errorf("it got %q", first)
			}
		}
	})
	var open []*net.TCPConn
	for range 20 {
		open = append(open, dial(t, at))
	}
	for i, conn := range open {
		if !echoes(conn) {
			t.Fatalf("connection %d of 20 does not work\n%s", i, c.said)
		}
	}
	s.openStreams(20)
	s.revoke("alice@example.com")
	start := time.Now()
	for i, conn := range open {
		conn.SetReadDeadline(start.Add(2 * time.Second))
		if _, err := io.Copy(io.Discard, conn); err != nil && strings.Contains(err.Error(), "timeout") {
			t.Fatalf("connection %d is still open 2 s after its session was revoked", i)
		}
	}
	t.Logf("20 connections ended %v after the session", time.Since(start).Round(time.Millisecond))
	c.says("ended by the edge: the session may have ended")

	bob := s.browser()
	before := strings.Count(c.said.String(), "sign in at")
	conn := dial(t, at)
	for deadline := time.Now().Add(10 * time.Second); strings.Count(c.said.String(), "sign in at") == before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after the session's end nobody is asked to sign in\n%s", c.said)
		}
	}
	all := regexp.MustCompile(asksToSignIn).FindAllStringSubmatch(c.said.String(), -1)
	bob.lets(bob.signIn(all[len(all)-1][1], "bob"))
	if !echoes(conn) {
		t.Errorf("the connection does not work after the sign-in\n%s", c.said)
	}
	again := s.connect("db.localhost:5432", c.home, "--listen", "127.0.0.1:0").start()
	if !echoes(dial(t, again.address())) {
		t.Errorf("the sign-in that was kept does not work\n%s", again.said)
	}
	again.says("connecting to db.localhost:5432 as bob@example.com")
	c.cmd.Process.Signal(syscall.SIGTERM)
	if err := c.ends(); err != nil {
		t.Errorf("ended with %v", err)
	}
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := conn.Read(make([]byte, 1)); err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("an open connection after the program's end: %v", err)
	}
	kept, err := filepath.Glob(filepath.Join(c.home, "doorward", "tcp", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept %v, %v", kept, err)
	}
	if info, err := os.Stat(kept[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the credential has mode %v, %v", info.Mode(), err)
	}
}

// revoke ends every session of a user, as the operator does.
func (s *stack) revoke(user string) {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	if out, err := exec.Command(path, "session", "revoke", "--user", user, "--config", s.config()).CombinedOutput(); err != nil {
		s.t.Fatalf("%v\n%s", err, out)
	}
}

// asks sends a request over TLS and HTTP/1.1 as it stands, for a server name, and returns the status line, the headers and what of the body comes at once.
func (s *stack) asks(name, request string) string {
	s.t.Helper()
	c := s.overTLS(name)
	if _, err := io.WriteString(c, request); err != nil {
		s.t.Fatal(err)
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Second))
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		s.t.Fatalf("%q: %v\n%s", request, err, s.log)
	}
	defer response.Body.Close()
	body, _ := io.ReadAll(response.Body)
	return fmt.Sprintf("%d %s", response.StatusCode, body)
}

func (s *stack) overTLS(name string) *tls.Conn {
	s.t.Helper()
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// TestNothingBypassesCONNECT sends what a stranger might.
func TestNothingBypassesCONNECT(t *testing.T) {
	s, service := newServices(t)
	b := s.browser()
	b.signIn(s.url("db", "/"), "alice")
	b.get(s.url("grafana", "/"))
	onDB := "Cookie: " + b.cookie("db") + "\r\n"
	connect := func(authority string, headers ...string) string {
		return "CONNECT " + authority + " HTTP/1.1\r\nHost: " + authority + "\r\n" + strings.Join(headers, "") + "\r\n"
	}
	upgrade := func(kind string) string {
		return "GET / HTTP/1.1\r\nHost: db.localhost\r\nConnection: Upgrade\r\nUpgrade: " + kind + "\r\n" + onDB + "\r\n"
	}
	stranger := fmt.Sprintf(`"sign_in":"https://db.localhost:%d/.pomerium/cli"`, s.port)
	for name, c := range map[string]struct{ sni, request, want string }{
		"a stranger":                          {"db.localhost", connect("db.localhost:5432"), stranger},
		"without a port":                      {"db.localhost", connect("db.localhost"), "400 "},
		"as if to sign in as a page":          {"db.localhost", connect("db.localhost:5432", "Accept: text/html\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n"), stranger},
		"with the cookie of the host's pages": {"db.localhost", connect("db.localhost:5432", onDB), stranger},
		"with identity headers":               {"db.localhost", connect("db.localhost:5432", "X-Pomerium-Jwt-Assertion: x\r\nX-Doorward-Sni: db.localhost\r\n"), stranger},
		"a service that only tokens open":     {"robots.localhost", connect("robots.localhost:7"), `401 {"error":"unauthenticated","message":"sign in to use this","decision_id":`},
		"another server name":                 {"grafana.localhost", connect("db.localhost:5432"), "421 421: no application of this name is served here"},
		"another server name, said right":     {"grafana.localhost", connect("db.localhost:5432", "X-Doorward-Sni: db.localhost\r\n"), "421 421: no application of this name is served here"},
		"a host without a service":            {"grafana.localhost", connect("grafana.localhost:443"), "421 421: no application of this name is served here"},
		"the sign-in host":                    {"auth.localhost", connect("auth.localhost:443"), "421 421: no application of this name is served here"},
		"a host that is not here":             {"grafana.localhost", connect("evil.example:443"), "421 421: no application of this name is served here"},
		"an address inside":                   {"grafana.localhost", connect("127.0.0.1:22"), "421 421: no application of this name is served here"},
		"CONNECT as an upgrade":               {"db.localhost", upgrade("CONNECT"), "403 "},
		"connect-udp as an upgrade":           {"db.localhost", upgrade("connect-udp"), "404 "},
		"the service's host as a page":        {"open.localhost", "GET /x HTTP/1.1\r\nHost: open.localhost\r\n\r\n", "404 "},
		"its start":                           {"open.localhost", "GET / HTTP/1.1\r\nHost: open.localhost\r\n\r\n", "302 "},
	} {
		if got := s.asks(c.sni, c.request); !strings.Contains(got, c.want) {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
	if seen := service.seen(); len(seen) != 0 {
		t.Errorf("the service got %q", seen)
	}
	if n := s.envoyStats("cluster.tcp://" + service.Addr().String() + ".upstream_cx_total"); total(n) != 0 {
		t.Errorf("connections to the service: %v", n)
	}
	c := s.overTLS("open.localhost") // the public one, so that this test does not pass because nothing works
	io.WriteString(c, connect("open.localhost:7", "X-Pomerium-Jwt-Assertion: x\r\n"))
	in := bufio.NewReader(c)
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if line, err := in.ReadString('\n'); err != nil || !strings.HasPrefix(line, "HTTP/1.1 200 ") {
		t.Fatalf("the public service: %q, %v", line, err)
	}
	for line := ""; line != "\r\n"; {
		line, _ = in.ReadString('\n')
	}
	io.WriteString(c, "ping\n")
	if line, err := in.ReadString('\n'); err != nil || line != "ping\n" {
		t.Errorf("the public service sends %q, %v", line, err)
	}
	if seen := service.seen(); len(seen) != 1 || seen[0] != "ping\n" {
		t.Errorf("the service got %q", seen)
	}
}

func TestTCPDenied(t *testing.T) {
	s, service := newServices(t)
	c := s.connect("db.localhost:5432", t.TempDir(), "--no-store").start()
	mallory := s.browser()
	mallory.lets(mallory.signIn(c.says(asksToSignIn), "mallory"))
	id := c.says(`denied: you are in no group that may use Grafana \(decision ([0-9a-f-]{36})\)`)
	if err := c.ends(); err == nil {
		t.Error("it ended as if all was well")
	}
	if seen := service.seen(); len(seen) != 0 {
		t.Errorf("the service got %q", seen)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "explain", id, "--config", s.config()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "tcp+https://db.localhost:5432, CONNECT") {
		t.Errorf("explain %s: %v\n%s", id, err, out)
	}
	if kept, _ := filepath.Glob(filepath.Join(c.home, "doorward", "*")); len(kept) != 0 {
		t.Errorf("kept %v", kept)
	}
	for flags, want := range map[string]string{
		"--listen 0.0.0.0:5432": "whoever reaches it would connect as you",
		"--listen db:5432":      "write it as 127.0.0.1:5432",
		"--edge nowhere":        "write it as edge.example.com:8443",
	} {
		c := s.connect("db.localhost:5432", t.TempDir(), strings.Fields(flags)...)
		if err := c.start().ends(); err == nil || !strings.Contains(c.said.String(), want) {
			t.Errorf("%s: %v, %s", flags, err, c.said)
		}
	}
}

// TestTCPOverStandardInput is how ssh uses it. The services here ask for no sign-in, or for a token.
func TestTCPOverStandardInput(t *testing.T) {
	s, _ := newServices(t)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	made, err := exec.Command(path, "token", "create", "ci", "--routes", "robots", "--config", s.config()).Output()
	if err != nil {
		t.Fatal(err)
	}
	s.write("token", string(made))
	s.write("wrong", "dw_nobody\n")
	for name, c := range map[string]struct {
		service, flags string
		want, said     string
	}{
		"public":              {"open.localhost:7", "", "hello\nthat was 6 bytes\n", ""},
		"with a token":        {"robots.localhost:7", "--token-file " + s.dir + "/token", "hello\nthat was 6 bytes\n", ""},
		"without one":         {"robots.localhost:7", "", "", "refused with status 401: sign in to use this (decision "},
		"with a wrong one":    {"robots.localhost:7", "--token-file " + s.dir + "/wrong", "", "refused with status 401: the bearer token is not good here (decision "},
		"a service gone":      {"gone.localhost:7", "", "", "refused with status 503: The application did not answer."},
		"no such host":        {"nobody.localhost:7", "", "", "tls:"},
		"no such service":     {"grafana.localhost:7", "", "", "refused with status 421: no application of this name is served here"},
		"not a service":       {"open.localhost", "", "", `"open.localhost" is no service; write its host and port, as db.example.com:5432`},
		"another computer's":  {"open.localhost:7", "--ca-file " + s.dir + "/doorward.yaml", "", "holds no PEM certificate"},
		"an edge not trusted": {"open.localhost:7", "--ca-file " + strangeCA(t), "", "certificate signed by unknown authority"},
	} {
		run := s.connect(c.service, t.TempDir(), append(strings.Fields(c.flags), "--listen", "-")...)
		var out bytes.Buffer
		run.cmd.Stdin, run.cmd.Stdout = strings.NewReader("hello\n"), &out
		err := run.start().ends()
		if out.String() != c.want || !strings.Contains(run.said.String(), c.said) || (err == nil) != (c.said == "") {
			t.Errorf("%s: %v, %q\n%s", name, err, out.String(), run.said)
		}
	}
	t.Run("one that says nothing for as long as idle_timeout", func(t *testing.T) {
		run := s.connect("short.localhost:7", t.TempDir(), "--listen", "-")
		in, err := run.cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		if err := run.start().ends(); err == nil || !strings.Contains(run.said.String(), "ended by the edge") {
			t.Errorf("it ended with %v\n%s", err, run.said)
		}
	})
}

// strangeCA is the CA of somebody else.
func strangeCA(t *testing.T) string {
	t.Helper()
	other := httptest.NewTLSServer(http.NotFoundHandler())
	defer other.Close()
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestTCPConnectionsAreCounted with the session's other streams, and a route that is pushed takes connections at once.
func TestTCPConnectionsAreCounted(t *testing.T) {
	service := newEcho(t)
	s := newStack(t, twoHosts+"session: {max_streams: 3}\n")
	s.write("db.yaml", `routes: [{name: db, from: "tcp+https://db.localhost:5432", to: "tcp://`+service.Addr().String()+`", policy: any_authenticated_user}]`)
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "route", "apply", "-f", s.dir+"/db.yaml", "--wait", "10s", "--config", s.config()).CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err = exec.Command(path, "route", "list", "--config", s.config()).CombinedOutput(); err != nil || !regexp.MustCompile(`db\s.*tcp\+https://db.localhost:5432.*CONNECT`).Match(out) {
		t.Errorf("route list: %v\n%s", err, out)
	}
	c := s.connect("db.localhost:5432", t.TempDir(), "--listen", "127.0.0.1:0", "--no-store").start()
	alice := s.browser()
	alice.lets(alice.signIn(c.says(asksToSignIn), "alice"))
	at := c.address()
	s.openStreams(0) // that of the question whether alice may
	var open []net.Conn
	for range 3 {
		open = append(open, dial(t, at))
		if !echoes(open[len(open)-1]) {
			t.Fatalf("connection %d does not work\n%s", len(open), c.said)
		}
	}
	if echoes(dial(t, at)) {
		t.Error("a fourth connection works")
	}
	c.says("refused with status 429: your session has too many open streams: close some")
	open[0].Close()
	s.openStreams(2)
	if !echoes(dial(t, at)) {
		t.Errorf("there is no room again\n%s", c.said)
	}
}
