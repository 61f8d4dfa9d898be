package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/authz"
	"doorward/authz/admin"
	"doorward/authz/config"
	"doorward/authz/decision"
	"doorward/authz/policy"
)

func TestTextLines(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 5e6, time.Local)
	for _, row := range []struct {
		record decision.Record
		count  int
		want   string
	}{
		{decision.Record{
			Time: at, Kind: "decision", ID: "1b4e28ba", Outcome: "deny", Status: 403, Route: "grafana", Method: "GET", Host: "grafana.example.com", Path: "/d/x",
			Subject: "bob", Email: "bob@example.com", Reasons: []string{"no \x1b[31m", "late"}, Took: 1234567,
		}, 0, `2026-03-01 12:00:00.005 deny            403 grafana  bob@example.com  GET grafana.example.com/d/x  "no \x1b[31m"  "late"  1.235ms  1b4e28ba`},
		{decision.Record{
			Time: at, Kind: "decision", ID: "2", Outcome: "unavailable", Status: 503, Route: "\x1b]0; x", Method: "G\nET", Host: "h", Path: "/\u202e", ClientIP: "192.0.2.7", Cause: "no store",
		}, 0, "2026-03-01 12:00:00.005 unavailable     503 \uFFFD]0;\uFFFDx  192.0.2.7  G\uFFFDET h/\uFFFD  \"no store\"  0s  2"},
		{decision.Record{
			Time: at, Kind: "shadow", ID: "3", Outcome: "allow", Route: "r", Method: "GET", Host: "h", Path: "/", ShadowPolicy: "next", ShadowOutcome: "deny", Differences: []string{"allow", "deny"},
		}, 0, "2026-03-01 12:00:00.005 shadow          - r  -  GET h/  next would deny, differs in allow,deny  0s  3"},
		{decision.Record{Kind: "decisions dropped"}, 7, "-- 7 decisions are missing here: they came faster than they were read"},
	} {
		if got := textLine(&row.record, row.count); got != row.want+"\n" {
			t.Errorf("\n got %swant %s", got, row.want)
		}
	}
}

// A fixture has the values of headers that let somebody in only where the policy reads them, and can be read again.
func TestFixturesHaveNoSecrets(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"plain.rego": "package plain\n\nallow if input.request.headers.accept\n",
		"reads.rego": "package reads\n\nallow if input.request.headers.authorization\n",
		"whole.rego": "package whole\n\nallow if some name, _ in input.request.headers\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, err := policy.Load(t.Context(), policy.Config{Paths: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	headers := map[string]string{"accept": "text/html", "authorization": "Bearer secret-1", "cookie": "app=secret-2"}
	for name, want := range map[string]map[string]string{
		"plain": {"accept": "text/html", "authorization": "[masked]", "cookie": "[masked]"},
		"reads": {"accept": "text/html", "authorization": "Bearer secret-1", "cookie": "[masked]"},
		"whole": headers,
	} {
		p, err := set.Policy(name)
		if err != nil {
			t.Fatal(err)
		}
		in, err := policy.Document{Request: policy.RequestDocument{Method: "GET", Path: "/", Headers: headers}}.Input()
		if err != nil {
			t.Fatal(err)
		}
		line, err := newCapture(authz.Recent{ID: "1", Route: &config.Route{Name: "r"}, Policy: p, Input: in, Outcome: "allow"})
		if err != nil {
			t.Fatal(err)
		}
		err = captures(bytes.NewReader(line), "fixture", func(c capture, in *policy.Input) error {
			got, _ := json.Marshal(in.Document().Request.Headers)
			if expected, _ := json.Marshal(want); string(got) != string(expected) || c.Policy != name {
				t.Errorf("%s: headers are %s, want %s", name, got, expected)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}

// run runs the program beside the stack's and returns what it prints.
func (s *stack) run(args ...string) string {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("doorward %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// until waits for something at most 10 s.
func (s *stack) until(what string, holds func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not after 10 s: %s\n%s", what, s.log)
		}
	}
}

// TestDecisionsAreLoggedFollowedAndCaptured goes the way of an operator: the log, its settings changed while it serves, tail, capture, replay.
func TestDecisionsAreLoggedFollowedAndCaptured(t *testing.T) {
	s := prepareStack(t, twoHosts)
	s.writeConfig(twoHosts + "decision_log: {to: decisions.log}\n")
	metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	s.write("doorward.yaml", strings.Replace(s.read("doorward.yaml"), `http: "off"`, `http: "off", metrics: "`+metrics+`"`, 1))
	s.start()
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	followed := new(syncBuffer)
	tail := exec.Command(path, "decisions", "tail", "--config", s.config(), "--last", "0", "--outcome", "deny", "--route", "grafana", "-o", "json")
	tail.Stdout, tail.Stderr = followed, followed
	if err := tail.Start(); err != nil {
		t.Fatal(err)
	}
	defer tail.Process.Kill()

	alice, mallory := s.browser(), s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	alice.get(s.url("grafana", "/d/x?token=secret-query"), "Authorization", "Bearer secret-token", "Cookie", "app=secret-cookie")
	mallory.signIn(s.url("grafana", "/"), "mallory")
	s.until("tail shows a denial", func() bool {
		mallory.get(s.url("grafana", "/denied"))
		return strings.Contains(followed.String(), `"email":"mallory@example.com"`)
	})
	if err := tail.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := tail.Wait(); err != nil {
		t.Errorf("an interrupted tail: %v", err)
	}
	if strings.Contains(followed.String(), `"outcome":"allow"`) {
		t.Errorf("tail shows what was not asked for:\n%s", followed)
	}
	s.until("the log has the last denial", func() bool { return strings.Contains(s.read("decisions.log"), `"path":"/denied"`) })
	if log := s.read("decisions.log"); !strings.Contains(log, `"msg":"decision"`) || strings.Contains(s.log.String(), `"msg":"decision"`) {
		t.Errorf("the decisions are not in their file, or elsewhere too:\n%s\n%s", log, s.log)
	}

	text := s.run("decisions", "tail", "--config", s.config(), "--follow=false", "--last", "1", "--user", "alice@example.com", "--path", "/d/")
	if !strings.Contains(text, " allow           200 grafana  alice@example.com  GET grafana.localhost/d/x  ") || strings.Count(text, "\n") != 1 {
		t.Errorf("the last of alice:\n%s", text)
	}
	fixture := filepath.Join(s.dir, "captured.jsonl")
	out := s.run("decisions", "capture", "--config", s.config(), "--last", "100", "--for", "200ms", "--route", "grafana", "-o", fixture)
	captured := s.read("captured.jsonl")
	if lines := strings.Count(captured, "\n"); lines < 3 || !strings.Contains(out, "captured ") {
		t.Errorf("%d requests captured: %s", lines, out)
	}
	if out := s.run("policy", "replay", "--config", s.config(), fixture); strings.Contains(out, "mallory") {
		t.Errorf("by the same policy something changes:\n%s", out)
	}
	s.write("policies/grafana.rego", "package grafana\n\nallow := true\n")
	if out, _ := exec.Command(path, "policy", "replay", "--config", s.config(), fixture).CombinedOutput(); !strings.Contains(string(out), "/denied") {
		t.Errorf("a policy that lets everybody in changes nothing:\n%s", out)
	}
	counted := s.scrape(metrics)
	for _, line := range []string{`doorward_decisions_total{outcome="deny",route="grafana"} `, `doorward_envoys_current 1`, `doorward_decision_log_records_total{result="dropped"} 0`} {
		if !strings.Contains(counted, "\n"+line) {
			t.Errorf("the metrics lack %s:\n%s", line, counted)
		}
	}
	for what, text := range map[string]string{"log": s.read("decisions.log"), "tail": followed.String(), "program's log": s.log.String(), "text": text} {
		if strings.Contains(text, "secret-") {
			t.Errorf("the %s has a secret:\n%s", what, text)
		}
	}
	if strings.Contains(captured, "secret-token") || strings.Contains(captured, "secret-cookie") || strings.Contains(captured, "__Host-doorward") {
		t.Errorf("a fixture has a secret:\n%s", captured)
	}
}

// scrape reads the metrics at their own address and at the control socket, which have the same.
func (s *stack) scrape(address string) string {
	s.t.Helper()
	body, err := admin.NewClient(filepath.Join(s.dir, "data", controlSocket)).Stream(s.t.Context(), "/metrics", nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer body.Close()
	private, err := io.ReadAll(body)
	if err != nil {
		s.t.Fatal(err)
	}
	res, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	public, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || bytes.Count(public, []byte("\ndoorward_")) != bytes.Count(private, []byte("\ndoorward_")) {
		s.t.Errorf("%v, status %d, at the address:\n%s\nat the socket:\n%s", err, res.StatusCode, public, private)
	}
	if other, err := http.Get("http://" + address + "/v1/status"); err != nil || other.StatusCode != 404 {
		s.t.Errorf("the address of the metrics has more than metrics: %v, %v", other, err)
	}
	return string(public)
}

// TestDecisionLogChangesWhileItServes changes where decisions go, and ends with a reader that goes away.
func TestDecisionLogChangesWhileItServes(t *testing.T) {
	s := prepareStack(t, twoHosts)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s.stdout = writer
	s.start()
	writer.Close()
	pid := s.program.Process.Pid
	alice := s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	s.until("the decision is on standard error", func() bool { return strings.Contains(s.log.String(), `"subject":"alice"`) })

	s.writeConfig(twoHosts + "decision_log: {to: decisions.log, mask: [subject, email, path]}\n")
	s.served()
	alice.get(s.url("grafana", "/masked"))
	s.until("the decision is in the file", func() bool { return strings.Contains(s.read("decisions.log"), `"path":"masked:`) })
	if log := s.read("decisions.log"); strings.Contains(log, "alice") || strings.Contains(log, "/masked") {
		t.Errorf("not masked:\n%s", log)
	}

	s.writeConfig(twoHosts + "decision_log: {to: stdout}\n")
	s.served()
	reader.Close()
	for range 3 {
		if got := alice.get(s.url("grafana", "/unread")); got.StatusCode != 200 {
			t.Errorf("status %d while nobody reads the log", got.StatusCode)
		}
	}
	s.until("the program's log says so", func() bool {
		return strings.Contains(s.log.String(), `"msg":"decisions cannot be logged; requests are decided all the same","to":"stdout","cause":"write /dev/stdout: broken pipe"`)
	})
	if err := s.program.Process.Signal(syscall.Signal(0)); err != nil || s.program.Process.Pid != pid {
		t.Errorf("the program is gone: %v", err)
	}
}
