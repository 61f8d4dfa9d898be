package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"doorward/envoy"
)

const (
	edgeRequests = 1500 // per turn
	edgeTurns    = 19
)

// BenchmarkEdge asks through a real Envoy, over TLS and HTTP/2. Both Envoys have the same configuration but for the ext_authz filter: a stock one
// that asks the no-op, and Doorward's.
func BenchmarkEdge(b *testing.B) {
	path, err := envoy.Find("")
	if err != nil {
		b.Fatal(err)
	}
	upstream := startBenchUpstream(b)
	noop := &front{name: "noop", as: noopEdge}
	demo := &front{name: "demo", as: edge}
	demo.start(b, path, upstream.port())
	noop.cookies = demo.cookies
	noop.start(b, path, upstream.port())
	for _, f := range []*front{noop, demo} {
		f.turn(b, 2*benchSessions)
		f.forget()
	}
	upstream.identified.Store(0)
	for range edgeTurns {
		for _, f := range []*front{noop, demo} {
			f.turn(b, edgeRequests)
		}
	}
	if got := upstream.identified.Load(); got != 2*edgeTurns*edgeRequests {
		b.Errorf("%d requests of %d reached the upstream with an identity", got, 2*edgeTurns*edgeRequests)
	}
	for _, f := range []*front{noop, demo} {
		clocksAgree(b, f.pid)
		clocksAgree(b, f.envoy)
		f.report("edge_cpu_"+f.name, "edge_p50_"+f.name, "edge_p99_"+f.name)
	}
	fmt.Printf("bench edge_cpu_ratio_demo %.2f x\n", ratio(demo.cpu, noop.cpu))
	fmt.Printf("bench edge_p50_ratio_demo %.2f x\n", ratio(demo.p50, noop.p50))
	fmt.Printf("bench edge_p99_ratio_demo %.2f x\n", ratio(demo.p99, noop.p99))
}

// front is an Envoy and the child that it asks.
type front struct {
	name, as string
	*child
	figures
	cookies []string
	port    int
	envoy   int // its process
	client  http.Client
	next    int
}

func (f *front) start(b testing.TB, path string, upstream int) {
	b.Helper()
	f.port = freePort(b)
	f.child = startChild(b, f.as, "grafana", f.port, upstream, benchSessions)
	if f.cookies == nil {
		f.cookies = f.Cookies
	}
	cmd := exec.Command(path, "--config-path", filepath.Join(f.dir, "run", "envoy.yaml"), "--disable-hot-restart", "--log-level", "error")
	cmd.Stderr = os.Stderr
	ended, err := envoy.Start(cmd)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { cmd.Process.Kill(); <-ended })
	f.envoy = cmd.Process.Pid
	pem, err := os.ReadFile(filepath.Join(f.dir, "data", "ca", "ca.pem"))
	if err != nil {
		b.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	f.client = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, ForceAttemptHTTP2: true, DisableCompression: true,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, fmt.Sprintf("127.0.0.1:%d", f.port))
		},
	}}
	b.Cleanup(f.client.CloseIdleConnections)
	deadline := time.Now().Add(30 * time.Second)
	for err = f.ask(0); err != nil; err = f.ask(0) {
		if time.Now().After(deadline) {
			b.Fatalf("%s: %v", f.name, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// turn asks n times over one connection.
func (f *front) turn(b testing.TB, n int) {
	b.Helper()
	f.measure(b, n, []int{f.pid, f.envoy}, func(i int, _ bool) error { return f.ask(f.next + i) })
	f.next += n
}

// request is the i-th navigation.
func (f *front) request(i int) (*http.Request, error) {
	path := benchPath(i, false)
	req, err := http.NewRequest(http.MethodGet, fmt.Sprintf("https://%s:%d%s", benchHost, f.port, path), nil)
	if err != nil {
		return nil, err
	}
	for _, h := range navigation(path, f.cookies[i%len(f.cookies)])[4:] {
		req.Header[http.CanonicalHeaderKey(h[0])] = []string{h[1]}
	}
	return req, nil
}

func (f *front) ask(i int) error {
	req, err := f.request(i)
	if err != nil {
		return err
	}
	res, err := f.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		return err
	}
	if res.StatusCode != 200 || res.ProtoMajor != 2 {
		return fmt.Errorf("%s: %s %s", f.name, res.Proto, res.Status)
	}
	return nil
}

// benchUpstream answers every request with 1 KiB, at little cost.
type benchUpstream struct {
	net.Listener
	identified atomic.Int64 // requests with an identity
}

func startBenchUpstream(b testing.TB) *benchUpstream {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	u := &benchUpstream{Listener: l}
	b.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go u.serve(conn)
		}
	}()
	return u
}

func (u *benchUpstream) port() int { return u.Addr().(*net.TCPAddr).Port }

// serve answers requests without a body: HTTP/1.1, one after the other.
func (u *benchUpstream) serve(conn net.Conn) {
	defer conn.Close()
	answer := append([]byte("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 1024\r\n\r\n"), bytes.Repeat([]byte("x"), 1024)...)
	text := make([]byte, 0, 64<<10)
	for {
		n, err := conn.Read(text[len(text):cap(text)])
		if err != nil {
			return
		}
		text = text[:len(text)+n]
		if !bytes.HasSuffix(text, []byte("\r\n\r\n")) {
			continue
		}
		if bytes.Contains(text, []byte("\r\nx-pomerium-jwt-assertion: ")) {
			u.identified.Add(1)
		}
		text = text[:0]
		if _, err := conn.Write(answer); err != nil {
			return
		}
	}
}
