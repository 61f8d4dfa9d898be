package xds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/xds/cert"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/service/ext_proc/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
)

// front is a real Envoy with a Server, an ext_authz server that records and allows, and a stand-in for Doorward's own
// HTTP handlers.
type front struct {
	t       *testing.T
	dir     string
	server  *Server
	ca      *cert.LocalCA
	roots   *x509.CertPool
	authz   *recorder
	https   int
	http    int
	edge    string // YAML added to the configuration
	resolve string // host:port of the DNS server that Envoy asks; "" for the machine's
	restart func() // of the control plane

	stopAuthz func()
	stopOwn   func() // of Doorward's own pages and keys
}

// envoyBinary finds the Envoy to test with: ENVOY, the PATH, or .tools at the repository's root.
func envoyBinary(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("ENVOY"); path != "" {
		return path
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path
	}
	path, err := filepath.Abs("../.tools/envoy-1.40.0/envoy")
	if err == nil {
		if _, err = os.Stat(path); err == nil {
			return path
		}
	}
	const missing = "no Envoy: set ENVOY, put envoy on the PATH, or run envoy/fetch.sh"
	if os.Getenv("DOORWARD_E2E") == "1" {
		t.Fatal(missing)
	}
	t.Skip("SKIPPED, NOT PROVEN: " + missing)
	return ""
}

// newFront starts everything but serves nothing yet.
func newFront(t *testing.T, edge string) *front {
	t.Helper()
	return newFrontBy(t, edge, "")
}

// newFrontBy is newFront with an Envoy that asks a DNS server of the test's.
func newFrontBy(t *testing.T, edge, resolver string) *front {
	t.Helper()
	binary := envoyBinary(t)
	dir, err := os.MkdirTemp("", "front") // a Unix socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	ca, err := cert.NewLocalCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca", "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	f := &front{
		t: t, dir: dir, ca: ca, roots: roots, edge: edge,
		authz: &recorder{}, https: freePort(t), http: freePort(t), resolve: resolver,
	}
	f.startServers()
	f.startEnvoy(binary)
	return f
}

// freePort is below the range from which the kernel takes ports for others (ip_local_port_range), so that no test that runs beside this one
// gets it meanwhile.
func freePort(t *testing.T) int {
	t.Helper()
	for {
		port := 20000 + rand.IntN(10000)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
			l.Close()
			return port
		}
	}
}

func (f *front) listen(name string) net.Listener {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		f.t.Fatal(err)
	}
	return l
}

func (f *front) startServers() {
	checks := grpc.NewServer()
	authv3.RegisterAuthorizationServer(checks, f.authz)
	go checks.Serve(f.listen("authz.sock"))
	own := &http.Server{Handler: http.HandlerFunc(echo("doorward"))}
	go own.Serve(f.listen("http.sock"))
	streams := grpc.NewServer()
	extprocv3.RegisterExternalProcessorServer(streams, letting{})
	go streams.Serve(f.listen("streams.sock"))
	f.stopAuthz, f.stopOwn = checks.Stop, func() { own.Close() }
	f.t.Cleanup(func() { checks.Stop(); streams.Stop(); own.Close() })
	f.startControl()
}

// startControl starts a control plane that serves nothing yet.
func (f *front) startControl() {
	f.server = NewServer(slog.New(slog.NewTextHandler(f.t.Output(), nil)))
	control := grpc.NewServer()
	f.server.Register(control)
	go control.Serve(f.listen("xds.sock"))
	f.t.Cleanup(control.Stop)
	f.restart = func() {
		control.Stop()
		f.startControl()
	}
}

// startEnvoy runs Envoy on a thread of its own: it asks to be stopped when the thread that forked it ends.
func (f *front) startEnvoy(binary string) {
	f.t.Helper()
	text, err := os.ReadFile("testdata/bootstrap.yaml")
	if err != nil {
		f.t.Fatal(err)
	}
	file := filepath.Join(f.dir, "bootstrap.yaml")
	text = []byte(strings.NewReplacer("SOCKETS", f.dir, "NODE", "test-envoy").Replace(string(text)))
	if host, port, err := net.SplitHostPort(f.resolve); err == nil {
		text = fmt.Appendf(text, `
typed_dns_resolver_config:
  name: envoy.network.dns_resolver.cares
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig
    resolvers: [{socket_address: {address: %q, port_value: %s}}]
`, host, port)
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(f.dir, "envoy.log"))
	if err != nil {
		f.t.Fatal(err)
	}
	level := os.Getenv("ENVOY_LOG")
	if level == "" {
		level = "warning"
	}
	cmd := exec.Command(binary, "-c", file, "--use-dynamic-base-id", "--concurrency", "2", "-l", level)
	cmd.Stdout, cmd.Stderr = log, log
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(ended)
		err := cmd.Start()
		started <- err
		if err == nil {
			cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGKILL)
		<-ended
		if f.t.Failed() || testing.Verbose() {
			text, _ := os.ReadFile(log.Name())
			f.t.Logf("Envoy's log:\n%s", text[max(0, len(text)-8000):])
		}
	})
	f.eventually("Envoy connects", func() error {
		if n := len(f.server.Envoys()); n != 1 {
			return fmt.Errorf("%d Envoys connected", n)
		}
		return nil
	})
}

func (f *front) readFile(path string) string {
	f.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// eventually tries until there is no error, for ten seconds.
func (f *front) eventually(what string, try func() error) {
	f.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// load makes a configuration with the given routes, as YAML.
func (f *front) load(routes string) *config.Config {
	f.t.Helper()
	text := fmt.Sprintf(`
idp: {issuer: https://idp.example.com, client_id: doorward, client_secret: secret}
listen: {https: "127.0.0.1:%d", http: "127.0.0.1:%d"}
auth_url: https://auth.localhost:%[1]d
tls:
  local_ca: true
%[3]s
routes:
%[4]s`, f.https, f.http, f.edge, strings.ReplaceAll(routes, "PORT", strconv.Itoa(f.https)))
	path := filepath.Join(f.dir, "doorward.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *front) build(routes string) *Resources {
	f.t.Helper()
	c := f.load(routes)
	r, err := Build(Input{Config: c, Revision: revisionOf, Certificate: f.ca.Certificate, Page: plainPage})
	if err != nil {
		f.t.Fatal(err)
	}
	return flat(f.t, r)
}

func revisionOf(route string) string { return "revision-of-" + route }

// serve applies routes and fails the test when Envoy does not take them.
func (f *front) serve(routes string) {
	f.t.Helper()
	if err := f.apply(f.build(routes)); err != nil {
		f.t.Fatal(err)
	}
}

func (f *front) apply(r *Resources) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	err := f.server.Apply(ctx, everything(r))
	// Envoy acknowledges its first listener a moment before it listens.
	f.eventually("Envoy listens", func() error {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", f.https))
		if err == nil {
			c.Close()
		}
		return err
	})
	return err
}

// client speaks to the https listener; every name leads there. serverName is the SNI, "" for the URL's host.
func (f *front) client(serverName string, http2 bool) *http.Client {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!http2)
	protocols.SetHTTP2(http2)
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			_, port, _ := net.SplitHostPort(addr)
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+port)
		},
		TLSClientConfig: &tls.Config{RootCAs: f.roots, ServerName: serverName},
		Protocols:       protocols,
	}
	f.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{
		Transport:     transport,
		Timeout:       10 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// answer is what came back, with what the upstream saw if it was the echo.
type answer struct {
	Status int
	Header http.Header
	Body   string
	Seen   seen
}

// get asks the https listener for host and path, with pairs of header name and value.
func (f *front) get(host, path string, header ...string) answer {
	f.t.Helper()
	return f.do(f.client("", true), "GET", fmt.Sprintf("https://%s:%d%s", host, f.https, path), header...)
}

func (f *front) do(c *http.Client, method, url string, header ...string) answer {
	f.t.Helper()
	a, err := try(c, method, url, header...)
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

func try(c *http.Client, method, url string, header ...string) (answer, error) {
	request, err := http.NewRequest(method, url, nil)
	if err != nil {
		return answer{}, err
	}
	for pair := range slices.Chunk(header, 2) {
		if strings.EqualFold(pair[0], "host") {
			request.Host = pair[1]
			continue
		}
		request.Header[pair[0]] = append(request.Header[pair[0]], pair[1])
	}
	response, err := c.Do(request)
	if err != nil {
		return answer{}, err
	}
	return read(response)
}

func read(response *http.Response) (answer, error) {
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	a := answer{Status: response.StatusCode, Header: response.Header, Body: string(body)}
	if response.Header.Get("X-Echo") != "" {
		err = errors.Join(err, json.Unmarshal(body, &a.Seen))
	}
	return a, err
}

// seen is a request as an upstream saw it.
type seen struct {
	Upstream string
	Method   string
	Host     string
	Path     string
	Header   http.Header
}

// echo answers with what it saw.
func echo(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Echo", "1")
		w.Header().Set("Server", "secret/1.2.3")
		json.NewEncoder(w).Encode(seen{name, r.Method, r.Host, r.RequestURI, r.Header})
	}
}

// upstream starts an echo and returns its host:port.
func (f *front) upstream(name string) string {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	server := &http.Server{Handler: echo(name)}
	go server.Serve(l)
	f.t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// admin reads a page of Envoy's admin interface.
func (f *front) admin(path string) string {
	f.t.Helper()
	c := &http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(f.dir, "admin.sock"))
		}},
	}
	defer c.CloseIdleConnections()
	return f.do(c, "GET", "http://admin"+path).Body
}

// stat reads one counter or gauge; 0 when there is none.
func (f *front) stat(name string) int {
	f.t.Helper()
	for line := range strings.Lines(f.admin("/stats")) {
		if key, value, _ := strings.Cut(strings.TrimSpace(line), ": "); key == name {
			n, err := strconv.Atoi(value)
			if err != nil {
				f.t.Fatal(err)
			}
			return n
		}
	}
	return 0
}

// otherCA is a CA with the key of the first and certificates of its own, as after a renewal.
func (f *front) otherCA() *cert.LocalCA {
	f.t.Helper()
	ca, err := cert.NewLocalCA(filepath.Join(f.dir, "ca"))
	if err != nil {
		f.t.Fatal(err)
	}
	return ca
}

// recorder is an ext_authz server that allows everything and remembers what it was asked.
type recorder struct {
	authv3.UnimplementedAuthorizationServer

	mu      sync.Mutex
	checked []*authv3.AttributeContext
}

// Check puts the gRPC metadata that names the set of headers beside what Envoy says of the route.
func (r *recorder) Check(ctx context.Context, in *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, set := range metadata.ValueFromIncomingContext(ctx, MetadataHeaders) {
		in.Attributes.ContextExtensions["metadata"] = set
	}
	r.checked = append(r.checked, in.Attributes)
	if code, denied := strings.CutPrefix(in.Attributes.Request.Http.Path, "/denied/"); denied {
		return refuse(code), nil
	}
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.OK)},
		HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{setHeader("x-pomerium-jwt-assertion", "signed")},
		}},
	}, nil
}

// refuse denies with a status of its own.
func refuse(code string) *authv3.CheckResponse {
	n, _ := strconv.Atoi(code) // 0 would be refused by Envoy
	return &authv3.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
			Status: &typev3.HttpStatus{Code: typev3.StatusCode(n)}, Body: "denied by authz", Headers: []*corev3.HeaderValueOption{setHeader("content-type", "text/x-own")},
		}},
	}
}

// letting is an ext_proc server that ends nothing.
type letting struct {
	extprocv3.UnimplementedExternalProcessorServer
}

func (letting) Process(g extprocv3.ExternalProcessor_ProcessServer) error {
	if _, err := g.Recv(); err != nil {
		return err
	}
	return g.Send(&extprocv3.ProcessingResponse{Response: &extprocv3.ProcessingResponse_RequestHeaders{RequestHeaders: &extprocv3.HeadersResponse{}}})
}

// taken returns what was asked since the last call.
func (r *recorder) taken() []*authv3.AttributeContext {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.checked
	r.checked = nil
	return out
}
