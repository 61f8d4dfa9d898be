package main

import (
	"errors"
	"fmt"
	"net/http/httptest"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"doorward/authz/admin"
)

// command is what a person typed last, and what came of it.
type command struct {
	*stack
	line, out string
	status    int
}

// types runs a command; its words have no spaces in them.
func (s *stack) types(line string) command {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := exec.Command(path, append(strings.Fields(line), "--config", s.config())...)
	cmd.Dir = s.dir
	out, err := cmd.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		s.t.Fatal(err)
	}
	return command{s, line, string(out), cmd.ProcessState.ExitCode()}
}

// ends holds the exit status and what was printed, by expressions.
func (c command) ends(status int, patterns ...string) {
	c.t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(c.out) {
			c.t.Errorf("doorward %s: prints\n%swithout %s", c.line, c.out, p)
		}
	}
	if c.status != status {
		c.t.Fatalf("doorward %s: ends with %d, want %d\n%s\n%s", c.line, c.status, status, c.out, c.log)
	}
}

// TestRouteCommands pushes routes to a real Envoy as a person does, and sees them served.
func TestRouteCommands(t *testing.T) {
	s := newStack(t, twoHosts)
	route := func(name, to, policy, more string) string {
		return fmt.Sprintf("  - {name: %s, from: \"https://%s.localhost:%d\", to: \"%s\", policy: %s%s}\n", name, name, s.port, to, policy, more)
	}
	s.write("notes.yaml", "routes:\n"+route("notes", s.wiki.URL, "public", ""))
	s.write("more/tasks.yaml", "routes:\n"+route("tasks", s.wiki.URL, "public", ""))
	s.write("more/notes.yml", "routes:\n"+route("notes", s.grafana.URL, "any_authenticated_user", ""))

	s.types("route apply -f notes.yaml --dry-run").ends(0, `^\+name: notes$`, `^would create notes$`)
	s.within("notes", "/", 0)
	s.types("route diff -f notes.yaml").ends(2, `^would create notes$`)
	s.types("route apply -f notes.yaml").ends(0, `^\+policy: public$`, `^create notes$`, `^envoy edge: acknowledged after \d+ms$`)
	if got := s.status("notes", "/"); got != 200 {
		t.Errorf("acknowledged, and answered with %d", got)
	}
	s.types("route apply -f notes.yaml").ends(0, `^1 route as before$`)
	s.types("route diff -f notes.yaml").ends(0, `^1 route as before$`)
	s.types("route list").ends(0, `^notes +https://notes.localhost:\d+ +every path +http://127.0.0.1:\d+ +public +pushed +served +-$`, `^wiki .*doorward.yaml:\d+:\d+ +served`)
	s.types("route get notes").ends(0, `^status +served$`, `^policy: public$`)

	s.types("route apply -f more --prune").ends(0, `^-policy: public$`, `^\+policy: any_authenticated_user$`, `^create tasks\nupdate notes\nenvoy edge: ack`)
	if got := s.status("notes", "/"); got == 200 {
		t.Error("the new policy does not count")
	}
	s.types("route apply -f notes.yaml --prune").ends(0, `^update notes\ndelete tasks\n`)
	if got := s.status("tasks", "/"); got != 0 {
		t.Errorf("deleted, and answered with %d", got)
	}
	s.refusedRoutes(route)

	s.stop(syscall.SIGTERM)
	s.start()
	if got := s.status("notes", "/"); got != 200 {
		t.Errorf("after a restart: %d", got)
	}
	s.types("envoy list -o json").ends(0, `"node": "edge"`, `"CDS": "20`, `"current": true`)
	s.types("cert list").ends(0, `^notes.localhost +local CA +20`)
	s.types("route delete notes").ends(0, `^delete notes\nenvoy edge: acknowledged`)
	if got := s.status("notes", "/"); got != 0 {
		t.Errorf("deleted, and answered with %d", got)
	}
	s.describesTheLive()
}

// refusedRoutes: nothing of a bad change is made, all that is bad is said, and what an Envoy rejects leaves the rest alone.
func (s *stack) refusedRoutes(route func(name, to, policy, more string) string) {
	s.t.Helper()
	s.write("bad.yaml", "routes:\n"+route("fine", s.wiki.URL, "public", "")+route("nobody", s.wiki.URL, "none", "")+route("wiki", s.wiki.URL, "public", ", timeout: 5"))
	s.types("route apply -f bad.yaml -f notes.yaml").ends(1, `^bad.yaml:4:\d+: routes\[wiki\].timeout: "5" has no unit`, `^1 problem; nothing is changed$`)
	s.write("bad.yaml", strings.Replace(s.read("bad.yaml"), "timeout: 5", "timeout: 5s", 1))
	s.types("route apply -f bad.yaml").ends(1, `^bad.yaml:4:\d+: routes\[wiki\].name: "wiki" is the name of the route at .*doorward.yaml:\d+:\d+`)
	s.types("route list -o yaml").ends(0, `name: notes`)
	if out := s.doorward("route", "list"); strings.Contains(out, "fine") {
		s.t.Errorf("a part of a refused change is there:\n%s", out)
	}

	writeWeakPair(s.t, s.dir, "up")
	s.write("weak.yaml", "routes:\n"+route("weak", "https://127.0.0.1:1", "public", ", tls_client_cert_file: weak.pem, tls_client_key_file: weak.key")+
		route("fine", s.wiki.URL, "public", ""))
	s.types("route apply -f weak.yaml").ends(1, `host "weak.localhost".*envoy would refuse it: .*2048-bit`)
	s.types("route apply -f weak.yaml --validate off").ends(1, `^create fine, weak$`, `^envoy edge: rejected CDS .* and keeps its last good version: .*2048-bit`)
	if got := s.status("fine", "/"); got != 200 {
		s.t.Errorf("beside a rejected route: %d", got)
	}
	s.types("route list").ends(0, `^weak .* rejected +envoy "edge" rejected CDS`, `^fine .* served`)
	s.types("envoy list").ends(0, `^edge rejected CDS .*2048-bit`)
	s.types("route delete weak fine").ends(0, `^delete fine, weak$`)
}

// describesTheLive holds what a running program answers of its Envoy against the description.
func (s *stack) describesTheLive() {
	s.t.Helper()
	client := admin.NewClient(s.dir + "/data/" + controlSocket)
	for _, path := range []string{"/v1/envoys", "/v1/status", "/v1/routes", "/v1/certificates"} {
		w := httptest.NewRecorder()
		body, err := client.Stream(s.t.Context(), path, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		w.Body.ReadFrom(body)
		body.Close()
		w.Header().Set("Content-Type", "application/json")
		for _, fault := range described(s.t).faults("GET "+path, w) {
			s.t.Errorf("%s: %s", path, fault)
		}
	}
}
