package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// benchPolicies are what routes are decided by, beside the demo's own policy.
var benchPolicies = map[string]string{
	"path": `package path

default allow := false

allow if {
	startswith(input.request.path, "/d/")
	not contains(input.request.headers["user-agent"], "curl")
	count(input.user.groups) > 0
}
`,
	"uncacheable": `package uncacheable

default allow := false

allow if {
	time.now_ns() > 0
	count(input.user.groups) > 0
}
`,
}

// demoPolicies has the policy of make demo.
const demoPolicies = "../demo/site/policies"

// child is a serving process.
type child struct {
	benchReady
	dir    string
	pid    int
	asks   io.Writer
	answer *bufio.Reader
}

// startChild starts one that has a route "bench" with that policy, and waits until it serves.
func startChild(b testing.TB, as, policy string, port, upstream, sessions int) *child {
	b.Helper()
	// Unix sockets' paths are short, so this is no b.TempDir, which has the benchmark's name in it.
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	writeBenchConfig(b, dir, policy, port, upstream)
	cmd := exec.Command(os.Args[0], dir, strconv.Itoa(sessions))
	cmd.Env = append(os.Environ(), benchServer+"="+as, "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	asks, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	answer, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { asks.Close(); cmd.Wait() })
	c := &child{dir: dir, pid: cmd.Process.Pid, asks: asks, answer: bufio.NewReader(answer)}
	line, err := c.answer.ReadBytes('\n')
	if err != nil {
		b.Fatalf("%s does not serve: %v", as, err)
	}
	if err := json.Unmarshal(line, &c.benchReady); err != nil {
		b.Fatal(err)
	}
	return c
}

func writeBenchConfig(b testing.TB, dir, policy string, port, upstream int) {
	b.Helper()
	policies := filepath.Join(dir, "policies")
	if text, ok := benchPolicies[policy]; ok {
		if err := os.Mkdir(policies, 0o700); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(policies, "bench.rego"), []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
	} else {
		var err error
		if policies, err = filepath.Abs(demoPolicies); err != nil {
			b.Fatal(err)
		}
	}
	text := fmt.Sprintf(`
idp: {issuer: "https://idp.example.com", client_id: doorward, client_secret: hush}
listen: {https: "127.0.0.1:%[1]d", http: "off"}
socket_dir: %[2]s/run
data_dir: %[2]s/data
decision_log: {to: %[2]s/decisions.log}
policies: [%[3]s]
routes:
  - {name: bench, from: "https://%[4]s:%[1]d", to: "http://127.0.0.1:%[5]d", policy: %[6]s}
`, port, dir, policies, benchHost, upstream, policy)
	if err := os.WriteFile(filepath.Join(dir, "doorward.yaml"), []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
}

// heap is how many bytes live in the child's heap.
func (c *child) heap(b testing.TB) float64 {
	b.Helper()
	if _, err := fmt.Fprintln(c.asks); err != nil {
		b.Fatal(err)
	}
	line, err := c.answer.ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(line), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// processCPU is how long the threads of a process have run so far, by /proc/PID/task/TID/schedstat, which counts nanoseconds. Threads that
// have ended are missing: a server's do not end.
func processCPU(b testing.TB, pid int) time.Duration {
	b.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatalf("no schedstat of process %d: %v", pid, err)
	}
	var total time.Duration
	for _, task := range tasks {
		text, err := os.ReadFile(task)
		if err != nil {
			continue // the thread has ended
		}
		ns, err := strconv.ParseInt(strings.Fields(string(text))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(ns)
	}
	return total
}

// processTicks is the same by user and system time in /proc/PID/stat, in ticks of 10 ms (proc(5)): coarse, but with threads that have ended.
func processTicks(b testing.TB, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	var total time.Duration
	for _, field := range fields[11:13] {
		ticks, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		total += time.Duration(ticks) * 10 * time.Millisecond
	}
	return total
}

// clocksAgree holds the two against each other: a figure that only one of them gives is none.
func clocksAgree(b testing.TB, pid int) {
	b.Helper()
	fine, coarse := processCPU(b, pid), processTicks(b, pid)
	if apart := (fine - coarse).Abs(); apart > fine/20+50*time.Millisecond {
		b.Errorf("process %d has run for %v by schedstat and for %v by stat", pid, fine, coarse)
	}
}
