package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"doorward/authz/session"
	"doorward/authz/store/bolt"
)

const (
	benchSessionHost = "grafana.example.com"
	liveSessions     = 100_000
)

// What children do with sessions in a directory: make them, or find each of those that were made and say what that took.
const (
	sessionsMade  = "sessions made"
	sessionsFound = "sessions found"
)

// BenchmarkLiveSessions says what 100,000 sessions take that are all in use, above the same process before the first of them was used. It is
// the process's own memory (RssAnon) that counts, once what is free was given back: the pages of the store's file are the kernel's to take.
func BenchmarkLiveSessions(b *testing.B) {
	dir := b.TempDir()
	runSessions(b, sessionsMade, dir, strconv.Itoa(liveSessions))
	out := runSessions(b, sessionsFound, dir)
	var idle, live float64
	if _, err := fmt.Sscan(out, &idle, &live); err != nil {
		b.Fatalf("%q: %v", out, err)
	}
	fmt.Printf("bench sessions_%d_rss %.0f MiB\n", liveSessions, live-idle)
	if live-idle > 100 {
		b.Errorf("%d sessions take %.0f MiB, want at most 100", liveSessions, live-idle)
	}
}

func runSessions(b *testing.B, as string, args ...string) string {
	b.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), benchServer+"="+as)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%s: %v", as, err)
	}
	return string(out)
}

// benchSessionStore is what sessions need, in a directory.
func benchSessionStore(ctx context.Context, dir string) (*session.Sessions, func() error, error) {
	db, err := bolt.Open(filepath.Join(dir, "store"))
	if err != nil {
		return nil, nil, err
	}
	sealer, err := session.OpenSealer(filepath.Join(dir, "key"))
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	all, err := session.New(session.Config{Store: db, Sealer: sealer})
	if err != nil {
		return nil, nil, errors.Join(err, db.Close())
	}
	ended := make(chan error, 1)
	go func() { ended <- all.Run(ctx) }()
	return all, func() error { return errors.Join(<-ended, db.Close()) }, nil
}

// benchSessionsMain is the child's main function.
func benchSessionsMain(as string) error {
	debug.SetGCPercent(gcPercent)
	ctx, stop := context.WithCancel(context.Background())
	all, end, err := benchSessionStore(ctx, os.Args[1])
	if err != nil {
		stop()
		return err
	}
	if as == sessionsMade {
		err = makeSessions(ctx, all, os.Args[1], os.Args[2])
	} else {
		err = findSessions(ctx, all, os.Args[1])
	}
	stop()
	return errors.Join(err, end())
}

// makeSessions leaves their cookies in a file.
func makeSessions(ctx context.Context, all *session.Sessions, dir, count string) error {
	n, err := strconv.Atoi(count)
	if err != nil {
		return err
	}
	cookies, err := signInMany(ctx, all, benchSessionHost, n)
	if err != nil {
		return err
	}
	text, err := json.Marshal(cookies)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "cookies"), text, 0o600)
}

// findSessions prints the resident memory before each of them was looked up, and after, in MiB.
func findSessions(ctx context.Context, all *session.Sessions, dir string) error {
	text, err := os.ReadFile(filepath.Join(dir, "cookies"))
	if err != nil {
		return err
	}
	var cookies []string
	if err := json.Unmarshal(text, &cookies); err != nil {
		return err
	}
	for _, cookie := range cookies[:1] { // until what is found is kept: the store is watched
		if _, err := all.Find(ctx, cookie, benchSessionHost); err != nil {
			return err
		}
	}
	if err := printResident(); err != nil {
		return err
	}
	for _, cookie := range cookies {
		if _, err := all.Find(ctx, cookie, benchSessionHost); err != nil {
			return err
		}
	}
	return printResident()
}

func printResident() error {
	debug.FreeOSMemory()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	var kib float64
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return fmt.Errorf("RssAnon in /proc/self/status: %w", err)
	}
	fmt.Println(kib / 1024)
	return nil
}

// BenchmarkSessionLookup asks for sessions that are all held ready, the common path: it reads memory only.
func BenchmarkSessionLookup(b *testing.B) {
	const lookups = 1_000_000
	ctx, stop := context.WithCancel(b.Context())
	all, end, err := benchSessionStore(ctx, b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		stop()
		if err := end(); err != nil {
			b.Error(err)
		}
	})
	cookies, err := signInMany(ctx, all, benchSessionHost, benchSessions)
	if err != nil {
		b.Fatal(err)
	}
	find := func(n int) time.Duration {
		begun := time.Now()
		for i := range n {
			if _, err := all.Find(ctx, cookies[i%len(cookies)], benchSessionHost); err != nil {
				b.Fatal(err)
			}
		}
		return time.Since(begun)
	}
	find(2 * benchSessions)
	fmt.Printf("bench session_lookup %d ns\n", find(lookups).Nanoseconds()/lookups)
}
