package main

import (
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestKeysRotateBehindEnvoy has an application that verifies as Grafana does, and caches the keys for as long as it may, see one key follow
// another, and a file replaced, with no request that it does not believe.
func TestKeysRotateBehindEnvoy(t *testing.T) {
	s := guideStack(t, nil)
	s.stop(syscall.SIGTERM)
	genkeys(t, s)
	before := s.read("doorward.yaml")
	s.write("doorward.yaml", before+"\njwt: {consumer_cache: 1s}\n")
	s.start()
	alice := s.browser()
	alice.signIn(s.url("grafana", "/profile"), "alice")
	seen := map[string]bool{}
	profile := func() {
		t.Helper()
		page := alice.get(s.url("grafana", "/profile"))
		if n := strings.Count(page.text, "Synced via JWT"); n != 3 {
			t.Fatalf("%d of name, e-mail and user name are synced via JWT\n%s\n%s", n, page.text, s.log)
		}
		seen[s.key("active")] = true
	}
	changes := []func(){
		func() { s.doorward("key", "rotate") },
		func() {
			s.write("key.pem", s.read("one.pem"))
			s.write("doorward.yaml", before+"\njwt: {consumer_cache: 1s, signing_key_file: key.pem}\n")
		},
		func() { s.write("key.pem", s.read("two.pem")) },
	}
	for i, change := range changes {
		change()
		for end := time.Now().Add(20 * time.Second); len(seen) < i+2; {
			if time.Now().After(end) {
				t.Fatalf("after change %d the same key signs\n%s", i+1, s.log)
			}
			profile()
		}
		for range 10 {
			profile()
		}
	}
}

// genkeys writes two keys.
func genkeys(t *testing.T, s *stack) {
	t.Helper()
	for _, name := range []string{"one.pem", "two.pem"} {
		text, err := newSigningKey()
		if err != nil {
			t.Fatal(err)
		}
		s.write(name, string(text))
	}
}

// doorward runs a command on the running program.
func (s *stack) doorward(args ...string) string {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.Command(path, append(args, "--config", s.config())...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("doorward %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// key is the id of the key in a state.
func (s *stack) key(state string) string {
	s.t.Helper()
	for line := range strings.Lines(s.doorward("key", "list")) {
		if fields := strings.Fields(line); len(fields) > 1 && fields[1] == state {
			return fields[0]
		}
	}
	return ""
}
