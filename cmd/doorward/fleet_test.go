package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/authz/admin"
	"doorward/envoy"
)

// fleet is a doorward and an Envoy, each a process of its own, to which routes are pushed.
type fleet struct {
	testing.TB
	dir, binary string
	port        int
	doorward    *exec.Cmd
	ended       chan error
	envoy       *exec.Cmd
	envoyEnded  <-chan error
	admin       *admin.Client
	log         *syncBuffer
	roots       *x509.CertPool
}

// newFleet starts a doorward without routes, and no Envoy.
func newFleet(tb testing.TB, envoyPath string) *fleet {
	tb.Helper()
	dir, err := os.MkdirTemp("", "dw") // the paths of sockets are short
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { os.RemoveAll(dir) })
	f := &fleet{TB: tb, dir: dir, binary: envoyPath, port: freePort(tb), log: new(syncBuffer)}
	text := fmt.Sprintf("auth_url: https://auth.localhost:%d\nlisten: {https: \"127.0.0.1:%[1]d\", http: \"off\"}\ndecision_log: {to: %s/decisions.log}\nroutes: []\n", f.port, dir)
	if err := os.WriteFile(filepath.Join(dir, "doorward.yaml"), []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	f.admin = admin.NewClient(filepath.Join(dir, "data", controlSocket))
	f.startDoorward()
	pem, err := os.ReadFile(filepath.Join(dir, "data", "ca", "ca.pem"))
	if err != nil {
		tb.Fatal(err)
	}
	f.roots = x509.NewCertPool()
	f.roots.AppendCertsFromPEM(pem)
	return f
}

// startDoorward runs `doorward serve` and waits until it answers.
func (f *fleet) startDoorward() {
	f.Helper()
	path, err := program()
	if err != nil {
		f.Fatal(err)
	}
	cmd := exec.Command(path, "serve", "--config", filepath.Join(f.dir, "doorward.yaml"))
	cmd.Stdout, cmd.Stderr = f.log, f.log
	if err := cmd.Start(); err != nil {
		f.Fatal(err)
	}
	f.doorward, f.ended = cmd, make(chan error, 1)
	ended := f.ended
	go func() { ended <- cmd.Wait(); close(ended) }()
	f.Cleanup(func() { cmd.Process.Kill(); <-ended })
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if s, err := f.admin.Status(context.Background()); err == nil && s.Loaded != "" {
			return
		} else if time.Now().After(end) {
			f.Fatalf("doorward does not answer: %v\n%s", err, f.log)
		}
	}
}

// kill ends doorward as a power cut does.
func (f *fleet) kill() {
	f.doorward.Process.Signal(syscall.SIGKILL)
	<-f.ended
}

// startEnvoy runs a fresh Envoy.
func (f *fleet) startEnvoy() {
	f.Helper()
	f.envoy = exec.Command(f.binary, "--config-path", filepath.Join(f.dir, "data", "run", "envoy.yaml"), "--disable-hot-restart", "--log-level", "error")
	f.envoy.Stdout, f.envoy.Stderr = f.log, f.log
	ended, err := envoy.Start(f.envoy)
	if err != nil {
		f.Fatal(err)
	}
	process := f.envoy.Process
	f.envoyEnded = ended
	f.Cleanup(func() { process.Kill(); <-ended })
}

// apply pushes documents, and waits for the Envoys.
func (f *fleet) apply(query string, delete []string, routes ...string) (pushAnswer, error) {
	var answer pushAnswer
	change := applied{Delete: delete, Documents: []appliedDocument{{File: "test", Text: "routes:\n  - " + strings.Join(routes, "\n  - ")}}}
	if len(routes) == 0 {
		change.Documents[0].Text = "routes: []"
	}
	body, err := json.Marshal(change)
	if err != nil {
		return answer, err
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return answer, err
	}
	err = f.admin.Send(context.Background(), admin.Request{
		Method: http.MethodPost, Path: routesPath + "/apply", Query: values, Type: "application/json", Body: body, Within: time.Minute,
	}, &answer)
	return answer, err
}

// mustApply is apply for changes that every Envoy takes.
func (f *fleet) mustApply(delete []string, routes ...string) {
	f.Helper()
	answer, err := f.apply("wait=30s", delete, routes...)
	if err != nil {
		f.Fatalf("%v\n%s", err, f.log)
	}
	for _, a := range answer.Envoys {
		if err := a.Err(); err != nil || a.State != "acknowledged" {
			f.Fatalf("%+v", a)
		}
	}
}

// route is a public route of a host of its own.
func (f *fleet) route(name, to string) string {
	return fmt.Sprintf("{name: %s, from: \"https://%[1]s.localhost:%d\", to: %q, policy: public}", name, f.port, to)
}

// ask opens a new TLS connection, which must have a certificate for the host, and asks it for "/".
func (f *fleet) ask(name string) (status int, body string, err error) {
	host := fmt.Sprintf("%s.localhost", name)
	dialer := tls.Dialer{NetDialer: &net.Dialer{Timeout: 5 * time.Second}, Config: &tls.Config{RootCAs: f.roots, ServerName: host}}
	c, err := dialer.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.port))
	if err != nil {
		return 0, "", err
	}
	defer c.Close()
	if names := c.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames; len(names) != 1 || names[0] != host {
		return 0, "", fmt.Errorf("the certificate is for %v", names)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return c, nil }}}
	res, err := client.Get(fmt.Sprintf("https://%s:%d/", host, f.port))
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(bytes.TrimSpace(text)), err
}

// says asks until a host answers as it is to.
func (f *fleet) says(name, want string, within time.Duration) {
	f.Helper()
	var last error
	for end := time.Now().Add(within); time.Now().Before(end); time.Sleep(time.Millisecond) {
		status, body, err := f.ask(name)
		if err == nil && status == http.StatusOK && body == want {
			return
		}
		last = errors.Join(err, fmt.Errorf("%d %q", status, body))
	}
	f.Fatalf("%s does not say %q within %v: %v\n%s", name, want, within, last, f.log)
}

// speaker is an upstream that says its name, and returns its URL.
func speaker(tb testing.TB, name string) string {
	tb.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, name) }))
	tb.Cleanup(s.Close)
	return s.URL
}
