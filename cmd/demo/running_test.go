package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/cmd/demo/upstream"
)

// running is the demo as a person runs it: its own process, with doorward and Envoy below it.
type running struct {
	*demo            // port and directory
	bin     string   // the directory of the programs
	control string   // address
	others  []string // origins that belong to it beside the demo's own
}

// runDemo builds the programs, starts the demo and waits until it says that it is ready. At the test's end it gets a SIGTERM and must
// end well, and doorward must have logged no error.
func runDemo(t *testing.T) *running {
	t.Helper()
	bin := build(t)
	r := &running{demo: newDemo(t), bin: bin, control: freeAddress(t)}
	cmd := exec.Command(filepath.Join(bin, "demo"), "--dir", r.dir, "--control", r.control)
	cmd.Env = append(os.Environ(), "DEMO_PORT="+strconv.Itoa(r.port))
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ready, ended := make(chan string, 1), make(chan error, 1)
	go func() {
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			if strings.HasPrefix(lines.Text(), "ready: ") {
				ready <- lines.Text()
			}
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		end(t, cmd.Process, ended)
		if log := read(r.path("doorward.log")); strings.Contains(log, "DATA RACE") || strings.Contains(log, "ERROR") {
			t.Errorf("doorward's log:\n%s", log)
		}
	})
	select {
	case line := <-ready:
		want := fmt.Sprintf("ready: %s  users: alice, bob, mallory (password = name)", r.url("grafana", "/"))
		if line != want {
			t.Errorf("the demo says\n%s\nwant\n%s", line, want)
		}
	case err := <-ended:
		ended <- err
		t.Fatal("the demo ended before it was ready")
	case <-time.After(readyWithin):
		t.Fatal("the demo is not ready after ", readyWithin)
	}
	return r
}

// build makes both programs in a directory of their own, with the race detector when the test has it.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	args := []string{"build", "-o", dir + "/"}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "doorward/cmd/doorward", "doorward/cmd/demo")...).CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return dir
}

// end tells the demo to end and waits for it, a little longer than the demo waits for doorward.
func end(t *testing.T, demo *os.Process, ended <-chan error) {
	_ = demo.Signal(syscall.SIGTERM) // that it is gone already is found below
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("the demo ended with %v", err)
		}
	case <-time.After(stopWithin + 5*time.Second):
		_ = demo.Kill()
		t.Error("the demo did not end")
	}
}

func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", loopback(0))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// url is an address on one of the demo's hosts.
func (r *running) url(host, path string) string {
	return fmt.Sprintf("https://%s.localhost:%d%s", host, r.port, path)
}

// requests is what reached the applications since the last call.
func (r *running) requests(t *testing.T) []upstream.Request {
	t.Helper()
	client := http.Client{Timeout: 5 * time.Second}
	resp, err := client.Get("http://" + r.control)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var seen struct {
		Requests []upstream.Request `json:"requests"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	reset, err := http.NewRequestWithContext(t.Context(), http.MethodDelete, "http://"+r.control, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err = client.Do(reset); err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return seen.Requests
}

// keys are the hashes of the certificates' keys, for a browser that is to trust these and no others: the demo's CA vouched for each.
func (r *running) keys(ctx context.Context, t *testing.T, more ...string) string {
	t.Helper()
	ca, err := os.ReadFile(r.path(caFile))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatalf("%s holds no certificate", r.path(caFile))
	}
	var keys []string
	for _, host := range append([]string{"grafana", "wiki", "auth"}, more...) {
		dialer := tls.Dialer{Config: &tls.Config{RootCAs: roots, ServerName: host + ".localhost"}}
		conn, err := dialer.DialContext(ctx, "tcp", loopback(r.port))
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		sum := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].RawSubjectPublicKeyInfo)
		keys = append(keys, base64.StdEncoding.EncodeToString(sum[:]))
		conn.Close()
	}
	return strings.Join(keys, ",")
}
