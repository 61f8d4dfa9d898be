package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"crypto/tls"
)

// seeing tells the upstream what a policy for OPA's Envoy plugin sees of a request and its body.
const seeing = `package envoy.authz

import input.attributes.request.http

allow if http.method

headers := {"x-saw": json.marshal({
	"path": input.parsed_path,
	"query": input.parsed_query,
	"host": http.host,
	"protocol": http.protocol,
	"source": input.attributes.source.address.socketAddress.address,
	"sni": input.attributes.tlsSession.sni,
	"body": input.parsed_body,
	"truncated": input.truncated_body,
	"bytes": count(object.get(http, "body", "")),
	"forwarded": object.get(http.headers, "x-forwarded-client-cert", null),
	"certificate": object.get(input, "client_certificate", null),
})}
`

const bodyRoutes = `
  - {name: api, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: envoy.authz, allow_anonymous: true, allow_websockets: true}
`

// saw is what the policy saw of the last request that reached the application.
func (u *application) saw(t *testing.T) map[string]any {
	t.Helper()
	var x map[string]any
	text := last(u).Header.Get("X-Saw")
	if err := json.Unmarshal([]byte(text), &x); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return x
}

// answer has the application answer in this way. The default answer is an echo.
func (u *application) answer(with http.HandlerFunc) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.app = with
}

// send posts a body, with the length announced only if it is known.
func (b *browser) send(target, kind string, body io.Reader, headers ...string) answer {
	b.s.t.Helper()
	req, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodPost, target, body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", kind)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return b.do(req)
}

// unannounced is a body of unknown length, whose second half comes later.
func unannounced(first, second string) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, first)
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(w, second)
		w.Close()
	}()
	return r
}

func TestPoliciesReadBodies(t *testing.T) {
	s := prepareStack(t, bodyRoutes)
	s.write("policies/envoy.rego", seeing)
	s.start()
	b := s.browser()
	received := make(chan int, 1)
	s.grafana.answer(func(_ http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		received <- len(text)
	})
	full := `{"pad": "` + strings.Repeat("x", 8192-len(`{"pad": ""}`)) + `"}`
	for _, row := range []struct {
		name, kind string
		body       io.Reader
		length     int
		want       any // parsed_body
		truncated  bool
		headers    []string
	}{
		{"JSON", "application/json", strings.NewReader(`{"a": [1, "x"]}`), 15, map[string]any{"a": []any{1.0, "x"}}, false, nil},
		{"chunks", "application/json", unannounced(`{"a"`, `: "b"}`), 10, map[string]any{"a": "b"}, false, nil},
		{"a form", "application/x-www-form-urlencoded", strings.NewReader("a=1&a=2"), 7, map[string]any{"a": []any{"1", "2"}}, false, nil},
		{"text", "text/plain", strings.NewReader("hello"), 5, nil, false, nil},
		{"of the full length", "application/json", strings.NewReader(full), 8192, map[string]any{"pad": strings.Repeat("x", 8192-11)}, false, nil},
		{"longer", "application/json", strings.NewReader(full + " "), 8193, nil, true, nil},
		{"much longer, in chunks", "application/json", unannounced(full+full, full), 3 * 8192, nil, true, nil},
		{"of the full length, and then more", "application/x-www-form-urlencoded", unannounced("a=1&"+strings.Repeat("x", 8188), "&a=2"), 8196, nil, true, nil},
		{"which the client calls whole", "application/x-www-form-urlencoded", unannounced("a=1&"+strings.Repeat("x", 8188), "&a=2"), 8196, nil, true, []string{"X-Envoy-Auth-Partial-Body", "false"}},
		{"not UTF-8, of the full length, and then more", "application/x-www-form-urlencoded", unannounced(strings.Repeat("\xff", 8192), "&a=2"), 8196, nil, true, nil},
		{"gRPC", "application/grpc", strings.NewReader("\x00\x00\x00\x00\x00"), 5, nil, false, nil},
	} {
		got := b.send(s.url("grafana", "/a%20b/c?q=1&q=2"), row.kind, row.body, append(row.headers, "X-Forwarded-Client-Cert", "Subject=\"CN=root\"")...)
		if got.StatusCode != 200 {
			t.Fatalf("%s: status %d\n%s\n%s", row.name, got.StatusCode, got.text, s.log)
		}
		if n := <-received; n != row.length {
			t.Errorf("%s: the upstream got %d bytes, want %d", row.name, n, row.length)
		}
		saw := s.grafana.saw(t)
		if !reflect.DeepEqual(saw["body"], row.want) || saw["truncated"] != row.truncated {
			t.Errorf("%s: the policy saw %.100v, truncated %v; want %.100v, %v", row.name, saw["body"], saw["truncated"], row.want, row.truncated)
		}
		for name, want := range map[string]any{
			"path": []any{"a b", "c"}, "query": map[string]any{"q": []any{"1", "2"}}, "host": "grafana.localhost", "protocol": "HTTP/2",
			"source": "127.0.0.1", "sni": "grafana.localhost", "forwarded": nil, "certificate": nil,
		} {
			if !reflect.DeepEqual(saw[name], want) {
				t.Errorf("%s: the policy saw %v as %s, want %v", row.name, saw[name], name, want)
			}
		}
	}
}

// TestStreamsAreNotHeldBack: what gRPC sends reaches the upstream before the client has sent all of it, also where the policy reads bodies.
func TestStreamsAreNotHeldBack(t *testing.T) {
	s := prepareStack(t, bodyRoutes)
	s.write("policies/envoy.rego", seeing)
	s.start()
	b := s.browser()
	arrived := make(chan struct{}, 1)
	s.grafana.answer(func(_ http.ResponseWriter, r *http.Request) {
		if _, err := io.ReadFull(r.Body, make([]byte, 5)); err == nil {
			arrived <- struct{}{}
		}
		_, _ = io.Copy(io.Discard, r.Body)
	})
	for _, row := range []struct {
		kind   string
		stream bool
	}{{"application/grpc", true}, {"Application/gRPC+proto", true}, {"application/grpc-web", true}, {"application/json", false}} {
		r, w := io.Pipe()
		done := make(chan answer, 1)
		go func() { done <- b.send(s.url("grafana", "/pkg.Service/Method"), row.kind, r) }()
		if _, err := io.WriteString(w, "[1, 2"); err != nil {
			t.Fatal(err)
		}
		wait := 5 * time.Second
		if !row.stream {
			wait = 300 * time.Millisecond
		}
		select {
		case <-arrived:
			if !row.stream {
				t.Errorf("%s: the body came to the upstream before the policy could have seen it", row.kind)
			}
		case <-time.After(wait):
			if row.stream {
				t.Errorf("%s: nothing came to the upstream while the stream is open\n%s", row.kind, s.log)
			}
		}
		if _, err := io.WriteString(w, "]"); err != nil {
			t.Fatal(err)
		}
		w.Close()
		if got := <-done; got.StatusCode != 200 {
			t.Errorf("%s: status %d", row.kind, got.StatusCode)
		}
		if !row.stream {
			<-arrived
		}
	}
}

// TestUpgradesPassPoliciesThatReadBodies opens a WebSocket on such a route.
func TestUpgradesPassPoliciesThatReadBodies(t *testing.T) {
	s := prepareStack(t, bodyRoutes)
	s.write("policies/envoy.rego", seeing)
	s.start()
	s.grafana.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		line, _ := buffered.ReadString('\n')
		_, _ = io.WriteString(conn, "echo "+line)
	})
	tlsConfig := s.browser().Transport.(*http.Transport).TLSClientConfig.Clone()
	tlsConfig.ServerName = "grafana.localhost"
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "GET /live HTTP/1.1\r\nHost: grafana.localhost:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", s.port)
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v, %v\n%s", res, err, s.log)
	}
	fmt.Fprint(conn, "hello\n")
	if line, err := r.ReadString('\n'); line != "echo hello\n" {
		t.Errorf("got %q, %v", line, err)
	}
}

// people is what the documentation of OPA's Envoy plugin shows: users and their roles, paths by their segments, and an answer that is an object.
const people = `package envoy.authz

import input.attributes.request.http

default allow := false

allow if {
	some role in roles[user]
	some grant in grants[role]
	grant.method == http.method
	grant.path == input.parsed_path[0]
}

user := name if {
	[_, encoded] := split(http.headers.authorization, " ")
	[name, _] := split(base64.decode(encoded), ":")
}

default who := "strangers"

who := user

roles := {"alice": ["guest"], "bob": ["admin"]}

grants := {
	"guest": [{"method": "GET", "path": "people"}],
	"admin": [{"method": "GET", "path": "people"}, {"method": "POST", "path": "people"}],
}

headers["x-user"] := user if allow

headers["x-checked"] := ["yes", "twice"] if allow

headers["www-authenticate"] := "Basic" if not user

status := 401 if not user else := 503 if user == "carol" else := 403

result["allowed"] := allow

result["headers"] := headers

result["request_headers_to_remove"] := ["authorization"]

result["response_headers_to_add"] := {"x-policy": "people", "set-cookie": "seen=1"}

result["query_parameters_to_set"] := {"by": "policy"}

result["query_parameters_to_remove"] := ["secret"]

result["http_status"] := status

result["body"] := sprintf("not for %s", [who])

result["dynamic_metadata"] := {"user": who, "roles": count(roles)}
`

func TestPoliciesOfOPAsPluginDecide(t *testing.T) {
	s := prepareStack(t, bodyRoutes)
	s.write("policies/envoy.rego", people)
	s.start()
	b := s.browser()
	s.grafana.answer(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "application=1")
		fmt.Fprint(w, r.RequestURI)
	})
	ask := func(method, path, user string) answer {
		req, err := http.NewRequestWithContext(t.Context(), method, s.url("grafana", path), nil)
		if err != nil {
			t.Fatal(err)
		}
		if user != "" {
			req.SetBasicAuth(user, "x")
		}
		return b.do(req)
	}
	got := ask("GET", "/people/1?secret=x&a=b", "alice")
	if want := "/people/1?a=b&by=policy"; got.StatusCode != 200 || got.text != want {
		t.Fatalf("status %d, %s, want %s\n%s", got.StatusCode, got.text, want, s.log)
	}
	if got.Header.Get("X-Policy") != "people" || len(got.Header.Values("Set-Cookie")) != 2 {
		t.Errorf("the client got %v", got.Header)
	}
	seen := last(s.grafana).Header
	if seen.Get("X-User") != "alice" || seen.Get("X-Checked") != "yes,twice" || seen.Get("Authorization") != "" || seen.Get(assertion) != "" {
		t.Errorf("the upstream got %v", seen)
	}
	for _, row := range []struct {
		method, user string
		status       int
		text, header string
	}{
		{"POST", "alice", 403, "not for alice", ""},
		{"POST", "bob", 200, "/people?by=policy", ""},
		{"GET", "", 401, "not for strangers", "Basic"},
		{"GET", "carol", 503, "not for carol", ""},
	} {
		got := ask(row.method, "/people", row.user)
		if got.StatusCode != row.status || got.text != row.text || got.Header.Get("WWW-Authenticate") != row.header {
			t.Errorf("%s by %q: %d, %q, %v", row.method, row.user, got.StatusCode, got.text, got.Header)
		}
	}
	// Envoy's own log has what failed, and with it what the policy said of it.
	want := regexp.MustCompile(`"policy":\{("roles":2(\.0)?,"user":"carol"|"user":"carol","roles":2(\.0)?)\}`)
	for deadline := time.Now().Add(15 * time.Second); !want.MatchString(s.log.String()); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("Envoy's log has not what the policy said:\n%s", s.log)
		}
	}
}
