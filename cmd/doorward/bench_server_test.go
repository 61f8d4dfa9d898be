package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/envoy"
	"doorward/xds"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// benchServer is set in the environment of the child that serves: what it serves as.
const benchServer = "DOORWARD_BENCH_SERVER"

// benchProfiles may name a directory for the children's profiles of CPU time and allocations.
const benchProfiles = "DOORWARD_BENCH_PROFILES"

// What children serve as. On a socket by itself: direct. Behind an Envoy: edge.
const (
	noopDirect = "noop"
	noopEdge   = "noop edge"
	direct     = "doorward"
	edge       = "doorward edge"
)

// benchReady is what a child says when it serves.
type benchReady struct {
	Revision string   // of the route
	Set      string   // names the headers that Envoy sends
	Headers  []string // that Envoy sends
	Cookies  []string // one of each session
}

// benchMain is the child's main function. Its last arguments are the directory with its configuration and how many sessions it makes.
func benchMain(as string) {
	run := serveBench
	if as == sessionsMade || as == sessionsFound {
		run = benchSessionsMain
	}
	if err := run(as); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// serveBench serves until its standard input ends. For each line there it prints how many bytes live in its heap.
func serveBench(as string) error {
	dir, sessions := os.Args[1], 0
	if _, err := fmt.Sscan(os.Args[2], &sessions); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	defer profile(os.Getenv(benchProfiles))()
	group, ctx := errgroup.WithContext(ctx)
	ready, err := startBench(ctx, group, as, dir, sessions)
	if err != nil {
		return err
	}
	if err := json.NewEncoder(os.Stdout).Encode(ready); err != nil {
		return err
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		runtime.GC()
		runtime.GC() // what the first one left to finalizers and pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fmt.Println(m.HeapAlloc)
	}
	stop()
	return group.Wait()
}

// profile writes profiles of the process, from now until what it returns is called, into a directory; "" for none.
func profile(dir string) (end func()) {
	if dir == "" {
		return func() {}
	}
	base := filepath.Join(dir, fmt.Sprintf("%s-%d", os.Getenv(benchServer), os.Getpid()))
	cpu, err := os.Create(base + ".cpu")
	if err == nil {
		err = pprof.StartCPUProfile(cpu)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return func() {}
	}
	return func() {
		pprof.StopCPUProfile()
		allocs, err := os.Create(base + ".allocs")
		if err == nil {
			err = errors.Join(pprof.Lookup("allocs").WriteTo(allocs, 0), allocs.Close(), cpu.Close())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
}

func startBench(ctx context.Context, group *errgroup.Group, as, dir string, sessions int) (*benchReady, error) {
	if as == noopDirect {
		return &benchReady{}, serveNoop(filepath.Join(dir, "authz.sock"))
	}
	c, err := config.Load(filepath.Join(dir, "doorward.yaml"))
	if err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	p, err := open(ctx, c, slog.New(slog.NewJSONHandler(newLogQueue(null), nil)))
	if err != nil {
		return nil, err
	}
	if as == noopEdge {
		return &benchReady{}, p.serveStock(ctx, c)
	}
	tuneCollector()
	if err := p.listen(ctx, group, c); err != nil {
		return nil, err
	}
	for _, run := range []func(context.Context) error{p.sessions.Run, p.ring.Run, p.login.Run, p.authz.Run} {
		group.Go(func() error { return run(ctx) })
	}
	ready := new(benchReady)
	if ready.Cookies, err = signInMany(ctx, p.sessions, c.Routes[0].Host(), sessions); err != nil {
		return nil, err
	}
	change, err := p.prepare(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	ready.Revision, ready.Headers, ready.Set = change.generation.Revision("bench"), change.headers, xds.HeaderSet(change.headers)
	if as == direct {
		p.authz.Adopt(change.generation)
		return ready, nil
	}
	return ready, p.apply(ctx, c)
}

func signInMany(ctx context.Context, all *session.Sessions, host string, n int) ([]string, error) {
	cookies := make([]string, n)
	var group errgroup.Group
	group.SetLimit(64)
	for i := range n {
		group.Go(func() error {
			id := fmt.Sprintf("user-%d", i)
			made, err := all.Create(ctx, session.Session{
				Provider: "default", Issuer: "https://idp.example.com", Subject: id, SID: id, Expires: time.Now().Add(time.Hour),
				User: session.User{ID: id, Email: id + "@example.com", EmailVerified: true, Name: "User " + id, Groups: []string{"grafana-admins", "engineering"}, Claims: map[string]any{"preferred_username": id}},
			})
			if err != nil {
				return err
			}
			cookies[i], err = all.Issue(ctx, made.ID, host)
			return err
		})
	}
	return cookies, group.Wait()
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

// serveNoop serves the no-op as anybody's grpc-go program would: the generated service, and no option set.
func serveNoop(socket string) error {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, noop{})
	go server.Serve(l) // until the process ends
	return nil
}

// serveStock serves an Envoy the same configuration as Doorward's, but for the ext_authz filter, which is a stock one, and the no-op that it
// asks.
func (p *planes) serveStock(ctx context.Context, c *config.Config) error {
	bootstrap, err := envoy.Bootstrap(envoy.BootstrapConfig{Node: defaultNode, SocketDir: c.SocketDir})
	if err != nil {
		return err
	}
	sockets := envoy.SocketsIn(c.SocketDir)
	l, err := net.Listen("unix", sockets.XDS)
	if err != nil {
		return err
	}
	control := grpc.NewServer(grpc.StreamInterceptor(func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return handler(srv, stockFilter{stream})
	}))
	p.xds.Register(control)
	go control.Serve(l) // until the process ends
	return errors.Join(
		serveNoop(sockets.Authz),
		replaceFile(filepath.Join(c.SocketDir, "envoy.yaml"), bootstrap),
		p.apply(ctx, c),
	)
}

// stockFilter puts the ext_authz filter into its stock form on the way to Envoy: all headers, none of them raw.
type stockFilter struct{ grpc.ServerStream }

func (s stockFilter) SendMsg(m any) error {
	for _, r := range m.(*discoveryv3.DeltaDiscoveryResponse).Resources {
		extension := new(corev3.TypedExtensionConfig)
		if !r.Resource.MessageIs(extension) {
			continue
		}
		ours := new(extauthzv3.ExtAuthz)
		if err := errors.Join(r.Resource.UnmarshalTo(extension), extension.TypedConfig.UnmarshalTo(ours)); err != nil {
			return err
		}
		service := ours.GetGrpcService()
		service.InitialMetadata = nil
		stock, err := anypb.New(&extauthzv3.ExtAuthz{
			Services:            &extauthzv3.ExtAuthz_GrpcService{GrpcService: service},
			TransportApiVersion: corev3.ApiVersion_V3,
		})
		if err != nil {
			return err
		}
		extension.TypedConfig = stock
		if r.Resource, err = anypb.New(extension); err != nil {
			return err
		}
	}
	return s.ServerStream.SendMsg(m)
}
