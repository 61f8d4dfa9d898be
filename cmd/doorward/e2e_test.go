package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"crypto/tls"
)

const assertion = "X-Pomerium-Jwt-Assertion"

// claims reads a JWT's payload. Its signature is checked where it is consumed: by the demo's upstream and the interoperability test.
func claims(t *testing.T, jwt string) map[string]any {
	t.Helper()
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		t.Fatalf("no JWT: %q", jwt)
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]any
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSignInServesBothHostsAndSignOutEndsBoth(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	deep := s.url("grafana", "/d/x?orgId=1&name=a%20b")
	page := b.signIn(deep, "alice")
	if page.Request.URL.String() != deep || page.StatusCode != 200 || !strings.Contains(page.text, `"upstream":"grafana"`) {
		t.Fatalf("signed in and came to %s with %d %s\n%s", page.Request.URL, page.StatusCode, page.text, s.log)
	}
	seen := s.grafana.requests()
	request := seen[len(seen)-1]
	if got, want := request.RequestURI, "/d/x?orgId=1&name=a%20b"; got != want {
		t.Errorf("the upstream got %s, want %s", got, want)
	}
	c := claims(t, request.Header.Get(assertion))
	for claim, want := range map[string]any{
		"iss": "grafana.localhost", "aud": "grafana.localhost", "sub": "alice", "email": "alice@example.com", "name": "Alice Adams", "role": "Admin",
	} {
		if c[claim] != want {
			t.Errorf("%s is %v, want %v", claim, c[claim], want)
		}
	}
	if request.Header.Get("Cookie") != "" {
		t.Errorf("the upstream got cookies of ours: %s", request.Header.Get("Cookie"))
	}
	second := b.get(s.url("wiki", "/page"))
	if second.Request.URL.String() != s.url("wiki", "/page") || second.StatusCode != 200 {
		t.Fatalf("the second host asked for more: %s %d\n%s", second.Request.URL, second.StatusCode, s.log)
	}
	if got := claims(t, last(s.wiki).Header.Get(assertion))["aud"]; got != "wiki.localhost" {
		t.Errorf("the wiki's audience is %v", got)
	}
	if me := b.get(s.url("grafana", "/.pomerium/")); !strings.Contains(me.text, "alice@example.com") || !strings.Contains(me.text, "grafana-admins") {
		t.Errorf("the user page does not say who this is: %s", me.text)
	}
	b.get(s.url("grafana", "/.pomerium/sign_out"))
	for _, host := range []string{"grafana", "wiki"} {
		if got := b.get(s.url(host, "/"), "Accept", "application/json", "Sec-Fetch-Mode", "cors"); got.StatusCode != 401 {
			t.Errorf("%s after sign-out: status %d, want 401", host, got.StatusCode)
		}
	}
}

func last(u *application) *http.Request {
	seen := u.requests()
	return seen[len(seen)-1]
}

func TestDeniedAndAnonymous(t *testing.T) {
	s := newStack(t, twoHosts)
	mallory := s.browser()
	page := mallory.signIn(s.url("grafana", "/"), "mallory")
	if page.StatusCode != 403 || !strings.Contains(page.text, "you are in no group that may use Grafana") || !strings.Contains(page.text, "mallory@example.com") {
		t.Errorf("mallory got %d %s", page.StatusCode, page.text)
	}
	stranger := s.browser()
	if got := stranger.get(s.url("grafana", "/api"), "Accept", "application/json", "Sec-Fetch-Mode", "cors"); got.StatusCode != 401 || !strings.Contains(got.text, `"error":"unauthenticated"`) {
		t.Errorf("a program without a session got %d %s", got.StatusCode, got.text)
	}
	if n := len(s.grafana.requests()); n != 0 {
		t.Errorf("the upstream saw %d requests, want none", n)
	}
}

// TestForgedIdentityReachesNoUpstream sends what a client could use to pass for somebody, over HTTP/1.1 as it is typed.
func TestForgedIdentityReachesNoUpstream(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	cookie := b.cookie("grafana")
	forged := []string{
		"X-Pomerium-Jwt-Assertion: forged", "x_pomerium_jwt_assertion: forged", "X-Pomerium-Claim-Email: forged@example.com",
		"X_Pomerium_Claim_Email: forged@example.com", "X-Forwarded-User: forged", "X-WEBAUTH-USER: forged", "X-Remote-User: forged",
		"Impersonate-User: forged", "X-Doorward-Sni: forged", "X-Envoy-Original-Path: /forged", "X-Envoy-External-Address: 10.0.0.1", "X-Original-Url: /forged",
		"X-Forwarded-Host: forged", "Connection: close, x-pomerium-jwt-assertion",
	}
	for _, host := range []string{"grafana", "wiki"} {
		for _, path := range []string{"/", "/public/x"} {
			for _, line := range forged {
				before := len(s.grafana.requests()) + len(s.wiki.requests())
				status, _ := s.raw(host, "GET "+path+" HTTP/1.1", "Cookie: theme=dark", "Cookie: "+cookie, line)
				if underscore := strings.Contains(strings.SplitN(line, ":", 2)[0], "_"); underscore {
					if status == 200 || len(s.grafana.requests())+len(s.wiki.requests()) != before {
						t.Errorf("%s%s: %s reached an upstream", host, path, line)
					}
					continue
				}
				if host == "wiki" {
					continue // no session there: nothing passes, and the line above has shown that underscores are refused
				}
				if status != 200 {
					t.Errorf("%s%s with %s: status %d\n%s", host, path, line, status, s.log)
					continue
				}
				if text := dump(last(s.grafana)); strings.Contains(text, "forged") || strings.Contains(text, "__Host-doorward") {
					t.Errorf("%s%s: %s reached the upstream:\n%s", host, path, line, text)
				}
				if got := last(s.grafana).Header.Get("Cookie"); got != "theme=dark" {
					t.Errorf("the upstream's cookies are %q, want theme=dark", got)
				}
				if path == "/" && len(last(s.grafana).Header.Values(assertion)) != 1 {
					t.Errorf("%s: assertions %q, want one", line, last(s.grafana).Header.Values(assertion))
				}
			}
		}
	}
}

func dump(r *http.Request) string {
	var b strings.Builder
	for name, values := range r.Header {
		for _, v := range values {
			fmt.Fprintf(&b, "%s: %s\n", name, v)
		}
	}
	return b.String()
}

// cookie is the session's on a host, as a Cookie header has it.
func (b *browser) cookie(host string) string {
	b.s.t.Helper()
	u, err := http.NewRequest(http.MethodGet, b.s.url(host, "/"), nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	for _, c := range b.Jar.Cookies(u.URL) {
		if c.Name == "__Host-doorward" {
			return c.Name + "=" + c.Value
		}
	}
	b.s.t.Fatalf("no session cookie on %s\n%s", host, b.s.log)
	return ""
}

// raw sends lines as they are to a host and returns the status and the body.
func (s *stack) raw(host string, lines ...string) (int, string) {
	s.t.Helper()
	name := host + ".localhost"
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", s.port), &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	if err != nil {
		s.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	text := lines[0] + "\r\nHost: " + fmt.Sprintf("%s:%d", name, s.port) + "\r\n" + strings.Join(append(lines[1:], ""), "\r\n") + "\r\n"
	if _, err := io.WriteString(conn, text); err != nil {
		s.t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		s.t.Fatalf("%q: %v", text, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil && err != io.ErrUnexpectedEOF {
		s.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestCookieTricksLetNobodyIn(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	cookie := b.cookie("grafana")
	for _, row := range []struct {
		name  string
		lines []string
		want  int
	}{
		{"two Cookie headers, ours in the second", []string{"Cookie: a=1", "Cookie: " + cookie}, 200},
		{"bytes above 0x7f around ours", []string{"Cookie: a=1; z=\xff\xfe; " + cookie + "; b=\x80"}, 200},
		{"two different ones of ours", []string{"Cookie: " + cookie, "Cookie: __Host-doorward=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}, 400},
		{"ours with a byte above 0x7f", []string{"Cookie: " + cookie + "\xff"}, 401},
		{"ours cut short", []string{"Cookie: " + cookie[:len(cookie)-1]}, 401},
		{"ours under the name in another case", []string{"Cookie: " + strings.ToLower(cookie)}, 401},
		{"a duplicate Authorization instead", []string{"Authorization: Bearer a", "Authorization: Bearer b"}, 401},
	} {
		status, body := s.raw("grafana", append([]string{"GET / HTTP/1.1", "Accept: application/json", "Connection: close"}, row.lines...)...)
		if status != row.want {
			t.Errorf("%s: status %d, want %d: %s", row.name, status, row.want, body)
		}
		if status == 200 {
			if got := textproto.TrimString(last(s.grafana).Header.Get("Cookie")); strings.Contains(got, "__Host") || got != "a=1" {
				t.Errorf("%s: the upstream's cookies are %q", row.name, got)
			}
		}
	}
	if status, _ := s.raw("wiki", "GET / HTTP/1.1", "Accept: application/json", "Connection: close", "Cookie: "+cookie); status != 401 {
		t.Errorf("a cookie of another host: status %d, want 401", status)
	}
}

// TestRoutesChangeWhileItServes edits the file and watches Envoy: served within a second, no listener update, nothing dropped.
func TestRoutesChangeWhileItServes(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	stop := make(chan struct{})
	var asked, failed atomic.Int64
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			asked.Add(1)
			req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, s.url("grafana", "/load"), nil)
			res, err := b.Do(req)
			if err != nil {
				failed.Add(1)
				continue
			}
			if res.StatusCode != 200 {
				failed.Add(1)
			}
			io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
	}()
	const docs = "  - {name: docs, from: \"https://docs.localhost:{{.Port}}\", to: \"{{.Wiki}}\", policy: public}\n"
	// Other tests share the machine, so each step has three tries to be served within a second.
	best := make(map[string]time.Duration)
	for range 3 {
		for _, step := range []struct {
			name, routes string
			holds        func() bool
		}{
			{"added", twoHosts + docs, func() bool { return s.status("docs", "/") == 200 }},
			{"changed", twoHosts + strings.Replace(docs, "policy: public", "policy: public, prefix: /only", 1), func() bool { return s.status("docs", "/") == 404 && s.status("docs", "/only") == 200 }},
			{"removed", twoHosts, func() bool { return s.status("docs", "/only") == 0 }},
		} {
			s.writeConfig(step.routes)
			start := time.Now()
			for !step.holds() {
				if time.Since(start) > 10*time.Second {
					t.Fatalf("%s: not after 10 s\n%s", step.name, s.log)
				}
				time.Sleep(10 * time.Millisecond)
			}
			if took := time.Since(start); best[step.name] == 0 || took < best[step.name] {
				best[step.name] = took
			}
		}
	}
	for name, took := range best {
		t.Logf("%s: served %v after the edit", name, took.Round(time.Millisecond))
		if took > time.Second {
			t.Errorf("%s: served %v after the edit, want at most a second", name, took)
		}
	}
	close(stop)
	<-done
	if failed.Load() != 0 || asked.Load() == 0 {
		t.Errorf("%d of %d requests failed meanwhile\n%s", failed.Load(), asked.Load(), s.log)
	}
	stats := s.envoyStats("listener_manager.listener_(modified|in_place_updated)")
	for name, value := range stats {
		if value != 0 {
			t.Errorf("%s is %d, want 0: the listener was touched", name, value)
		}
	}
	if len(stats) != 2 {
		t.Errorf("statistics %v, want both counters", stats)
	}
}

// status asks a host without a session; 0 means that the handshake was refused.
func (s *stack) status(host, path string) int {
	client := s.browser()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url(host, path), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := client.Do(req)
	if err != nil {
		return 0
	}
	res.Body.Close()
	return res.StatusCode
}

// TestStricterPolicyHoldsOnceServed changes a policy and the upstream together while requests run.
func TestStricterPolicyHoldsOnceServed(t *testing.T) {
	const one = `
  - {name: app, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: app}
`
	s := newStack(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	for round := range 5 {
		s.write("policies/app.rego", "package app\n\nallow := true\n\nclaims := {\"round\": \"open\"}\n")
		s.writeConfig(one)
		s.served()
		if got := b.get(s.url("grafana", "/")); got.StatusCode != 200 {
			t.Fatalf("round %d, open: status %d\n%s", round, got.StatusCode, s.log)
		}
		// Stricter, and another upstream: until it is served the old pair decides, from then on the new one, never a mix.
		s.write("policies/app.rego", "package app\n\nallow if input.request.path == \"/new\"\n\nclaims := {\"round\": \"strict\"}\n")
		s.writeConfig(strings.Replace(one, "{{.Grafana}}", "{{.Wiki}}", 1))
		stop := make(chan struct{})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					b.get(s.url("grafana", "/new"))
				}
			}
		}()
		s.served()
		if got := b.get(s.url("grafana", "/")); got.StatusCode != 403 {
			t.Errorf("round %d: the old policy decided after the new one was served: status %d", round, got.StatusCode)
		}
		close(stop)
		<-done
	}
	for _, r := range s.grafana.requests() {
		if c := claims(t, r.Header.Get(assertion)); c["round"] == "strict" {
			t.Errorf("the old upstream got a request that the new policy decided: %s", r.RequestURI)
		}
	}
	for _, r := range s.wiki.requests() {
		if c := claims(t, r.Header.Get(assertion)); c["round"] == "open" {
			t.Errorf("the new upstream got a request that the old policy decided: %s", r.RequestURI)
		}
	}
}

func TestBadChangeChangesNothing(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	good, err := os.ReadFile(s.config())
	if err != nil {
		t.Fatal(err)
	}
	added := "  - {name: docs, from: \"https://docs.localhost:{{.Port}}\", to: \"{{.Wiki}}\", policy: public}\n"
	for _, row := range []struct{ name, file, text, says string }{
		{"a bad route", "", added + "  - {name: bad, from: \"http://bad.localhost:{{.Port}}\", to: \"{{.Wiki}}\", polcy: public}\n", "polcy"},
		{"a bad policy", "policies/bad.rego", "package bad\n\nallow if input.user.emial == 1\n", "bad.rego:3"},
	} {
		if row.file != "" {
			s.write(row.file, row.text)
			row.text = added
		}
		s.writeConfig(twoHosts + row.text)
		for deadline := time.Now().Add(5 * time.Second); !strings.Contains(s.log.String(), row.says); {
			if time.Now().After(deadline) {
				t.Fatalf("%s: the log does not name %q\n%s", row.name, row.says, s.log)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if out, err := s.check(); err == nil || !strings.Contains(out, row.says) {
			t.Errorf("%s: check says %v %s, want %q", row.name, err, out, row.says)
		}
		if got := s.status("docs", "/"); got != 0 {
			t.Errorf("%s: the good half of the change is served (%d)", row.name, got)
		}
		if got := b.get(s.url("grafana", "/")); got.StatusCode != 200 {
			t.Errorf("%s: what was served is not any more: %d", row.name, got.StatusCode)
		}
		if row.file != "" {
			os.Remove(filepath.Join(s.dir, row.file))
		}
		s.write("doorward.yaml", string(good))
		s.served()
	}
}

// TestKeysMoveWithTheirPath changes where the keys are served while it runs.
func TestKeysMoveWithTheirPath(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	const before, after = "/.well-known/pomerium/jwks.json", "/keys.json"
	keys := b.get(s.url("grafana", before)).text
	s.write("doorward.yaml", s.read("doorward.yaml")+"\npaths: {jwks: /keys.json}\n")
	s.served()
	if got := b.get(s.url("grafana", after)); got.StatusCode != 200 || got.text != keys || !strings.Contains(keys, `"kid"`) {
		t.Errorf("%s: %d %s, want the keys", after, got.StatusCode, got.text)
	}
	if got := b.get(s.url("grafana", before), "Accept", "application/json", "Sec-Fetch-Mode", "cors"); got.StatusCode != 401 {
		t.Errorf("%s: %d, want 401: it is the application's now", before, got.StatusCode)
	}
}

func TestKilledDoorwardKeepsSessionsAndKeys(t *testing.T) {
	s := newStack(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	keys := b.get(s.url("grafana", "/.well-known/pomerium/jwks.json")).text
	s.program.Process.Signal(syscall.SIGKILL)
	<-s.exited
	s.start()
	if got := b.get(s.url("grafana", "/")); got.StatusCode != 200 || got.Request.URL.String() != s.url("grafana", "/") {
		t.Errorf("after kill -9: %s %d\n%s", got.Request.URL, got.StatusCode, s.log)
	}
	if got := b.get(s.url("grafana", "/.well-known/pomerium/jwks.json")).text; got != keys || !strings.Contains(got, `"kid"`) {
		t.Errorf("the keys are %s, want %s", got, keys)
	}
}

// styleHash is what the policy of a page must hold for its style to be used.
func styleHash(page string) string {
	_, style, _ := strings.Cut(page, "<style>")
	style, _, _ = strings.Cut(style, "</style>")
	sum := sha256.Sum256([]byte(style))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// halt stops the program where it is, and returns when each of its threads stands still (proc(5), state T), which a signal does not wait for.
func (s *stack) halt() {
	s.t.Helper()
	s.program.Process.Signal(syscall.SIGSTOP)
	s.until("the program stands still", func() bool {
		states, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", s.program.Process.Pid))
		for _, path := range states {
			text, _ := os.ReadFile(path)
			if _, rest, _ := strings.Cut(string(text), ") "); !strings.HasPrefix(rest, "T") {
				return false
			}
		}
		return err == nil && len(states) > 0
	})
}

// TestDownDenies runs Envoy apart, so that it outlives Doorward.
func TestDownDenies(t *testing.T) {
	s := newStackApart(t, twoHosts)
	b := s.browser()
	b.signIn(s.url("grafana", "/"), "alice")
	s.halt() // nobody answers
	got := b.get(s.url("grafana", "/"))
	s.program.Process.Signal(syscall.SIGCONT)
	if got.StatusCode != 503 {
		t.Errorf("with doorward stopped: status %d, want 503", got.StatusCode)
	}
	s.program.Process.Signal(syscall.SIGKILL)
	<-s.exited
	for _, path := range []string{"/", "/public/x"} {
		for range 10 {
			got := b.get(s.url("grafana", path))
			if got.StatusCode != 503 {
				t.Fatalf("%s with doorward down: status %d, want 503", path, got.StatusCode)
			}
			if !strings.Contains(got.text, "<h1>Not available</h1>") || !strings.Contains(got.Header.Get("Content-Security-Policy"), "default-src 'none'; style-src "+styleHash(got.text)+";") {
				t.Fatalf("%s with doorward down is no page of ours: %v\n%s", path, got.Header, got.text)
			}
		}
	}
	// Grafana looks at no status: an answer in JSON would be an empty key set to it, which it keeps for an hour.
	if got := b.get(s.url("grafana", "/.well-known/pomerium/jwks.json")); got.StatusCode != 503 || json.Valid([]byte(got.text)) {
		t.Errorf("the keys with doorward down: status %d, want 503 without JSON\n%s", got.StatusCode, got.text)
	}
	s.start()
	if got := b.get(s.url("grafana", "/")); got.StatusCode != 200 {
		t.Errorf("with doorward back: status %d, want 200\n%s", got.StatusCode, s.log)
	}
}
