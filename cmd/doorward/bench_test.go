package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz"
	"doorward/authz/config"
	"doorward/authz/policy"
	"doorward/authz/session"
	"doorward/authz/store/bolt"
	"doorward/authz/token"
	"doorward/authz/web"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// The check benchmark holds Doorward against a no-op ext_authz server of the same response size, both in a process of their own, in turns,
// so that a machine whose speed drifts spoils neither. What is compared is the server process's CPU time per check.
const (
	benchHost     = "grafana.example.com"
	benchInFlight = 8
	benchSessions = 1000
	benchChecks   = 6000 // per turn
	benchTurns    = 5
)

// benchServer is set in the environment of the child that serves.
const benchServer = "DOORWARD_BENCH_SERVER"

// benchPolicies are what the servers decide by, by the servers' names.
var benchPolicies = map[string]string{
	"demo": `package bench

role := "Admin" if { "grafana-admins" in input.user.groups } else := "Viewer" if { count(input.user.groups) > 0 }

default allow := false

allow if role

deny contains "you are in no group that may use this" if { not role }

claims := {"role": role}
`,
	"path": `package bench

default allow := false

allow if {
	startswith(input.request.path, "/d/")
	not contains(input.request.headers["user-agent"], "curl")
	count(input.user.groups) > 0
}
`,
	"uncacheable": `package bench

default allow := false

allow if {
	time.now_ns() > 0
	count(input.user.groups) > 0
}
`,
}

// benchMain is the child's main function.
func benchMain(name string) {
	if err := serveBench(name, os.Args[len(os.Args)-1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveBench is the child: it listens on dir/NAME.sock, prints the session cookies a line each and "ready", and serves until its standard
// input ends.
func serveBench(name, dir string) error {
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		return err
	}
	var server *grpc.Server
	if name == "noop" {
		server = grpc.NewServer()
		authv3.RegisterAuthorizationServer(server, noop{})
	} else {
		debug.SetGCPercent(gcPercent)
		s, cookies, revision, err := benchAuthz(name, dir)
		if err != nil {
			return err
		}
		server = s.NewGRPC()
		fmt.Println(revision)
		for _, c := range cookies {
			fmt.Println(c)
		}
	}
	fmt.Println("ready")
	go server.Serve(l)
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// noop allows everything with a header of a JWT's size.
type noop struct {
	authv3.UnimplementedAuthorizationServer
}

var noopResponse = &authv3.CheckResponse{
	Status: &statuspb.Status{},
	HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
		Headers: []*corev3.HeaderValueOption{{
			Header:       &corev3.HeaderValue{Key: "x-pomerium-jwt-assertion", Value: strings.Repeat("x", 700)},
			AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
		}},
		HeadersToRemove: []string{"cookie"},
	}},
}

func (noop) Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return noopResponse, nil
}

// benchAuthz is the real thing on a store of its own: sessions, policy, token.
func benchAuthz(name, dir string) (s *authz.Server, cookies []string, revision string, err error) {
	variant, sessions := name, benchSessions
	if name == "cold" {
		variant, sessions = "demo", benchChecks*benchTurns
	}
	db, err := bolt.Open(filepath.Join(dir, name+".db"))
	if err != nil {
		return nil, nil, "", err
	}
	sealer, err := session.OpenSealer(filepath.Join(dir, name+".key"))
	if err != nil {
		return nil, nil, "", err
	}
	ctx := context.Background()
	all, err := session.New(session.Config{Store: db, Sealer: sealer})
	if err != nil {
		return nil, nil, "", err
	}
	go all.Run(ctx)
	if cookies, err = signInMany(ctx, all, sessions); err != nil {
		return nil, nil, "", err
	}
	ring, err := token.Open(ctx, token.Config{Store: db, Sealer: sealer, Lifetime: 5 * time.Minute, ConsumerCache: time.Hour})
	if err != nil {
		return nil, nil, "", err
	}
	generation, err := benchGeneration(ctx, dir, variant)
	if err != nil {
		return nil, nil, "", err
	}
	pages, err := web.New()
	if err != nil {
		return nil, nil, "", err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, nil, "", err
	}
	s, err = authz.New(authz.Config{Sessions: all, Tokens: ring, Pages: pages, Log: slog.New(slog.NewJSONHandler(newLogQueue(null), nil))})
	if err != nil {
		return nil, nil, "", err
	}
	s.Adopt(generation)
	return s, cookies, generation.Revision("bench"), nil
}

func signInMany(ctx context.Context, all *session.Sessions, n int) ([]string, error) {
	cookies := make([]string, n)
	var group sync.WaitGroup
	errs := make(chan error, n)
	limit := make(chan struct{}, 64)
	for i := range n {
		group.Add(1)
		limit <- struct{}{}
		go func() {
			defer func() { <-limit; group.Done() }()
			id := fmt.Sprintf("user-%d", i)
			made, err := all.Create(ctx, session.Session{
				Issuer: "https://idp.example.com", Subject: id, SID: id, Expires: time.Now().Add(time.Hour),
				User: session.User{ID: id, Email: id + "@example.com", EmailVerified: true, Name: "User " + id, Groups: []string{"grafana-admins", "engineering"}, Claims: map[string]any{"preferred_username": id}},
			})
			if err == nil {
				cookies[i], err = all.Issue(ctx, made.ID, benchHost)
			}
			if err != nil {
				errs <- err
			}
		}()
	}
	group.Wait()
	close(errs)
	return cookies, <-errs
}

func benchGeneration(ctx context.Context, dir, variant string) (*authz.Generation, error) {
	file := filepath.Join(dir, variant+".rego")
	if err := os.WriteFile(file, []byte(benchPolicies[variant]), 0o600); err != nil {
		return nil, err
	}
	set, err := policy.Load(ctx, policy.Config{Paths: []string{file}})
	if err != nil {
		return nil, err
	}
	from, err := config.ParseURL("https://" + benchHost)
	if err != nil {
		return nil, err
	}
	return authz.Build(&config.Config{
		JWT: config.JWT{Header: "X-Pomerium-Jwt-Assertion"}, Paths: config.Paths{Prefix: "/.pomerium"},
		Routes: []config.Route{{Name: "bench", From: from, Policy: "bench"}},
	}, set)
}

// target is a serving child with the questions that it is asked.
type target struct {
	name      string
	cmd       *exec.Cmd
	conn      *grpc.ClientConn
	questions [][]byte
	next      int
	cpu       []float64 // microseconds per check, of each turn
	latencies []time.Duration
}

func startTarget(b testing.TB, name, dir string) *target {
	b.Helper()
	cmd := exec.Command(os.Args[0], dir)
	cmd.Env = append(os.Environ(), benchServer+"="+name, "GOMAXPROCS=2")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stdin.Close(); cmd.Wait() })
	var lines []string
	for scan := bufio.NewScanner(stdout); scan.Scan() && scan.Text() != "ready"; {
		lines = append(lines, scan.Text())
	}
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, name+".sock"), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	t := &target{name: name, cmd: cmd, conn: conn}
	if name == "noop" {
		lines = []string{"", strings.Repeat("x", 43)}
	}
	for i, cookie := range lines[1:] {
		t.questions = append(t.questions, question(b, lines[0], cookie, i))
	}
	return t
}

// question is a request with the 18 headers that a desktop browser sends, as Envoy puts it.
func question(b testing.TB, revision, cookie string, i int) []byte {
	lines := [][2]string{
		{":authority", benchHost}, {":method", "GET"}, {":scheme", "https"}, {":path", "/d/" + strconv.Itoa(i%50) + "/home?orgId=1&refresh=5s"},
		{"sec-ch-ua", `"Chromium";v="156", "Not;A=Brand";v="8", "Google Chrome";v="156"`}, {"sec-ch-ua-mobile", "?0"},
		{"sec-ch-ua-platform", `"Linux"`}, {"upgrade-insecure-requests", "1"},
		{"user-agent", "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36"},
		{"accept", "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"},
		{"sec-fetch-site", "same-origin"}, {"sec-fetch-mode", "navigate"}, {"sec-fetch-user", "?1"}, {"sec-fetch-dest", "document"},
		{"referer", "https://" + benchHost + "/"}, {"accept-encoding", "gzip, deflate, br, zstd"}, {"accept-language", "en-GB,en;q=0.9,de;q=0.8"},
		{"cookie", session.CookieName + "=" + cookie}, {"priority", "u=0, i"}, {"x-forwarded-proto", "https"},
		{"x-request-id", "1b4e28ba-2fa1-11d2-883f-0016d3cca427"}, {"x-forwarded-for", "192.0.2.7"},
	}
	headers := &corev3.HeaderMap{}
	for _, h := range lines {
		headers.Headers = append(headers.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	peer := func(ip string) *authv3.AttributeContext_Peer {
		return &authv3.AttributeContext_Peer{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: ip, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 40000},
		}}}}
	}
	text, err := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Source: peer("192.0.2.7"), Destination: peer("192.0.2.1"),
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427", Method: "GET", Host: benchHost, Path: lines[3][1], Scheme: "https", Protocol: "HTTP/2", Size: -1, HeaderMap: headers,
		}},
		TlsSession:        &authv3.AttributeContext_TLSSession{Sni: benchHost},
		ContextExtensions: map[string]string{"route": "bench", "revision": revision},
	}})
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// rawCodec sends and receives bytes, so that the client costs little.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// turn asks n times, with benchInFlight at once, and notes the server's CPU time per check. The first question's answer is verified.
func (t *target) turn(b testing.TB, n int, counted bool) {
	b.Helper()
	var answer []byte
	const method = "/envoy.service.auth.v3.Authorization/Check"
	before := processCPU(b, t.cmd.Process.Pid)
	var mu sync.Mutex
	var group sync.WaitGroup
	for w := range benchInFlight {
		group.Add(1)
		go func() {
			defer group.Done()
			var out []byte
			took := make([]time.Duration, 0, n/benchInFlight+1)
			for i := w; i < n; i += benchInFlight {
				start := time.Now()
				if err := t.conn.Invoke(context.Background(), method, t.questions[(t.next+i)%len(t.questions)], &out); err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			answer = out
			if counted {
				t.latencies = append(t.latencies, took...)
			}
		}()
	}
	group.Wait()
	t.next += n
	if counted {
		t.cpu = append(t.cpu, (processCPU(b, t.cmd.Process.Pid)-before).Seconds()*1e6/float64(n))
	}
	response := new(authv3.CheckResponse)
	if err := proto.Unmarshal(answer, response); err != nil || response.GetOkResponse() == nil {
		b.Fatalf("%s: not allowed: %v %v", t.name, err, response)
	}
}

// processCPU is the user and system time of a process so far (proc(5), stat fields 14 and 15, in ticks of 10 ms), by schedstat where
// there is one, which counts nanoseconds.
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

func BenchmarkCheck(b *testing.B) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var targets []*target
	for _, name := range []string{"noop", "demo", "path", "uncacheable", "cold"} {
		targets = append(targets, startTarget(b, name, dir))
	}
	for _, t := range targets {
		if t.name != "cold" {
			t.turn(b, 2*benchSessions, false)
		}
	}
	for range benchTurns {
		for _, t := range targets {
			t.turn(b, benchChecks, true)
		}
	}
	reference := median(targets[0].cpu)
	for _, t := range targets {
		slices.Sort(t.latencies)
		at := func(share float64) float64 {
			return t.latencies[int(share*float64(len(t.latencies)-1))].Seconds() * 1e6
		}
		fmt.Printf("bench check_cpu_%s %.1f us\n", t.name, median(t.cpu))
		fmt.Printf("bench check_p50_%s %.0f us\n", t.name, at(0.5))
		fmt.Printf("bench check_p99_%s %.0f us\n", t.name, at(0.99))
		if t != targets[0] {
			fmt.Printf("bench check_cpu_ratio_%s %.2f x\n", t.name, median(t.cpu)/reference)
		}
	}
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
