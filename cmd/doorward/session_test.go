package main

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestSessionCommands(t *testing.T) {
	s := newStack(t, twoHosts)
	alice, bob := s.browser(), s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	alice.get(s.url("wiki", "/"))
	bob.signIn(s.url("wiki", "/"), "bob")
	api := []string{"Accept", "application/json", "Sec-Fetch-Mode", "cors"}
	var list struct {
		Sessions []sessionInfo `json:"sessions"`
	}
	if err := json.Unmarshal([]byte(s.doorward("session", "list", "-o", "json")), &list); err != nil || len(list.Sessions) != 2 {
		t.Fatalf("%d sessions, %v", len(list.Sessions), err)
	}
	table := s.doorward("session", "list", "--user", "ALICE@example.com")
	if lines := strings.Split(strings.TrimSpace(table), "\n"); len(lines) != 2 || !strings.HasPrefix(lines[0], "SESSION") || !strings.Contains(lines[1], "alice@example.com  default") {
		t.Errorf("alice's sessions are\n%s", table)
	}
	if out := s.doorward("session", "revoke", "--user", "alice"); out != "1 session ended\n" {
		t.Errorf("got %q", out)
	}
	for _, host := range []string{"grafana", "wiki"} {
		if got := alice.get(s.url(host, "/"), api...); got.StatusCode != 401 {
			t.Errorf("alice at %s: status %d, want 401", host, got.StatusCode)
		}
	}
	if got := bob.get(s.url("wiki", "/"), api...); got.StatusCode != 200 {
		t.Errorf("bob: status %d, want 200", got.StatusCode)
	}
	alice.get(s.url("grafana", "/")) // the provider knows her still
	for _, info := range list.Sessions {
		if info.User == "bob" {
			s.doorward("session", "revoke", info.ID)
		}
	}
	if got := bob.get(s.url("wiki", "/"), api...); got.StatusCode != 401 {
		t.Errorf("bob: status %d, want 401", got.StatusCode)
	}
	if out := s.doorward("session", "revoke", "--all"); out != "1 session ended\n" {
		t.Errorf("got %q", out)
	}
	if got := alice.get(s.url("grafana", "/"), api...); got.StatusCode != 401 {
		t.Errorf("alice: status %d, want 401", got.StatusCode)
	}
}
