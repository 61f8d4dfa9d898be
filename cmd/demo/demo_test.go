package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/policy"
)

func TestPortFrom(t *testing.T) {
	rows := []struct {
		text string
		want int
		err  string
	}{
		{"", 8443, ""},
		{"9443", 9443, ""},
		{"65533", 65533, ""},
		{"65534", 0, `DEMO_PORT is "65534"; it must be a port from 1 to 65533, and the two after it are used too`},
		{"0", 0, `DEMO_PORT is "0"; it must be a port from 1 to 65533, and the two after it are used too`},
		{"https", 0, `DEMO_PORT is "https"; it must be a port from 1 to 65533, and the two after it are used too`},
	}
	for _, r := range rows {
		got, err := portFrom(r.text)
		if got != r.want || message(err) != r.err {
			t.Errorf("portFrom(%q) = %d, %v; want %d, %s", r.text, got, err, r.want, r.err)
		}
	}
}

// TestPolicies decides with the demo's own policies.
func TestPolicies(t *testing.T) {
	set, err := policy.Load(t.Context(), policy.Config{Paths: []string{"site/policies"}})
	if err != nil {
		t.Fatal(err)
	}
	const inNoGroup = "you are in no group that may use Grafana"
	const noWriting = "only engineering may change the wiki"
	rows := []struct {
		policy, user, method string
		allow                bool
		reason               string
		role                 any
	}{
		{"grafana", "alice", "GET", true, "", "Admin"},
		{"grafana", "bob", "GET", true, "", "Viewer"},
		{"grafana", "mallory", "GET", false, inNoGroup, nil},
		{"wiki", "alice", "GET", true, "", nil},
		{"wiki", "alice", "POST", true, "", nil},
		{"wiki", "bob", "HEAD", true, "", nil},
		{"wiki", "bob", "POST", false, noWriting, nil},
		{"wiki", "mallory", "GET", true, "", nil},
		{"wiki", "mallory", "DELETE", false, noWriting, nil},
	}
	for _, r := range rows {
		t.Run(r.policy+" "+r.user+" "+r.method, func(t *testing.T) {
			p, err := set.Policy(r.policy)
			if err != nil {
				t.Fatal(err)
			}
			got := p.Decide(t.Context(), &policy.Input{User: user(t, r.user), Session: &policy.Session{}, Request: policy.Request{Method: r.method}})
			if got.Err != nil || got.Allow != r.allow || strings.Join(got.Reasons, "; ") != r.reason {
				t.Errorf("allowed is %v because %q, %v; want %v because %q", got.Allow, got.Reasons, got.Err, r.allow, r.reason)
			}
			if r.role != nil && got.Claims["role"] != r.role {
				t.Errorf("claims are %v, want role %v", got.Claims, r.role)
			}
		})
	}
}

// user is one of the demo's, as policies see it.
func user(t *testing.T, name string) *policy.User {
	t.Helper()
	for _, u := range users() {
		if u.Username == name {
			return &policy.User{ID: name, Email: u.Email, EmailVerified: true, Name: u.Name, Groups: u.Groups}
		}
	}
	t.Fatalf("no user %s", name)
	return nil
}

func TestTheConfigurationIsGood(t *testing.T) {
	d := newDemo(t)
	if err := d.openPorts(); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := d.writeSite(); err != nil {
		t.Fatal(err)
	}
	mine := fmt.Sprintf("routes:\n  - {name: mine, from: \"https://mine.localhost:%d\", to: \"http://127.0.0.1:3000\", policy: any_authenticated_user}\n", d.port)
	if err := os.WriteFile(d.path("routes/mine.yaml"), []byte(mine), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.writeSite(); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(d.path("doorward.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range c.Routes {
		names = append(names, r.Name)
	}
	slices.Sort(names)
	if got := strings.Join(names, " "); got != "grafana grafana-public mine wiki" {
		t.Errorf("the routes are %s", got)
	}
	if got, want := c.Listen.HTTPS, loopback(d.port); got != want {
		t.Errorf("https listens on %s, want %s", got, want)
	}
}

// TestWhatAPersonChangedIsKept starts over a policy that somebody edited, and over one that they deleted.
func TestWhatAPersonChangedIsKept(t *testing.T) {
	d := newDemo(t)
	if err := d.openPorts(); err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if _, err := d.writeSite(); err != nil {
		t.Fatal(err)
	}
	if got, want := d.policiesNote(), " (yours to edit: a start leaves what you change)"; got != want {
		t.Errorf("at first it says %q, want %q", got, want)
	}
	shipped := read(d.path("policies/grafana.rego"))
	const mine = "package wiki\n\nallow := false\n"
	for name, text := range map[string]string{"wiki.rego": mine, "notes.rego": "package notes\n"} {
		if err := os.WriteFile(d.path("policies/"+name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(d.path("policies/grafana.rego")); err != nil {
		t.Fatal(err)
	}
	if _, err := d.writeSite(); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"wiki.rego": mine, "notes.rego": "package notes\n", "grafana.rego": shipped} {
		if got := read(d.path("policies/" + name)); got != want || want == "" {
			t.Errorf("policies/%s holds\n%s\nwant\n%s", name, got, want)
		}
	}
	if got, want := d.policiesNote(), " (changed: wiki.rego; delete a file to get the demo's own back)"; got != want {
		t.Errorf("then it says %q, want %q", got, want)
	}
}

func TestAPortInUse(t *testing.T) {
	for offset, part := range []string{"https", "http", "provider"} {
		t.Run(part, func(t *testing.T) {
			d := newDemo(t)
			taken, err := net.Listen("tcp", loopback(d.port+offset))
			if err != nil {
				t.Fatal(err)
			}
			defer taken.Close()
			d.doorward = script(t, "exit 3")
			want := fmt.Sprintf("DEMO_PORT: 127.0.0.1:%d is in use by another program; stop that one or choose another port, as in: DEMO_PORT=", d.port+offset)
			if err := d.run(t.Context()); err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("run = %v\nwant %s...", err, want)
			}
		})
	}
}

func TestADoorwardThatEndsEarlyIsShown(t *testing.T) {
	d := newDemo(t)
	d.doorward = script(t, `echo "$1 $2"; for i in $(seq 30); do echo line $i >&2; done; exit 3`)
	err := d.run(t.Context())
	lines := strings.Split(message(err), "\n")
	if len(lines) != 21 || !strings.HasPrefix(lines[0], "doorward ended with exit status 3; its last lines in ") || lines[1] != "line 11" || lines[20] != "line 30" {
		t.Errorf("run = %v", err)
	}
}

// TestTheEndIsWaitedFor tells the demo to end while doorward takes its time to.
func TestTheEndIsWaitedFor(t *testing.T) {
	d := newDemo(t)
	var out bytes.Buffer
	d.out = &out
	said := filepath.Join(t.TempDir(), "said")
	d.doorward = script(t, `trap 'sleep 0.3; echo ended >`+said+`; exit 0' TERM; echo started >`+said+`; while :; do sleep 0.05; done`)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- d.run(ctx) }()
	for begun := time.Now(); read(said) != "started\n"; time.Sleep(10 * time.Millisecond) {
		if time.Since(begun) > 10*time.Second {
			t.Fatal("doorward was not started")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Errorf("run = %v", err)
	}
	if got := read(said); got != "ended\n" {
		t.Errorf("doorward said %q: it was not waited for", got)
	}
	if strings.Contains(out.String(), "ready:") {
		t.Errorf("it said that it is ready:\n%s", out.String())
	}
}

func TestTheKeyIsKept(t *testing.T) {
	file := filepath.Join(t.TempDir(), "idp.key")
	first, err := keptKey(file)
	if err != nil {
		t.Fatal(err)
	}
	second, err := keptKey(file)
	if err != nil || !first.Equal(second) {
		t.Errorf("another key after a restart (%v)", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key's mode is %v (%v)", info.Mode(), err)
	}
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := keptKey(file); message(err) != "the provider's key: "+file+" holds none; delete it and a new one is made" {
		t.Errorf("a broken key: %v", err)
	}
}

func TestAnnounce(t *testing.T) {
	d := newDemo(t)
	var out bytes.Buffer
	d.out, d.port = &out, 8443
	d.announce()
	if first, _, _ := strings.Cut(out.String(), "\n"); first != "ready: https://grafana.localhost:8443/  users: alice, bob, mallory (password = name)" {
		t.Errorf("the first line is %q", first)
	}
}

func TestControlIsOnLoopbackOnly(t *testing.T) {
	d := newDemo(t)
	d.control, d.doorward = "0.0.0.0:0", script(t, "exit 0")
	want := `--control "0.0.0.0:0" must be a loopback address with a port: it shows identity JWTs`
	if err := d.run(t.Context()); message(err) != want {
		t.Errorf("run = %v\nwant %s", err, want)
	}
}

// newDemo has three free ports and a directory of its own.
func newDemo(t *testing.T) *demo {
	t.Helper()
	for port := 20000 + os.Getpid()%10000; port < 60000; port += 3 {
		free := true
		for offset := range 3 {
			l, err := net.Listen("tcp", loopback(port+offset))
			if err != nil {
				free = false
				continue
			}
			l.Close()
		}
		if free {
			return &demo{port: port, dir: t.TempDir(), out: new(bytes.Buffer)}
		}
	}
	t.Fatal("no three free ports in a row")
	return nil
}

// script stands in for doorward where only its start and end matter.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "doorward")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(file string) string {
	text, _ := os.ReadFile(file)
	return string(text)
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
