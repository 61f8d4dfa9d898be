package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/template"
	"time"

	"doorward/authz/admin"
	"doorward/cmd/demo/provider"
	"doorward/envoy"
)

// stack is the whole of it as a person runs it: the program with a real Envoy as its child, a real provider, and upstreams that note what
// reaches them.
type stack struct {
	t        *testing.T
	dir      string
	port     int
	idp      *httptest.Server
	grafana  *application
	wiki     *application
	program  *exec.Cmd
	log      *syncBuffer
	stdout   *os.File // of the program; nil for the log
	exited   chan error
	envoyBin string
	apart    bool // Envoy is not the program's child
}

// externalParts finds Envoy, or skips. With DOORWARD_E2E=1 a missing part is a failure.
func externalParts(t *testing.T) string {
	t.Helper()
	path, err := envoy.Find("")
	if err == nil && os.Getenv("DOORWARD_E2E") != "" {
		return path
	}
	if os.Getenv("DOORWARD_E2E") == "1" {
		t.Fatal(err)
	}
	t.Skip("SKIPPED: this test runs a real Envoy; make test runs it (DOORWARD_E2E=1)")
	return ""
}

var program = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "doorward-bin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "doorward")
	args := []string{"build", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	out, err := exec.Command("go", append(args, ".")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build doorward: %w\n%s", err, out)
	}
	return path, nil
})

// newStack starts everything, with routes as the text of a YAML list in which {{.Grafana}} and {{.Wiki}} are the upstreams' URLs and {{.Port}}
// is the public port.
func newStack(t *testing.T, routes string) *stack {
	t.Helper()
	s := prepareStack(t, routes)
	s.start()
	return s
}

// newStackApart runs Envoy as somebody else's process.
func newStackApart(t *testing.T, routes string) *stack {
	t.Helper()
	s := prepareStack(t, routes)
	s.runEnvoy()
	s.start()
	return s
}

func prepareStack(t *testing.T, routes string) *stack {
	t.Helper()
	s := &stack{t: t, envoyBin: externalParts(t), grafana: newApplication(t, "grafana"), wiki: newApplication(t, "wiki"), port: freePort(t)}
	var err error
	// Unix sockets' paths are short, so this is no t.TempDir, which has the test's name in it.
	if s.dir, err = os.MkdirTemp("", "dw"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.dir) })
	s.startProvider()
	s.write("policies/grafana.rego", grafanaPolicy)
	s.writeConfig(routes)
	return s
}

const grafanaPolicy = `package grafana

default allow := false

allow if count(input.user.groups) > 0

deny contains "you are in no group that may use Grafana" if count(input.user.groups) == 0

claims := {"role": "Admin"} if { "grafana-admins" in input.user.groups } else := {"role": "Viewer"}
`

// twoHosts is the demo's routing.
const twoHosts = `
  - {name: public, from: "https://grafana.localhost:{{.Port}}", prefix: /public, to: "{{.Grafana}}", policy: public}
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: grafana}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: any_authenticated_user}
`

func (s *stack) startProvider() {
	s.t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	if err != nil {
		s.t.Fatal(err)
	}
	issuer := fmt.Sprintf("http://localhost:%d", l.Addr().(*net.TCPAddr).Port)
	handler, err := provider.New(provider.Config{
		Issuer: issuer,
		Client: provider.Client{
			ID: "doorward", Secret: "hush",
			RedirectURIs:           []string{s.url("auth", "/.pomerium/callback")},
			PostLogoutRedirectURIs: []string{s.url("auth", "/.pomerium/signed_out")},
		},
		Users: []provider.User{
			{Username: "alice", Password: "alice", Name: "Alice Adams", Email: "alice@example.com", Groups: []string{"grafana-admins", "engineering"}},
			{Username: "bob", Password: "bob", Name: "Bob Brown", Email: "bob@example.com", Groups: []string{"viewers"}},
			{Username: "mallory", Password: "mallory", Name: "Mallory", Email: "mallory@example.com"},
		},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.idp = &httptest.Server{Listener: l, Config: &http.Server{Handler: handler}}
	s.idp.Start()
	s.idp.URL = issuer
	s.t.Cleanup(s.idp.Close)
}

// url is an address on one of the hosts.
func (s *stack) url(host, path string) string {
	return fmt.Sprintf("https://%s.localhost:%d%s", host, s.port, path)
}

func (s *stack) config() string { return filepath.Join(s.dir, "doorward.yaml") }

func (s *stack) write(name, text string) {
	s.t.Helper()
	path := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stack) writeConfig(routes string) {
	s.t.Helper()
	text := `
idp:
  issuer: {{.IDP}}
  client_id: doorward
  client_secret: hush
auth_url: https://auth.localhost:{{.Port}}
listen: {https: "127.0.0.1:{{.Port}}", http: "off"}
socket_dir: {{.Dir}}/run
data_dir: {{.Dir}}/data
routes:` + routes
	var b bytes.Buffer
	err := template.Must(template.New("").Parse(text)).Execute(&b, map[string]any{
		"IDP": s.idp.URL, "Port": s.port, "Dir": s.dir, "Grafana": s.grafana.URL, "Wiki": s.wiki.URL,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("doorward.yaml", b.String())
}

// start runs doorward up and waits until it serves.
func (s *stack) start() {
	s.t.Helper()
	s.launch()
	s.served()
}

// launch runs doorward.
func (s *stack) launch() {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	s.log = new(syncBuffer)
	s.program = exec.Command(path, "up", "--config", s.config(), "--envoy", s.envoyBin, "--grace", "2s")
	if s.apart {
		s.program = exec.Command(path, "serve", "--config", s.config())
	}
	s.program.Stdout, s.program.Stderr = s.log, s.log
	if s.stdout != nil {
		s.program.Stdout = s.stdout
	}
	if err := s.program.Start(); err != nil {
		s.t.Fatal(err)
	}
	exited := make(chan error, 1)
	cmd := s.program
	go func() { exited <- cmd.Wait(); close(exited) }()
	s.exited = exited
	s.t.Cleanup(func() { s.stop(syscall.SIGTERM) })
}

// stop ends the program and waits for it.
func (s *stack) stop(signal os.Signal) {
	if s.program.Process.Signal(signal) != nil {
		return
	}
	select {
	case <-s.exited:
	case <-time.After(15 * time.Second):
		s.program.Process.Kill()
		s.t.Errorf("doorward did not end within 15 s of %v\n%s", signal, s.log)
	}
}

// served waits until the configuration as it is in the files is decided by and acknowledged, as doorward check --wait does.
func (s *stack) served() {
	s.t.Helper()
	out, err := s.check("--wait", "--timeout", "20s")
	if err != nil {
		s.t.Fatalf("not served: %v\n%s\n%s", err, out, s.log)
	}
}

func (s *stack) check(flags ...string) (string, error) {
	path, err := program()
	if err != nil {
		return "", err
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		out, err := exec.Command(path, append([]string{"check", s.config()}, flags...)...).CombinedOutput()
		// The program may not have opened its socket yet.
		if err == nil || !strings.Contains(string(out), admin.ErrNotRunning.Error()) || time.Now().After(deadline) {
			return string(out), err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (s *stack) envoyStats(filter string) map[string]uint64 {
	s.t.Helper()
	stats, err := envoy.NewAdmin(envoy.SocketsIn(filepath.Join(s.dir, "run")).Admin).Stats(s.t.Context(), filter)
	if err != nil {
		s.t.Fatal(err)
	}
	return stats
}

// browser is a cookie jar that resolves *.localhost to loopback and trusts the local CA.
type browser struct {
	s *stack
	http.Client
}

func (s *stack) browser() *browser {
	s.t.Helper()
	pem, err := os.ReadFile(filepath.Join(s.dir, "data", "ca", "ca.pem"))
	if err != nil {
		s.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	jar, err := cookiejar.New(nil)
	if err != nil {
		s.t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig:   &tls.Config{RootCAs: roots},
		ForceAttemptHTTP2: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(address)
			if err != nil {
				return nil, err
			}
			return new(net.Dialer).DialContext(ctx, network, "127.0.0.1:"+port)
		},
	}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &browser{s, http.Client{Jar: jar, Transport: transport, Timeout: 10 * time.Second}}
}

// answer is a response with its body read.
type answer struct {
	*http.Response
	text string
}

// get follows redirects. headers are name, value, name, value.
func (b *browser) get(target string, headers ...string) answer {
	b.s.t.Helper()
	req, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodGet, target, nil)
	if err != nil {
		b.s.t.Fatal(err)
	}
	req.Header.Set("Accept", "text/html,application/xhtml+xml,*/*;q=0.8")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	return b.do(req)
}

func (b *browser) do(req *http.Request) answer {
	b.s.t.Helper()
	res, err := b.Do(req)
	if err != nil {
		b.s.t.Fatalf("%s: %v\n%s", req.URL, err, b.s.log)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		b.s.t.Fatal(err)
	}
	return answer{res, string(text)}
}

var hidden = regexp.MustCompile(`<input[^>]*type="hidden"[^>]*name="([^"]+)"[^>]*value="([^"]*)"`)
var action = regexp.MustCompile(`<form[^>]*action="([^"]*)"`)

// signIn opens an address and fills the provider's form when it is asked to.
func (b *browser) signIn(target, user string) answer {
	b.s.t.Helper()
	page := b.get(target)
	if !strings.HasPrefix(page.Request.URL.String(), b.s.idp.URL) {
		b.s.t.Fatalf("%s: no sign-in at the provider but %s\n%s\n%s", target, page.Request.URL, page.text, b.s.log)
	}
	form := url.Values{"username": {user}, "password": {user}}
	for _, m := range hidden.FindAllStringSubmatch(page.text, -1) {
		form.Set(m[1], m[2])
	}
	to := page.Request.URL
	if m := action.FindStringSubmatch(page.text); m != nil {
		to, _ = to.Parse(m[1])
	}
	req, err := http.NewRequestWithContext(b.s.t.Context(), http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		b.s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/html")
	return b.do(req)
}

// application notes the requests that reach it and answers with what it got.
type application struct {
	*httptest.Server
	mu   sync.Mutex // guards seen and app
	seen []*http.Request
	app  http.Handler // answers in place of the echo
}

func newApplication(t *testing.T, name string) *application {
	u := new(application)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.mu.Lock()
		u.seen = append(u.seen, r)
		app := u.app
		u.mu.Unlock()
		if app != nil {
			app.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"upstream": name, "method": r.Method, "uri": r.RequestURI, "host": r.Host, "headers": r.Header})
	}))
	t.Cleanup(u.Close)
	return u
}

func (u *application) requests() []*http.Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]*http.Request(nil), u.seen...)
}

// freePort is below the range from which the kernel takes ports for others (ip_local_port_range), so that no test that runs beside this one
// gets it meanwhile.
func freePort(t testing.TB) int {
	t.Helper()
	for {
		port := 20000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
}

// syncBuffer is a log that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func (s *stack) read(name string) string {
	s.t.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		s.t.Fatal(err)
	}
	return string(text)
}
