package bolt

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/store"
)

// childStore names the store that a copy of the test program works on, in the place of the tests.
const childStore = "DOORWARD_TEST_CHILD_STORE"

func TestMain(m *testing.M) {
	if path := os.Getenv(childStore); path != "" {
		if err := child(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// child writes from several goroutines until it is killed, and prints what was confirmed: writer, number, version. Each batch is a
// pair of keys that are only good together, and an item that expires.
func child(path string) error {
	s, err := Open(path)
	if err != nil {
		return err
	}
	fmt.Println("open")
	var mu sync.Mutex
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				value := []byte(strconv.Itoa(i))
				v, err := s.Apply(context.Background(),
					store.Op{Key: fmt.Sprintf("left/%d", w), Value: value, Expect: store.Any},
					store.Op{Key: fmt.Sprintf("right/%d", w), Value: value, Expect: store.Any},
					store.Op{Key: fmt.Sprintf("expiring/%d/%d", w, i%50), Value: value, Expires: time.Now().Add(time.Second), Expect: store.Any})
				mu.Lock()
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				fmt.Println(w, i, v)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return nil
}

// TestKilled kills a process that writes, again and again: what it confirmed is there, and no half of a batch.
func TestKilled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	var last store.Version
	locked := func() {
		if _, err := Open(path); err == nil || !strings.Contains(err.Error(), "another process has it open") {
			t.Errorf("opened a store that another process has: %v", err)
		}
	}
	for round := range 5 {
		confirmed, version := runAndKill(t, path, time.Duration(50+37*round)*time.Millisecond, locked)
		locked = nil
		if version <= last {
			t.Fatalf("round %d: versions went from %d to %d", round, last, version)
		}
		s := openTest(t, path)
		for w, number := range confirmed {
			left, err := s.Get(t.Context(), "left/"+w)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			right, err := s.Get(t.Context(), "right/"+w)
			if err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
			got, err := strconv.Atoi(string(left.Value))
			if err != nil || got < number || got > number+1 {
				t.Errorf("round %d: writer %s confirmed %d, the store has %q", round, w, number, left.Value)
			}
			if string(left.Value) != string(right.Value) || left.Version != right.Version {
				t.Errorf("round %d: half of a batch: %v and %v", round, left, right)
			}
			last = max(last, left.Version)
		}
		if last < version {
			t.Errorf("round %d: version %d was confirmed, the store has %d", round, version, last)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// runAndKill returns the last number that each writer confirmed, and the last version. It calls locked, unless nil, while the process runs.
func runAndKill(t *testing.T, path string, after time.Duration, locked func()) (map[string]int, store.Version) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), childStore+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "open" {
		t.Fatalf("the child did not start: %q", lines.Text())
	}
	if locked != nil {
		locked()
	}
	kill := time.AfterFunc(after, func() { _ = cmd.Process.Kill() }) // SIGKILL
	defer kill.Stop()
	confirmed := map[string]int{}
	var last store.Version
	for lines.Scan() {
		var w string
		var i int
		var v store.Version
		if n, _ := fmt.Sscan(lines.Text(), &w, &i, &v); n < 3 {
			continue // cut off
		}
		confirmed[w] = i
		last = max(last, v)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	if len(confirmed) == 0 {
		t.Fatal("the child confirmed nothing")
	}
	return confirmed, last
}
