package xds

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// twoHosts is a configuration with two hosts besides the sign-in host.
func twoHosts(upstream string) string {
	return fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", prefix: /app, to: "http://%[1]s", policy: public}
  - {name: b, from: "https://b.localhost:PORT", to: "http://%[1]s", policy: public}
`, upstream)
}

// handshake opens a TLS connection and says how long it took to succeed or fail.
func (f *front) handshake(config *tls.Config) (*tls.Conn, time.Duration, error) {
	config.RootCAs = f.roots
	start := time.Now()
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", fmt.Sprintf("127.0.0.1:%d", f.https), config)
	return c, time.Since(start), err
}

// raw writes a request as it stands to the https listener and reads the answer.
func (f *front) raw(serverName, request string) answer {
	f.t.Helper()
	c, _, err := f.handshake(&tls.Config{ServerName: serverName})
	if err != nil {
		f.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte(request)); err != nil {
		f.t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		f.t.Fatalf("answer to %q: %v", request, err)
	}
	a, err := read(response)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func TestEnvoyRefusesServerNames(t *testing.T) {
	f := newFront(t, "")
	f.serve(twoHosts(f.upstream("u")))
	since := f.server.Envoys()[0].Connected
	for _, name := range []string{
		"c.localhost", "A.localhost", "x.a.localhost", "localhost", "-", "https", "doorward/http", "", "\xff", "a\xc3.localhost",
		"ä.localhost", "a b", "*", "*.localhost", "xdstp://x/y", strings.Repeat("a", 255),
	} {
		_, took, err := f.handshake(&tls.Config{ServerName: name, InsecureSkipVerify: true})
		if err == nil || took > 100*time.Millisecond {
			t.Errorf("server name %q: %v after %v, want a failure within 100 ms", name, err, took)
		}
	}
	if _, _, err := f.handshake(&tls.Config{ServerName: "a.localhost", MaxVersion: tls.VersionTLS11}); err == nil {
		t.Error("TLS 1.1 is accepted")
	}
	if _, _, err := f.handshake(&tls.Config{ServerName: "a.localhost"}); err != nil {
		t.Errorf("a known name: %v", err)
	}
	// None of it reaches the control plane in a form that it cannot read.
	if e := f.server.Envoys(); len(e) != 1 || !e[0].Connected.Equal(since) {
		t.Errorf("a server name ended the ADS stream: %v, connected %v before", e, since)
	}
	f.eventually("Envoy forgets the strangers' names", func() error {
		f.server.mu.Lock()
		defer f.server.mu.Unlock()
		for st := range f.server.streams {
			// Envoy tells of the last one only with its next message.
			if names := st.feeds[secretKind].subscribed; len(names) > 2 {
				return fmt.Errorf("still subscribed: %v", names)
			}
		}
		return nil
	})
	if n := f.stat("listener_manager.listener_modified"); n != 0 {
		t.Errorf("the listener was modified %d times", n)
	}
}

func TestEnvoyServesHosts(t *testing.T) {
	f := newFront(t, "")
	f.serve(twoHosts(f.upstream("u")))
	port := fmt.Sprint(f.https)
	rows := []struct {
		name, sni, host, path string
		status                int
		upstream              string
	}{
		{"a host's own path", "a.localhost", "a.localhost", "/app", 200, "u"},
		{"with a port", "a.localhost", "a.localhost:" + port, "/app", 200, "u"},
		{"with another port", "a.localhost", "a.localhost:1", "/app", 200, "u"},
		{"with a final dot", "a.localhost", "a.localhost.", "/app", 200, "u"},
		{"no route", "a.localhost", "a.localhost", "/other", 404, ""},
		{"a host that nobody has", "a.localhost", "c.localhost", "/app", 421, ""},
		{"mixed case", "a.localhost", "A.localhost", "/app", 421, ""},
		{"another host than the handshake's", "a.localhost", "b.localhost", "/", 421, ""},
		{"another host than the handshake's, our paths", "a.localhost", "b.localhost", "/.pomerium/", 421, ""},
		{"another host than the handshake's, JWKS", "b.localhost", "a.localhost", "/.well-known/pomerium/jwks.json", 421, ""},
		{"JWKS", "a.localhost", "a.localhost", "/.well-known/pomerium/jwks.json", 200, "doorward"},
		{"below JWKS", "a.localhost", "a.localhost", "/.well-known/pomerium/jwks.json/x", 404, ""},
		{"user page", "a.localhost", "a.localhost", "/.pomerium", 200, "doorward"},
		{"below the prefix", "b.localhost", "b.localhost", "/.pomerium/sign_out", 200, "doorward"},
		{"beside the prefix", "a.localhost", "a.localhost", "/.pomeriumx", 404, ""},
		{"sign-in host without a route", "auth.localhost", "auth.localhost", "/", 302, ""},
		{"sign-in host, our paths", "auth.localhost", "auth.localhost", "/.pomerium/", 200, "doorward"},
		{"sign-in host, another path", "auth.localhost", "auth.localhost", "/x", 404, ""},
	}
	for _, r := range rows {
		for _, http2 := range []bool{false, true} {
			a := f.do(f.client(r.sni, http2), "GET", "https://127.0.0.1:"+port+r.path, "Host", r.host)
			if a.Status != r.status || a.Seen.Upstream != r.upstream {
				t.Errorf("%s (HTTP/2 %v): %d from %q, want %d from %q", r.name, http2, a.Status, a.Seen.Upstream, r.status, r.upstream)
			}
		}
	}
	if a := f.get("auth.localhost", "/"); a.Header.Get("Location") != "https://auth.localhost:"+port+"/.pomerium/" {
		t.Errorf("sign-in host redirects to %q", a.Header.Get("Location"))
	}
}

func TestEnvoyAsksForEachRoute(t *testing.T) {
	f := newFront(t, "")
	f.serve(fmt.Sprintf(`
  - {name: up, from: "https://a.localhost:PORT", to: "http://%s", policy: public}
  - {name: moved, from: "https://a.localhost:PORT", path: /moved, redirect: {path: /new}, policy: public}
  - {name: fixed, from: "https://a.localhost:PORT", path: /fixed, response: {status: 200, body: hello}, policy: public}
`, f.upstream("u")))
	for path, route := range map[string]string{"/": "up", "/moved": "moved", "/fixed": "fixed", "/.pomerium/": "", "/x;a/b": ""} {
		f.get("a.localhost", path)
		checks := f.authz.taken()
		switch {
		case route == "" && len(checks) == 0:
		case len(checks) != 1:
			t.Errorf("%s: %d checks", path, len(checks))
		case checks[0].ContextExtensions[ContextRoute] != route,
			checks[0].ContextExtensions[ContextRevision] != revisionOf(route),
			checks[0].TlsSession.GetSni() != "a.localhost":
			t.Errorf("%s: check %v, want route %q", path, checks[0], route)
		}
	}
}

func TestEnvoySendsTheHeadersThatAreAskedFor(t *testing.T) {
	f := newFront(t, "")
	routes := twoHosts(f.upstream("u"))
	f.serve(routes)
	r, err := Build(Input{
		Config: f.load(routes), Revision: revisionOf, Certificate: f.ca.Certificate, Headers: []string{"cookie", HeaderClientIP}, Page: plainPage,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.apply(flat(t, r)); err != nil {
		t.Fatal(err)
	}
	f.authz.taken()
	a := f.get("b.localhost", "/", "Cookie", "c=1", "Accept", "text/html")
	checks := f.authz.taken()
	if a.Seen.Header.Get("Accept") != "text/html" || len(checks) != 1 {
		t.Fatalf("upstream saw %v after %d checks", a.Seen, len(checks))
	}
	got := make(map[string]string)
	for _, h := range checks[0].Request.Http.HeaderMap.Headers {
		got[h.Key] = string(h.RawValue)
	}
	if len(got) != 2 || got["cookie"] != "c=1" || got[HeaderClientIP] != "127.0.0.1" {
		t.Errorf("ext_authz saw %v", got)
	}
	if got, want := checks[0].ContextExtensions["metadata"], HeaderSet([]string{HeaderClientIP, "cookie"}); got != want {
		t.Errorf("ext_authz was told the set %q, want %q", got, want)
	}
	f.listenerUnchanged()
}

func TestEnvoyFailsClosed(t *testing.T) {
	f := newFront(t, "")
	f.serve(twoHosts(f.upstream("u")))
	if a := f.get("b.localhost", "/"); a.Status != 200 {
		t.Fatalf("with authz: %d", a.Status)
	}
	f.stopAuthz()
	for range 5 {
		if a := f.get("b.localhost", "/"); a.Status != 503 {
			t.Errorf("without authz: %d, want 503", a.Status)
		}
	}
}

func TestEnvoyHardening(t *testing.T) {
	f := newFront(t, "")
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	f.serve(twoHosts(f.upstream("u")) + fmt.Sprintf(`
  - {name: dead, from: "https://dead.localhost:PORT", to: "http://%s", policy: public}
`, dead))
	a := f.get("b.localhost", "/")
	if a.Header.Get("Server") != "doorward" {
		t.Errorf("Server is %q", a.Header.Get("Server"))
	}
	for name := range a.Header {
		if strings.HasPrefix(name, "X-Envoy") || name == "Via" {
			t.Errorf("the answer has %s", name)
		}
	}
	a = f.get("dead.localhost", "/x?token=secret")
	if a.Status != 503 || a.Body != bodyUpstream {
		t.Errorf("a dead upstream: %d %q", a.Status, a.Body)
	}
	f.eventually("the failure is in the access log", func() error {
		line := f.logLine(`"log":"access"`)
		if !strings.Contains(line, `"path":"/x"`) || !strings.Contains(line, `"route":"dead"`) || strings.Contains(line, "secret") {
			return fmt.Errorf("log line %q", line)
		}
		return nil
	})
	if a := f.raw("b.localhost", "GET / HTTP/1.1\r\nHost: b.localhost\r\nX_Under: 1\r\n\r\n"); a.Status != 400 {
		t.Errorf("a header with an underscore: %d, want 400", a.Status)
	}
	if a := f.raw("b.localhost", "GET / HTTP/1.0\r\n\r\n"); a.Status != 426 {
		t.Errorf("HTTP/1.0: %d, want 426", a.Status)
	}
	if a := f.raw("b.localhost", "CONNECT b.localhost:443 HTTP/1.1\r\nHost: b.localhost:443\r\n\r\n"); a.Status/100 != 4 {
		t.Errorf("CONNECT: %d, want a refusal", a.Status)
	}
	big := "GET / HTTP/1.1\r\nHost: b.localhost\r\nX-Big: " + strings.Repeat("x", requestHeadersKiB<<10) + "\r\n\r\n"
	if a := f.raw("b.localhost", big); a.Status != 431 {
		t.Errorf("headers that are too large: %d, want 431", a.Status)
	}
}

func TestEnvoyPlainListener(t *testing.T) {
	f := newFront(t, "")
	f.serve(`
  - {name: a, from: "https://a.localhost:PORT", response: {status: 200}, policy: public}
  - {name: b, from: "https://b.localhost", response: {status: 200}, policy: public}
`)
	rows := []struct {
		host, path, location string
		status               int
	}{
		{"a.localhost", "/x?y=z", fmt.Sprintf("https://a.localhost:%d/x?y=z", f.https), 308},
		{fmt.Sprintf("a.localhost:%d", f.http), "/", fmt.Sprintf("https://a.localhost:%d/", f.https), 308},
		{"A.localhost", "/", fmt.Sprintf("https://A.localhost:%d/", f.https), 308},
		{"b.localhost", "/", "https://b.localhost/", 308},
		{"b.localhost:80", "/.pomerium/", "https://b.localhost/.pomerium/", 308},
		{"auth.localhost", "/", fmt.Sprintf("https://auth.localhost:%d/", f.https), 308},
		{"other.example.com", "/", fmt.Sprintf("https://other.example.com:%d/", f.https), 308}, // who asks there is told that there is none
	}
	for _, r := range rows {
		a := f.do(f.client("", false), "POST", fmt.Sprintf("http://127.0.0.1:%d%s", f.http, r.path), "Host", r.host)
		if a.Status != r.status || a.Header.Get("Location") != r.location {
			t.Errorf("http://%s%s: %d to %q, want %d to %q", r.host, r.path, a.Status, a.Header.Get("Location"), r.status, r.location)
		}
	}
	if checks := f.authz.taken(); len(checks) != 0 {
		t.Errorf("the plain listener asked ext_authz: %v", checks)
	}
}

// logLine is the last line of Envoy's output that has the text; "" when there is none.
func (f *front) logLine(text string) string {
	f.t.Helper()
	var found string
	for line := range strings.Lines(f.readFile(filepath.Join(f.dir, "envoy.log"))) {
		if strings.Contains(line, text) {
			found = line
		}
	}
	return found
}
