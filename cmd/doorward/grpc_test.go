package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// serving is a gRPC application: the health service, whose answers depend on the name that is asked for.
type serving struct {
	healthv1.UnimplementedHealthServer

	mu   sync.Mutex // guards what was seen last
	md   metadata.MD
	left time.Duration // until the caller's deadline; 0 for none
}

func (s *serving) note(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.md, _ = metadata.FromIncomingContext(ctx)
	s.left = 0
	if at, ok := ctx.Deadline(); ok {
		s.left = time.Until(at)
	}
}

func (s *serving) Check(ctx context.Context, in *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	if in.Service != "" { // Envoy's own
		s.note(ctx)
	}
	grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", in.Service))
	switch in.Service {
	case "missing":
		return nil, status.Error(codes.NotFound, "no such thing: 100%")
	case "hang":
		time.Sleep(3 * time.Second)
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

func (s *serving) Watch(in *healthv1.HealthCheckRequest, g grpc.ServerStreamingServer[healthv1.HealthCheckResponse]) error {
	s.note(g.Context())
	for range 6 {
		if err := g.Send(&healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}); err != nil {
			return err
		}
		time.Sleep(250 * time.Millisecond)
	}
	g.SetTrailer(metadata.Pairs("x-trailer", in.Service))
	return status.Error(codes.Aborted, "enough")
}

// startGRPC starts the application without TLS and returns its address.
func startGRPC(t *testing.T) (*serving, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	app, server := new(serving), grpc.NewServer()
	healthv1.RegisterHealthServer(server, app)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return app, l.Addr().String()
}

// grpcClient speaks to one of the hosts.
func (s *stack) grpcClient(host string) healthv1.HealthClient {
	s.t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(s.read(filepath.Join("data", "ca", "ca.pem"))))
	conn, err := grpc.NewClient(fmt.Sprintf("passthrough:///%s.localhost:%d", host, s.port),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: host + ".localhost"})),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.port))
		}))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return healthv1.NewHealthClient(conn)
}

// TestGRPC makes calls through a real Envoy, as a program with a token does.
func TestGRPC(t *testing.T) {
	app, address := startGRPC(t)
	s := prepareStack(t, fmt.Sprintf(`
  - name: api
    from: https://grafana.localhost:{{.Port}}
    to: h2c://%[1]s
    policy: any_authenticated_user
    bearer: {service_tokens: true}
    timeout: 1s
    health_check: {grpc_service: "", interval: 200ms}
  - {name: streams, from: "https://grafana.localhost:{{.Port}}", prefix: /grpc.health.v1.Health/Watch, to: "h2c://%[1]s", policy: any_authenticated_user, bearer: {service_tokens: true}, streams: true}
  - {name: closed, from: "https://closed.localhost:{{.Port}}", to: "h2c://%[1]s", policy: closed, bearer: {service_tokens: true}}
  - {name: body, from: "https://body.localhost:{{.Port}}", to: "h2c://%[1]s", policy: closed, bearer: {service_tokens: true}, unauthenticated: 403}
  - {name: down, from: "https://down.localhost:{{.Port}}", to: "h2c://127.0.0.1:%[2]d", policy: public}
`, address, freePort(t)))
	s.write("policies/closed.rego", "package closed\n\ndefault allow := false\n\ndeny contains \"closed for 100% of you\"\n\nresponse_headers := {\"content-type\": \"text/html\", \"retry-after\": \"60\"}\n")
	s.start()
	token := "Bearer " + strings.TrimSpace(s.doorward("token", "create", "program", "--routes", "api,streams,closed,body"))
	with := func(ctx context.Context, timeout time.Duration) context.Context {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", token), timeout)
		t.Cleanup(cancel)
		return ctx
	}
	api := s.grpcClient("grafana")
	var trailer metadata.MD

	if _, err := api.Check(with(t.Context(), 700*time.Millisecond), &healthv1.HealthCheckRequest{Service: "ok"}, grpc.Trailer(&trailer)); err != nil || trailer.Get("x-trailer")[0] != "ok" {
		t.Fatalf("a unary call: %v, trailer %v\n%s", err, trailer, s.log)
	}
	if app.left <= 0 || app.left > 700*time.Millisecond || len(app.md.Get("x-pomerium-jwt-assertion")) != 1 || len(app.md.Get("authorization")) != 0 {
		t.Errorf("the application sees the deadline %v and %v", app.left, app.md)
	}
	if _, err := api.Check(with(t.Context(), 5*time.Second), &healthv1.HealthCheckRequest{Service: "missing"}, grpc.Trailer(&trailer)); status.Code(err) != codes.NotFound ||
		status.Convert(err).Message() != "no such thing: 100%" || trailer.Get("x-trailer")[0] != "missing" {
		t.Errorf("an error of the application's: %v, trailer %v", err, trailer)
	}
	// The program would wait longer than the route's timeout.
	start := time.Now()
	_, err := api.Check(with(t.Context(), 5*time.Second), &healthv1.HealthCheckRequest{Service: "hang"})
	if code := status.Code(err); code != codes.DeadlineExceeded && code != codes.Unavailable || time.Since(start) > 2*time.Second { // the client's or Envoy's word for it
		t.Errorf("a call that hangs: %v after %v", err, time.Since(start))
	}
	// A stream goes on for longer than the timeouts of ordinary routes.
	stream, err := api.Watch(with(t.Context(), 10*time.Second), &healthv1.HealthCheckRequest{Service: "w"})
	if err != nil {
		t.Fatal(err)
	}
	received := 0
	for err == nil {
		if _, err = stream.Recv(); err == nil {
			received++
		}
	}
	if received != 6 || status.Code(err) != codes.Aborted || status.Convert(err).Message() != "enough" || stream.Trailer().Get("x-trailer")[0] != "w" {
		t.Errorf("a stream: %d messages, %v, trailer %v\n%s", received, err, stream.Trailer(), s.log)
	}
	for _, row := range []struct {
		name, host string
		ctx        context.Context
		code       codes.Code
		message    string // "DECISION" stands for the id
	}{
		{"a stranger", "grafana", t.Context(), codes.Unauthenticated, "sign in to use this (decision DECISION)"},
		{"a wrong token", "grafana", metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer dw_x"), codes.Unauthenticated, "the bearer token is not good here (decision DECISION)"},
		{"a denied one", "closed", with(t.Context(), 5*time.Second), codes.PermissionDenied, "closed for 100% of you (decision DECISION)"},
		{"a stranger where they are forbidden", "body", t.Context(), codes.PermissionDenied, "This is not open to you without a session. (decision DECISION)"},
		{"nobody there", "down", t.Context(), codes.Unavailable, "The application did not answer. Try again in a moment."},
	} {
		_, err := s.grpcClient(row.host).Check(row.ctx, &healthv1.HealthCheckRequest{Service: "denied"})
		got := decisionID.ReplaceAllString(status.Convert(err).Message(), "(decision DECISION)")
		if status.Code(err) != row.code || strings.TrimSpace(got) != row.message {
			t.Errorf("%s: %v %q, want %v %q", row.name, status.Code(err), got, row.code, row.message)
		}
	}
	// Clients of other languages insist on the content type.
	for _, host := range []string{"grafana", "closed", "down"} {
		req, err := http.NewRequestWithContext(with(t.Context(), 5*time.Second), http.MethodPost, s.url(host, "/grpc.health.v1.Health/Check"), http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header = http.Header{"Content-Type": {"application/grpc+proto"}, "Te": {"trailers"}, "Accept": {"text/html"}}
		if host == "closed" {
			req.Header.Set("Authorization", token)
		}
		got := s.browser().do(req)
		if got.StatusCode != 200 || got.Header.Get("Content-Type") != "application/grpc" || got.Header.Get("Grpc-Status") == "" || got.text != "" {
			t.Errorf("%s: %d %v %q", host, got.StatusCode, got.Header, got.text)
		}
	}
}

var decisionID = regexp.MustCompile(`\(decision [0-9a-f-]+\)`)
