package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/envoy"
	"doorward/xds"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// remoteStack is a stack whose Envoy stands as if on another machine: it reaches doorward over TCP alone.
type remoteStack struct {
	*stack
	edge    string // the node's directory
	control int    // the port of control.listen
	child   *exec.Cmd
	ended   chan error
	edgeLog *syncBuffer
}

// newRemoteStack runs doorward, with no Envoy yet.
func newRemoteStack(t *testing.T, routes string) *remoteStack {
	t.Helper()
	s := &remoteStack{stack: prepareStack(t, routes), control: freePort(t)}
	s.apart, s.edge = true, filepath.Join(s.dir, "edge")
	s.configure(routes)
	s.launch()
	s.eventually("doorward answers", func() bool { _, err := s.try("envoy", "list", "--config", s.config()); return err == nil })
	return s
}

// configure writes the configuration, with a way in for nodes.
func (s *remoteStack) configure(routes string) {
	s.t.Helper()
	s.writeConfig(routes)
	control := fmt.Sprintf("\ncontrol: {listen: \"127.0.0.1:%d\", address: \"localhost:%d\", groups: [eu, us]}\n", s.control, s.control)
	s.write("doorward.yaml", s.read("doorward.yaml")+control)
}

func (s *remoteStack) bootstrap(node string, flags ...string) {
	s.t.Helper()
	s.doorward(append([]string{"envoy", "bootstrap", "--node", node, "--out", s.edge}, flags...)...)
}

// runEdge runs doorward envoy run, and waits until Envoy has everything.
func (s *remoteStack) runEdge() {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	s.edgeLog, s.ended = new(syncBuffer), make(chan error, 1)
	s.child = exec.Command(path, "envoy", "run", "--dir", s.edge, "--envoy", s.envoyBin, "--grace", "100ms")
	s.child.Stdout, s.child.Stderr = s.edgeLog, s.edgeLog
	if err := s.child.Start(); err != nil {
		s.t.Fatal(err)
	}
	child, ended := s.child, s.ended
	go func() { ended <- child.Wait(); close(ended) }()
	s.t.Cleanup(func() { s.stopEdge(child, ended) })
	s.served()
}

func (s *remoteStack) stopEdge(child *exec.Cmd, ended chan error) {
	s.t.Helper()
	if child.Process.Signal(os.Interrupt) != nil {
		return
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		_ = child.Process.Kill()
		s.t.Errorf("doorward envoy run did not end\n%s", s.edgeLog)
	}
}

// envoys is what doorward envoy list prints.
func (s *remoteStack) envoys() []xds.Envoy {
	s.t.Helper()
	var list struct{ Envoys []xds.Envoy }
	if err := json.Unmarshal([]byte(s.doorward("envoy", "list", "-o", "json")), &list); err != nil {
		s.t.Fatal(err)
	}
	return list.Envoys
}

func (s *remoteStack) stat(name string) uint64 {
	s.t.Helper()
	stats, err := envoy.NewAdmin(envoy.SocketsIn(s.edge).Admin).Stats(s.t.Context(), "^"+strings.ReplaceAll(name, ".", `\.`)+"$")
	if err != nil {
		s.t.Fatal(err)
	}
	return stats[name]
}

// inUse is the serial number of the node's certificate that Envoy has in memory.
func (s *remoteStack) inUse() string {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", envoy.SocketsIn(s.edge).Admin)
	}}}
	defer client.CloseIdleConnections()
	res, err := client.Get("http://envoy/certs")
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	var all struct {
		Certificates []struct {
			CertChain []struct {
				SerialNumber    string `json:"serial_number"`
				SubjectAltNames []struct {
					URI string `json:"uri"`
				} `json:"subject_alt_names"`
			} `json:"cert_chain"`
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&all); err != nil {
		s.t.Fatal(err)
	}
	for _, c := range all.Certificates {
		for _, leaf := range c.CertChain {
			for _, name := range leaf.SubjectAltNames {
				if strings.HasPrefix(name.URI, "doorward://node/") {
					return leaf.SerialNumber
				}
			}
		}
	}
	return ""
}

// dial connects with the node's key and certificate, as a program on a node's machine that is no Envoy.
func (s *remoteStack) dial(protocol string) (net.Conn, error) {
	pair, err := os.ReadFile(filepath.Join(s.edge, envoy.NodePair))
	if err != nil {
		return nil, err
	}
	own, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		return nil, err
	}
	root, err := os.ReadFile(filepath.Join(s.edge, envoy.NodeRoot))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	return tls.Dial("tcp", fmt.Sprintf("localhost:%d", s.control), &tls.Config{
		ServerName: "localhost", RootCAs: roots, Certificates: []tls.Certificate{own}, NextProtos: []string{protocol},
	})
}

// grpc is a connection of that kind for gRPC.
func (s *remoteStack) grpc(protocol string) *grpc.ClientConn {
	s.t.Helper()
	conn, err := grpc.NewClient("passthrough:", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return s.dial(protocol) }))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return conn
}

// logged is the time of doorward's first line with a text.
func (s *remoteStack) logged(text string) time.Time {
	s.t.Helper()
	for line := range strings.Lines(s.log.String()) {
		var entry struct{ Time time.Time }
		if strings.Contains(line, text) && json.Unmarshal([]byte(line), &entry) == nil {
			return entry.Time
		}
	}
	s.t.Fatalf("no %s in the log\n%s", text, s.log)
	return time.Time{}
}

// traffic asks again and again until it is stopped, and counts what came.
type traffic struct {
	stop    func()
	mu      sync.Mutex // guards answers
	answers map[string]int
}

func (s *remoteStack) traffic(cookie string) *traffic {
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan struct{})
	f := &traffic{answers: make(map[string]int), stop: func() { cancel(); <-done }}
	b := s.browser()
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("grafana", "/"), nil)
			if err != nil {
				return
			}
			req.Header.Set("Cookie", cookie)
			req.Header.Set("Accept", "application/json")
			got := "none"
			res, err := b.Do(req)
			if err == nil {
				var text bytes.Buffer
				_, _ = text.ReadFrom(res.Body)
				res.Body.Close()
				got = res.Status
			}
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				got = err.Error()
			}
			f.mu.Lock()
			f.answers[got]++
			f.mu.Unlock()
			time.Sleep(5 * time.Millisecond)
		}
	}()
	s.t.Cleanup(f.stop)
	return f
}

// all ends it and returns the answers.
func (f *traffic) all() map[string]int {
	f.stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.answers
}

// try runs a command that may fail.
func (s *remoteStack) try(args ...string) (string, error) {
	s.t.Helper()
	path, err := program()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

func (s *remoteStack) renew() (string, error) { return s.try("envoy", "renew", "--dir", s.edge) }
