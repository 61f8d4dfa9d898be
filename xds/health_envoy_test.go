package xds

import (
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// grpcUpstream is a gRPC server with a certificate of the local CA; without one for host "". It returns its port and what it says of its health.
func (f *front) grpcUpstream(host string) (string, *health.Server) {
	f.t.Helper()
	var options []grpc.ServerOption
	if host != "" {
		chain, key, err := f.ca.Certificate(host)
		if err != nil {
			f.t.Fatal(err)
		}
		pair, err := tls.X509KeyPair(chain, key)
		if err != nil {
			f.t.Fatal(err)
		}
		options = append(options, grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}})))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	server, says := grpc.NewServer(options...), health.NewServer()
	healthv1.RegisterHealthServer(server, says)
	go server.Serve(l)
	f.t.Cleanup(server.Stop)
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}
	return port, says
}

// A gRPC server takes no TLS connection that does not ask for HTTP/2.
func TestEnvoyAsksGRPCServersForTheirHealth(t *testing.T) {
	f := newFront(t, "")
	clear, clearSays := f.grpcUpstream("")
	one, oneSays := f.grpcUpstream("one.localhost")
	two, twoSays := f.grpcUpstream("two.localhost")
	check := `health_check: {grpc_service: app, interval: 100ms, healthy_threshold: 1, unhealthy_threshold: 1}, policy: public`
	f.serve(fmt.Sprintf(`
  - {name: clear, from: "https://a.localhost:PORT", prefix: /clear, to: "h2c://127.0.0.1:%s", %[4]s}
  - {name: tls, from: "https://a.localhost:PORT", prefix: /tls, to: ["https://one.localhost:%[2]s", "https://two.localhost:%[3]s"], tls_custom_ca_file: %[5]s, %[4]s}
`, clear, one, two, check, filepath.Join(f.dir, "ca", "ca.pem")))
	// A server of gRPC alone refuses a browser's request itself, so that 415 says that it was asked.
	const asked, alone = "415", "503"
	f.only(alone, "/clear") // none of them knows the service yet
	f.only(alone, "/tls")
	clearSays.SetServingStatus("app", healthv1.HealthCheckResponse_SERVING)
	f.only(asked, "/clear")
	oneSays.SetServingStatus("app", healthv1.HealthCheckResponse_SERVING)
	f.only(asked, "/tls")
	twoSays.SetServingStatus("app", healthv1.HealthCheckResponse_SERVING)
	oneSays.SetServingStatus("app", healthv1.HealthCheckResponse_NOT_SERVING)
	f.only(asked, "/tls")
	twoSays.SetServingStatus("app", healthv1.HealthCheckResponse_NOT_SERVING)
	f.only(alone, "/tls")
}
