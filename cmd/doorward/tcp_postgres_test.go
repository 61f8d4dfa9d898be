package main

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newPostgres starts a PostgreSQL of its own, and returns its address. It does not run as root, so where the tests do it is another user's.
func newPostgres(t *testing.T) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	if _, err := exec.LookPath("psql"); err != nil || len(found) == 0 {
		if os.Getenv("DOORWARD_E2E") == "1" {
			t.Fatal("no PostgreSQL: install the Debian package postgresql")
		}
		t.Skip("SKIPPED: this test runs a real PostgreSQL, Debian's postgresql; make test runs it (DOORWARD_E2E=1)")
	}
	bin, port := filepath.Dir(found[len(found)-1]), freePort(t)
	dir, err := os.MkdirTemp("", "dw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	as := new(syscall.SysProcAttr)
	if os.Geteuid() == 0 {
		who, err := user.Lookup("postgres")
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		as.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	log := new(syncBuffer)
	run := func(name string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(bin, name), args...)
		cmd.Dir, cmd.SysProcAttr, cmd.Stdout, cmd.Stderr = dir, as, log, log
		return cmd
	}
	data := filepath.Join(dir, "data")
	if err := run("initdb", "-D", data, "-U", "app", "-A", "trust", "--no-sync").Run(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, log)
	}
	server := run("postgres", "-D", data, "-k", dir, "-h", "127.0.0.1", "-p", fmt.Sprint(port), "-F")
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		server.Process.Signal(syscall.SIGINT) // fast shutdown
		server.Wait()
	})
	address := net.JoinHostPort("127.0.0.1", fmt.Sprint(port))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if conn, err := net.Dial("tcp", address); err == nil {
			conn.Close()
			return address
		}
		if time.Now().After(deadline) {
			t.Fatalf("PostgreSQL does not listen\n%s", log)
		}
	}
}

// TestPostgreSQL has psql work through the edge, as somebody who is signed in, and ends with the session.
func TestPostgreSQL(t *testing.T) {
	externalParts(t)
	database := newPostgres(t)
	s := newStack(t, `
  - {name: db, from: "tcp+https://db.localhost:5432", to: "tcp://`+database+`", policy: grafana}
`)
	c := s.connect("db.localhost:5432", t.TempDir(), "--listen", "127.0.0.1:0").start()
	alice := s.browser()
	alice.lets(alice.signIn(c.says(asksToSignIn), "alice"))
	_, port, err := net.SplitHostPort(c.address())
	if err != nil {
		t.Fatal(err)
	}
	psql := func(sql string) *exec.Cmd {
		return exec.CommandContext(t.Context(), "psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", port, "-U", "app", "-d", "postgres", "-c", sql)
	}
	out, err := psql(`create table letters as select i, repeat('x', 1000) as text from generate_series(1, 2000) i; select sum(length(text)) from letters`).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "2000000") {
		t.Fatalf("%v\n%s\n%s", err, out, c.said)
	}
	if out, err := psql("copy letters to stdout").Output(); err != nil || len(out) < 2_000_000 {
		t.Errorf("%d bytes, %v", len(out), err)
	}
	s.openStreams(0) // those of the first two have ended
	sleeps := psql("select pg_sleep(30)")
	var said syncBuffer
	sleeps.Stdout, sleeps.Stderr = &said, &said
	if err := sleeps.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sleeps.Process.Kill() })
	s.openStreams(1)
	s.revoke("alice@example.com")
	start := time.Now()
	if err := sleeps.Wait(); err == nil || !strings.Contains(said.String(), "server closed the connection unexpectedly") || time.Since(start) > 2*time.Second {
		t.Errorf("%v after the session's end: %v, %s", time.Since(start), err, &said)
	}
}
