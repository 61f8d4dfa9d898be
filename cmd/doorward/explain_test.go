package main

import (
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// shownID finds the decision's id on the denied page or in a denial's JSON.
var shownID = regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`)

// TestExplainTellsTheOperatorAndNotThePerson goes the way of a question: somebody is denied, and names the id that is on the page.
func TestExplainTellsTheOperatorAndNotThePerson(t *testing.T) {
	s := newStack(t, twoHosts)
	mallory := s.browser()
	page := mallory.signIn(s.url("grafana", "/d/x?orgId=1"), "mallory")
	id := shownID.FindString(page.text)
	if page.StatusCode != 403 || id == "" {
		t.Fatalf("status %d, no decision id on\n%s", page.StatusCode, page.text)
	}
	for _, secret := range []string{".rego", "input.", "allow", "revision", "policies/", "package", "is undefined"} {
		if strings.Contains(page.text, secret) {
			t.Errorf("the denied page says %q\n%s", secret, page.text)
		}
	}
	got := s.run("explain", id, "--config", s.config())
	for _, want := range []string{
		"by         the running doorward's decision\n",
		"decision   " + id + ", ",
		"route      grafana (https://grafana.localhost:",
		"policy     grafana\n",
		"user       mallory@example.com, id mallory\n",
		"request    GET https://grafana.localhost/d/x?orgId=1\n",
		"session    ",
		"outcome    deny: the policy denies the request, for the reasons given\n",
		"answer     403\n",
		"reason     you are in no group that may use Grafana\n",
		"kept       for as long as all of that stays the same\n",
		"grafana.rego:", "input.user.groups is []\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	var x tried
	if err := json.Unmarshal([]byte(s.run("explain", id, "--config", s.config(), "-o", "json")), &x); err != nil || x.Explanation == nil || x.Input.Session == nil || !x.Current {
		t.Errorf("%v %+v", err, x)
	}
	program := s.browser().get(s.url("grafana", "/api"), "Accept", "application/json", "Sec-Fetch-Mode", "cors")
	id = shownID.FindString(program.text)
	if got := s.run("policy", "deps", "grafana", "--live", "--config", s.config()); !strings.Contains(got, "  live    0 of 1 decisions of the policy were kept ones (0.0 %)\n") {
		t.Errorf("%s", got)
	}
	if got := s.run("explain", id, "--config", s.config()); !strings.Contains(got, "outcome    unauthenticated: there is no session, so no rule has run") || strings.Contains(got, ".rego") {
		t.Errorf("%s", got)
	}
}

// TestExplainWhatWouldBe decides on live sessions, and by the files where there is none.
func TestExplainWhatWouldBe(t *testing.T) {
	s := newStack(t, twoHosts)
	s.browser().signIn(s.url("grafana", "/"), "alice")
	ask := func(args ...string) string {
		t.Helper()
		return s.run(append([]string{"explain", "--config", s.config(), "--route", "grafana", "--path", "/d/x"}, args...)...)
	}
	for name, row := range map[string]struct {
		args  []string
		wants []string
	}{
		"by address": {[]string{"--user", "Alice@Example.com"}, []string{"by         the running doorward, with the newest live session of Alice@Example.com\n",
			"groups     grafana-admins, engineering\n", "outcome    allow: ", `claims     {"role":"Admin"}`, `"sub":"alice"`, "session    "}},
		"by id":      {[]string{"--user", "alice"}, []string{"the newest live session of alice\n", "user       alice@example.com, id alice\n"}},
		"no session": {[]string{"--user", "bob@example.com", "--groups", "viewers"}, []string{"by         the files, with a user as the flags describe it, because bob@example.com has no live session\n", "groups     viewers\n"}},
		"anonymous":  {[]string{"--anonymous"}, []string{"by         the running doorward\n", "outcome    unauthenticated: there is no session, so no rule has run"}},
	} {
		got := ask(row.args...)
		for _, want := range row.wants {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in\n%s", name, want, got)
			}
		}
	}
}
