package envoy

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"doorward/xds/cert"
	"doorward/xds/node"
)

func TestEnvoyTakesTheBootstrap(t *testing.T) {
	validates(t, BootstrapConfig{Node: "edge-1", SocketDir: socketDir(t)})
}

func TestEnvoyTakesTheBootstrapOfAnotherMachine(t *testing.T) {
	dir := socketDir(t)
	secrets, err := Secrets(dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, root := nodePair(t)
	for name, text := range map[string][]byte{NodeSecrets: secrets, NodeRoot: root, NodePair: pair} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, address := range []string{"doorward.internal:9443", "127.0.0.1:9443", "[::1]:9443"} {
		validates(t, BootstrapConfig{Node: "edge-1", Cluster: "eu", SocketDir: dir, Remote: address})
	}
}

// nodePair makes a node's key and certificate, and that of the CA.
func nodePair(t *testing.T) (pair, root []byte) {
	t.Helper()
	ca, err := cert.NewAuthority(t.TempDir(), "CA of nodes")
	if err != nil {
		t.Fatal(err)
	}
	key, err := node.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := ca.Issue(x509.Certificate{}, request.PublicKey, time.Now(), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if pair, err = key.Pair(chain); err != nil {
		t.Fatal(err)
	}
	return pair, ca.Root()
}

// validates has Envoy look at a bootstrap.
func validates(t *testing.T, c BootstrapConfig) {
	t.Helper()
	path := realEnvoy(t)
	out, err := Bootstrap(c)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "envoy.json")
	if err := os.WriteFile(file, out, 0o600); err != nil {
		t.Fatal(err)
	}
	answer, err := exec.CommandContext(t.Context(), path, "--mode", "validate", "--log-level", "warning", "-c", file).CombinedOutput()
	if err != nil || strings.TrimSpace(string(answer)) != "configuration '"+file+"' OK" {
		t.Errorf("%v: %s", err, answer)
	}
}

func TestAnEnvoyThatRefusesToStartIsGivenUp(t *testing.T) {
	c, _ := childConfig(t, realEnvoy(t))
	c.LogLevel = "loud"
	err := Run(t.Context(), c)
	if err == nil || !strings.HasPrefix(err.Error(), "envoy: exit status 1: ") || !strings.Contains(err.Error(), "loud") ||
		!strings.HasSuffix(err.Error(), "; given up after 5 tries") {
		t.Errorf("Run = %v", err)
	}
}

func TestABinaryThatCannotRunIsAnError(t *testing.T) {
	c, _ := childConfig(t, "/nonexistent/envoy")
	want := "envoy: start /nonexistent/envoy: fork/exec /nonexistent/envoy: no such file or directory"
	if err := Run(t.Context(), c); err == nil || err.Error() != want {
		t.Errorf("Run = %v\nwant %s", err, want)
	}
}

// TestEnvoyIsStartedAgain kills it and finds another one serving.
func TestEnvoyIsStartedAgain(t *testing.T) {
	edge := startEdge(t, time.Second)
	before := edge.pid(t)
	if got := edge.get(t, "/"); got != "upstream" {
		t.Fatalf("answer %q", got)
	}
	if pgid, err := syscall.Getpgid(before); err != nil || pgid == syscall.Getpgrp() {
		t.Errorf("envoy is in our process group (%d, %v): a Ctrl-C in the terminal would end it undrained", pgid, err)
	}
	if err := syscall.Kill(before, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "another envoy", func() bool { return edge.pid(t) != before })
	edge.ready(t)
	if got := edge.get(t, "/"); got != "upstream" {
		t.Errorf("answer %q after the restart", got)
	}
	if log := edge.log.String(); !strings.Contains(log, `"envoy: signal: killed`) {
		t.Errorf("the log does not say how it died:\n%s", log)
	}
	if err := edge.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
}

func TestAnIdleEnvoyEndsAtOnce(t *testing.T) {
	edge := startEdge(t, 30*time.Second)
	edge.get(t, "/") // leaves an idle connection behind
	begun := time.Now()
	if err := edge.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if took := time.Since(begun); took > 3*time.Second {
		t.Errorf("it took %v to end an idle envoy", took)
	}
	if log := edge.log.String(); strings.Contains(log, "level=WARN") || strings.Contains(log, "level=ERROR") {
		t.Errorf("a clean end is in the log as something else:\n%s", log)
	}
	if err := syscall.Kill(edge.pid(t), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("envoy is still there: %v", err)
	}
}

func TestARequestUnderWayIsFinished(t *testing.T) {
	edge := startEdge(t, 30*time.Second)
	slow := make(chan string, 1)
	go func() { slow <- edge.get(t, "/slow") }()
	<-edge.arrived
	stopped := make(chan error, 1)
	go func() { stopped <- edge.stop() }()
	select {
	case err := <-stopped:
		t.Fatalf("Run returned (%v) while a request was under way", err)
	case <-time.After(500 * time.Millisecond):
	}
	close(edge.release)
	if got := <-slow; got != "upstream" {
		t.Errorf("the slow request got %q", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run = %v", err)
	}
	if c, err := net.Dial("tcp", edge.addr); err == nil {
		c.Close()
		t.Error("the listener is still open")
	}
}

func TestTheGraceIsTheMost(t *testing.T) {
	edge := startEdge(t, 500*time.Millisecond)
	slow := make(chan string, 1)
	go func() { slow <- edge.get(t, "/slow") }()
	<-edge.arrived
	begun := time.Now()
	if err := edge.stop(); err != nil {
		t.Errorf("Run = %v", err)
	}
	if took := time.Since(begun); took < 500*time.Millisecond || took > 3*time.Second {
		t.Errorf("it took %v, want about the grace of 500 ms", took)
	}
	if got := <-slow; got == "upstream" {
		t.Error("the slow request was answered")
	}
	if log := edge.log.String(); !strings.Contains(log, `msg="envoy is ended undrained"`) {
		t.Errorf("the log does not tell:\n%s", log)
	}
}

// TestEnvoyDiesWithItsParent runs a program that runs Envoy, and kills it in the way that lets it clean up nothing.
func TestEnvoyDiesWithItsParent(t *testing.T) {
	path := realEnvoy(t)
	parent := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestParentOfEnvoy$")
	parent.Env = append(os.Environ(), "PARENT_OF="+path, "PARENT_DIR="+socketDir(t))
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for buf := make([]byte, 4096); pid == 0; {
		n, err := out.Read(buf)
		if err != nil {
			t.Fatalf("the parent ended: %v", err)
		}
		pid = startedPID(string(buf[:n]))
	}
	time.Sleep(time.Second) // Envoy asks for the signal early in its start
	if err := syscall.Kill(pid, 0); err != nil {
		t.Fatalf("envoy is not there: %v", err)
	}
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	eventually(t, "envoy's end", func() bool { return !alive(pid) })
}

// TestParentOfEnvoy is the program of the test above and does nothing by itself.
func TestParentOfEnvoy(t *testing.T) {
	path := os.Getenv("PARENT_OF")
	if path == "" {
		return
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = Run(ctx, ChildConfig{Path: path, Bootstrap: BootstrapConfig{Node: "n", SocketDir: os.Getenv("PARENT_DIR")}, Log: log})
}

// alive says whether a process runs; one that only waits to be collected does not.
func alive(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	_, state, _ := bytes.Cut(text, []byte(") "))
	return !bytes.HasPrefix(state, []byte("Z"))
}

func startedPID(log string) int {
	found := regexp.MustCompile(`msg="envoy started" pid=(\d+)`).FindAllStringSubmatch(log, -1)
	if len(found) == 0 {
		return 0
	}
	pid, _ := strconv.Atoi(found[len(found)-1][1])
	return pid
}

// edge is a running Envoy with one listener and one upstream.
type edge struct {
	addr    string
	admin   *Admin
	log     *logBuffer
	arrived chan struct{} // a request for /slow came
	release chan struct{} // closed to answer it
	cancel  context.CancelFunc
	ended   chan error
}

func startEdge(t *testing.T, grace time.Duration) *edge {
	t.Helper()
	c, log := childConfig(t, realEnvoy(t))
	c.Grace = grace
	e := &edge{log: log, admin: NewAdmin(SocketsIn(c.Bootstrap.SocketDir).Admin), arrived: make(chan struct{}, 1), release: make(chan struct{}),
		ended: make(chan error, 1)}
	e.addr = controlPlane(t, SocketsIn(c.Bootstrap.SocketDir).XDS, e.upstream(t))
	ctx, cancel := context.WithCancel(t.Context())
	e.cancel = cancel
	go func() { e.ended <- Run(ctx, c) }()
	t.Cleanup(func() { _ = e.stop() })
	e.ready(t)
	return e
}

// upstream answers; /slow waits for release or the test's end.
func (e *edge) upstream(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			e.arrived <- struct{}{}
			select {
			case <-e.release:
			case <-r.Context().Done():
				return
			}
		}
		_, _ = io.WriteString(w, "upstream")
	})}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	return l.Addr().String()
}

func (e *edge) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := e.admin.Ready(ctx); err != nil {
		t.Fatalf("%v\n%s", err, e.log.String())
	}
}

// get returns the body, or the error as text.
func (e *edge) get(t *testing.T, path string) string {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+e.addr+path, nil)
	if err != nil {
		return err.Error()
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err.Error()
	}
	return string(body)
}

func (e *edge) pid(t *testing.T) int {
	t.Helper()
	return startedPID(e.log.String())
}

// stop ends Run and returns what it returned. Further calls return nil.
func (e *edge) stop() error {
	e.cancel()
	err, ok := <-e.ended
	if ok {
		close(e.ended)
	}
	return err
}

func childConfig(t *testing.T, path string) (ChildConfig, *logBuffer) {
	log := &logBuffer{}
	return ChildConfig{
		Path:      path,
		Bootstrap: BootstrapConfig{Node: "edge-1", SocketDir: socketDir(t)},
		Log:       slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}, log
}

// logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// socketDir is a directory with a short name: t.TempDir may be too long for a socket.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// realEnvoy skips the test where there is no Envoy, unless DOORWARD_E2E=1 asks for it.
func realEnvoy(t *testing.T) string {
	t.Helper()
	path, err := Find("")
	if err == nil {
		return path
	}
	if os.Getenv("DOORWARD_E2E") == "1" {
		t.Fatal(err)
	}
	t.Skipf("NOT TESTED, no Envoy: %v", err)
	return ""
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("no %s within 10 s", what)
}
