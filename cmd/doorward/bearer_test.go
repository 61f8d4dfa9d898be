package main

import (
	"encoding/json"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"doorward/authz/decision"
)

// api asks as a program does: no cookie, and a token unless it is "".
func (s *stack) api(target, token string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return s.browser().do(req)
}

const tokenRoutes = `
  - name: api
    from: https://grafana.localhost:{{.Port}}
    prefix: /api
    to: {{.Grafana}}
    policy: robots
    bearer: {service_tokens: true}
    streams: true
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: any_authenticated_user}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: public}
`

func TestServiceTokens(t *testing.T) {
	s := prepareStack(t, tokenRoutes)
	s.write("policies/robots.rego", "package robots\n\nallow if \"robots\" in input.user.groups\n\nclaims := {\"amr\": input.session.amr}\n")
	s.start()
	token := strings.TrimSpace(s.doorward("token", "create", "deploy", "--routes", "api", "--groups", "robots", "--expires", "1d"))
	weak := strings.TrimSpace(s.doorward("token", "create", "weak", "--routes", "api"))
	api := s.url("grafana", "/api/x")
	if got := s.api(api, token); got.StatusCode != 200 {
		t.Fatalf("status %d, want 200: %s\n%s", got.StatusCode, got.text, s.log)
	}
	seen := last(s.grafana).Header
	if c := claims(t, seen.Get(assertion)); c["sub"] != "service:deploy" || c["email"] != nil || c["amr"].([]any)[0] != "service_token" {
		t.Errorf("the JWT says %v", c)
	}
	if got := seen.Get("Authorization"); got != "" {
		t.Errorf("the upstream got the token: %q", got)
	}
	for name, row := range map[string]struct {
		token, url string
		want       int
	}{
		"a token without the group": {weak, api, 403},
		"none":                      {"", api, 401},
		"one that is not":           {token[:len(token)-1] + "A", api, 401},
		"a route that takes none":   {token, s.url("grafana", "/"), 401},
		"one that looks like a JWT": {"e30.e30.e30", api, 401},
	} {
		if got := s.api(row.url, row.token); got.StatusCode != row.want {
			t.Errorf("%s: status %d, want %d", name, got.StatusCode, row.want)
		}
	}
	alice := s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	got := alice.get(api, "Authorization", "Bearer mallory", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	if got.StatusCode != 401 || got.Header.Get("WWW-Authenticate") != `Bearer realm="grafana.localhost", error="invalid_token"` {
		t.Errorf("a wrong token beside a session: %d %q", got.StatusCode, got.Header.Get("WWW-Authenticate"))
	}
	s.api(s.url("wiki", "/"), token)
	if got := last(s.wiki).Header.Get("Authorization"); got != "Bearer "+token {
		t.Errorf("an application of its own tokens lost its Authorization: %q", got)
	}
	list := s.doorward("token", "list")
	if lines := strings.Split(strings.TrimSpace(list), "\n"); len(lines) != 3 || !strings.HasPrefix(lines[1], "deploy  api     robots") || strings.HasSuffix(lines[1], "-") {
		t.Errorf("the list is\n%s", list)
	}
	s.saysWho(t, "service:deploy")
	s.revokesAtOnce(t, "deploy", token, api)
	s.refuses(t, "there is no route \"nowhere\"", "token", "create", "x", "--routes", "nowhere")
	s.refuses(t, "takes no service tokens: set bearer", "token", "create", "x", "--routes", "grafana")
	s.refuses(t, "there is no service token \"deploy\"", "token", "revoke", "deploy")
}

// saysWho holds that the decision log has a decision of that subject.
func (s *stack) saysWho(t *testing.T, subject string) {
	t.Helper()
	for line := range strings.Lines(s.doorward("decisions", "tail", "--user", subject, "--follow=false", "-o", "json")) {
		var r decision.Record
		if err := json.Unmarshal([]byte(line), &r); err == nil && r.Subject == subject && r.Outcome == "allow" && r.Session != "" {
			return
		}
	}
	t.Errorf("no decision is of %s\n%s", subject, s.log)
}

// revokesAtOnce has an open stream, too, end.
func (s *stack) revokesAtOnce(t *testing.T, name, token, target string) {
	t.Helper()
	began, ended := make(chan struct{}), make(chan struct{})
	s.grafana.mu.Lock()
	s.grafana.app = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/api/stream" {
			w.WriteHeader(200)
			w.(http.Flusher).Flush()
			close(began)
			<-r.Context().Done()
			close(ended)
		}
	})
	s.grafana.mu.Unlock()
	go func() {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url("grafana", "/api/stream"), nil)
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+token)
		if res, err := s.browser().Do(req); err == nil {
			defer res.Body.Close()
			_, _ = res.Body.Read(make([]byte, 1))
		}
	}()
	await(t, began, "the stream to begin")
	s.doorward("token", "revoke", name)
	if got := s.api(target, token); got.StatusCode != 401 {
		t.Errorf("after its revocation: status %d, want 401", got.StatusCode)
	}
	await(t, ended, "the stream to end")
}

func await(t *testing.T, done <-chan struct{}, what string) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatalf("waited five seconds for %s", what)
	}
}

// refuses holds what a command says that fails.
func (s *stack) refuses(t *testing.T, says string, args ...string) {
	t.Helper()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, append(args, "--config", s.config())...).CombinedOutput()
	if err == nil || !strings.Contains(string(out), says) {
		t.Errorf("doorward %s: %v %s, want %q", strings.Join(args, " "), err, out, says)
	}
}
