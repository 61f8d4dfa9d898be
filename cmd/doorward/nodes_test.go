package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/cmd/internal/markdown"
	"doorward/envoy"
	"doorward/xds/node"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
)

const liveRoutes = `
  - {name: live, from: "https://grafana.localhost:{{.Port}}", prefix: /live, to: "{{.Grafana}}", policy: grafana, allow_websockets: true}
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: grafana}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: any_authenticated_user}
`

// TestAnEnvoyOnAnotherMachine: sign-in, decisions and open streams over mutual TLS; a renewal that nothing notices; a revocation that ends it all.
func TestAnEnvoyOnAnotherMachine(t *testing.T) {
	s := newRemoteStack(t, liveRoutes)
	s.bootstrap("edge-1", "--group", "eu")
	s.runEdge()
	alice := s.browser()
	if got := alice.signIn(s.url("grafana", "/"), "alice"); got.StatusCode != 200 {
		t.Fatalf("signed in: %d at %s\n%s\n%s", got.StatusCode, got.Request.URL, s.edgeLog, s.log)
	}
	if seen := s.grafana.requests(); len(seen) != 1 || seen[0].Header.Get("X-Pomerium-Jwt-Assertion") == "" {
		t.Errorf("the application saw %d requests, want one with an identity", len(seen))
	}
	if got := s.browser().get(s.url("grafana", "/"), programHeaders...); got.StatusCode != 401 {
		t.Errorf("a stranger: %d", got.StatusCode)
	}
	list := s.envoys()
	if len(list) != 1 || list[0].Node != "edge-1" || list[0].Group != "eu" || list[0].Via != "mtls" || time.Until(list[0].Certificate) < 23*time.Hour {
		t.Fatalf("envoy list: %+v", list)
	}
	s.grafana.mu.Lock()
	s.grafana.app = http.HandlerFunc(streaming)
	s.grafana.mu.Unlock()
	cookie := alice.cookie("grafana")
	socket := s.opened(cookie, "grafana", "/live")

	load := s.traffic(cookie)
	first := s.inUse()
	time.Sleep(time.Second) // no two renewals within one
	if out, err := s.renew(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	s.eventually("Envoy takes the new certificate", func() bool { now := s.inUse(); return now != "" && now != first })
	time.Sleep(300 * time.Millisecond)
	answers := load.all()
	if len(answers) != 1 || answers["200 OK"] < 50 {
		t.Errorf("during the renewal: %v", answers)
	}
	if !socket.works() {
		t.Error("the WebSocket ended with the renewal")
	}

	s.doorward("envoy", "revoke", "edge-1")
	begun := time.Now()
	if got := alice.get(s.url("grafana", "/"), programHeaders...); got.StatusCode != 503 {
		t.Errorf("a request through a revoked node: %d", got.StatusCode)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %v until the revoked node had nothing", took)
	}
	socket.endsWithin("the WebSocket of a revoked node", 2*time.Second) // a second of which Envoy gives the client to read what was sent
	if list := s.envoys(); len(list) != 0 {
		t.Errorf("envoy list: %+v", list)
	}
	if out, err := s.renew(); err == nil || !strings.Contains(out, "does not take the one that there is (tls: bad certificate): it was revoked, replaced or is over; certify the node again with doorward envoy bootstrap") {
		t.Errorf("renewal of a revoked node: %v %s", err, out)
	}
	s.eventually("the refusal is in the log", func() bool { return strings.Contains(s.log.String(), `node \"edge-1\" is revoked`) })

	s.bootstrap("edge-1", "--group", "eu")
	s.served()
	if got := alice.get(s.url("grafana", "/"), programHeaders...); got.StatusCode != 200 {
		t.Errorf("after another bootstrap into the directory of the same Envoy: %d", got.StatusCode)
	}
}

const groupRoutes = `
  - {name: grafana, from: "https://grafana.localhost:{{.Port}}", to: "{{.Grafana}}", policy: public, groups: eu}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: public, groups: us}
  - {name: both, from: "https://both.localhost:{{.Port}}", to: "{{.Wiki}}", policy: public, groups: [eu, us]}
  - {name: all, from: "https://all.localhost:{{.Port}}", to: "{{.Grafana}}", policy: public}
`

// TestNodesServeTheirGroup: a node's Envoy has the hosts of its group and no others, and who has the node's key gets no further than that Envoy.
func TestNodesServeTheirGroup(t *testing.T) {
	s := newRemoteStack(t, groupRoutes)
	s.bootstrap("edge-1", "--group", "eu")
	s.runEdge()
	visitor := newVisitor(s.stack)
	holds := func(want map[string]bool) {
		t.Helper()
		for host, served := range want {
			s.eventually(fmt.Sprintf("%s is served: %v", host, served), func() bool {
				got := visitor.status(s.url(host, "/"))
				return served && got == "200 OK" || !served && strings.Contains(got, "tls: ")
			})
		}
	}
	holds(map[string]bool{"grafana": true, "wiki": false, "both": true, "all": true})
	if dump, err := envoy.NewAdmin(envoy.SocketsIn(s.edge).Admin).ConfigDump(t.Context(), ""); err != nil || strings.Contains(string(dump), "wiki.localhost") {
		t.Errorf("Envoy knows of another group's host (%v)", err)
	}
	s.hostile(t)

	s.bootstrap("edge-1", "--group", "us") // the same Envoy, in another group
	s.served()
	holds(map[string]bool{"grafana": false, "wiki": true, "both": true, "all": true})
	s.bootstrap("edge-1")
	s.served()
	holds(map[string]bool{"grafana": false, "wiki": false, "both": false, "all": true})
	if out, err := s.try("envoy", "bootstrap", "--node", "edge-1", "--group", "mars", "--out", s.edge, "--config", s.config()); err == nil || !strings.Contains(out, `"mars" is not one of control.groups`) {
		t.Errorf("%v %s", err, out)
	}
}

// hostile is what somebody tries who has the key of a node of the group eu.
func (s *remoteStack) hostile(t *testing.T) {
	t.Helper()
	ads, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.grpc(node.ProtocolXDS)).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{resourcev3.SecretType, resourcev3.RouteType} {
		err := ads.Send(&discoveryv3.DeltaDiscoveryRequest{
			Node: &corev3.Node{Id: "edge-1", Cluster: "us"}, TypeUrl: kind, ResourceNamesSubscribe: []string{"wiki.localhost", "grafana.localhost"},
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := ads.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if len(got.Resources) != 1 || got.Resources[0].Name != "grafana.localhost" || len(got.RemovedResources) != 1 || got.RemovedResources[0] != "wiki.localhost" {
			t.Errorf("%s: got %d resources, without %v", kind, len(got.Resources), got.RemovedResources)
		}
	}
	other, err := discoveryv3.NewAggregatedDiscoveryServiceClient(s.grpc(node.ProtocolXDS)).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = other.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "edge-2"}, TypeUrl: resourcev3.ClusterType, ResourceNamesSubscribe: []string{"*"}})
	if _, err := other.Recv(); err == nil || !strings.Contains(err.Error(), `the node id is "edge-2" and the certificate is of node "edge-1"`) {
		t.Errorf("as another node: %v", err)
	}
	s.eventually("the log tells of the other node", func() bool { // it is written behind a queue
		return strings.Contains(s.log.String(), `it says that it is another node than its certificate`)
	})

	for route, want := range map[string]string{"grafana": "200", "wiki": "503"} {
		if got := s.asks(t, route); got != want {
			t.Errorf("a check for the route %s: %s, want %s", route, got, want)
		}
	}
	s.eventually("the log tells of the check", func() bool { // decisions are written beside what waits for them
		return strings.Contains(s.log.String(), "the route is for other groups of Envoys than the one that asks")
	})
	for host, want := range map[string]string{"grafana": "200", "wiki": "421"} {
		c, err := s.dial(node.ProtocolHTTP)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		name := host + ".localhost"
		fmt.Fprintf(c, "GET /.well-known/pomerium/jwks.json HTTP/1.1\r\nHost: %s:%d\r\nX-Doorward-Sni: %s\r\nConnection: close\r\n\r\n", name, s.port, name)
		var code string
		if _, err := fmt.Fscanf(c, "HTTP/1.1 %s", &code); err != nil || code != want {
			t.Errorf("a page of %s: %s, %v; want %s", name, code, err, want)
		}
	}
	for _, protocol := range []string{"h2", "doorward-admin"} {
		if c, err := s.dial(protocol); err == nil {
			c.Close()
			t.Errorf("%s is spoken", protocol)
		}
	}
}

// asks sends a Check for a route in its present revision, as Envoy would, and returns the status of the answer: 200 when it is let through.
func (s *remoteStack) asks(t *testing.T, route string) string {
	t.Helper()
	host := route + ".localhost"
	var revision string
	for line := range strings.Lines(s.doorward("route", "get", route, "-o", "json")) {
		if _, after, ok := strings.Cut(line, `"revision": "`); ok {
			revision, _, _ = strings.Cut(after, `"`)
		}
	}
	answer, err := authv3.NewAuthorizationClient(s.grpc(node.ProtocolAuthz)).Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		ContextExtensions: map[string]string{"route": route, "revision": revision},
		TlsSession:        &authv3.AttributeContext_TLSSession{Sni: host},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: "/", Host: host, Scheme: "https",
			HeaderMap: &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
				{Key: ":method", RawValue: []byte("GET")}, {Key: ":path", RawValue: []byte("/")}, {Key: ":authority", RawValue: []byte(host)}, {Key: ":scheme", RawValue: []byte("https")},
			}},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if denied := answer.GetDeniedResponse(); denied != nil {
		return fmt.Sprint(int(denied.GetStatus().GetCode()))
	}
	return "200"
}

// TestANodeOutlivesDoorward: while doorward is away, killed without warning, nothing is let through; when it is back, so is the node, within two
// seconds, and gets what changed meanwhile and nothing else. The same when the node was away.
func TestANodeOutlivesDoorward(t *testing.T) {
	s := newRemoteStack(t, twoHosts)
	s.bootstrap("edge-1")
	s.runEdge()
	alice := s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	alice.get(s.url("wiki", "/"))
	for round := range 3 {
		before := map[string]uint64{}
		for _, name := range []string{"cluster_manager.cluster_added", "cluster_manager.cluster_modified", "listener_manager.listener_modified", "listener_manager.listener_added", "cluster_manager.cluster_removed"} {
			before[name] = s.stat(name)
		}
		s.stop(syscall.SIGKILL)
		for _, path := range []string{"/", "/public/x"} {
			if got := alice.get(s.url("grafana", path), programHeaders...); got.StatusCode != 503 {
				t.Errorf("%s with doorward killed: %d, want 503", path, got.StatusCode)
			}
		}
		added := ""
		if round > 0 { // routes changed while doorward was away
			added = fmt.Sprintf("  - {name: new, from: \"https://new%d.localhost:{{.Port}}\", to: \"http://127.0.0.1:%d\", policy: public}\n", round, freePort(t))
		}
		s.configure(twoHosts + added)
		time.Sleep(500 * time.Millisecond)
		s.start()
		if took := s.logged(`"envoy connected"`).Sub(s.logged("")); took > 2500*time.Millisecond { // beside what Envoy takes to notice
			t.Errorf("back only after %v", took)
		}
		if got := alice.get(s.url("grafana", "/"), programHeaders...); got.StatusCode != 200 {
			t.Errorf("with doorward back: %d", got.StatusCode)
		}
		want := map[string]uint64{}
		if round > 0 {
			want["cluster_manager.cluster_added"] = 1
		}
		if round > 1 {
			want["cluster_manager.cluster_removed"] = 1
		}
		for name, n := range before {
			if got := s.stat(name) - n; got != want[name] {
				t.Errorf("round %d: %s grew by %d, want %d", round, name, got, want[name])
			}
		}
	}
	s.stopEdge(s.child, s.ended)
	s.configure(twoHosts + `  - {name: late, from: "https://late.localhost:{{.Port}}", to: "{{.Wiki}}", policy: public}
`)
	s.runEdge()
	if got := s.browser().get(s.url("late", "/"), programHeaders...); got.StatusCode != 200 {
		t.Errorf("a route that came while the node was away: %d", got.StatusCode)
	}
}

// TestNodesRenewByThemselves: past the end of the first certificate nothing was noticed; a node that did not renew has nothing.
func TestNodesRenewByThemselves(t *testing.T) {
	s := newRemoteStack(t, twoHosts)
	s.bootstrap("edge-1", "--life", "5s")
	first := time.Now()
	s.runEdge()
	alice := s.browser()
	alice.signIn(s.url("grafana", "/"), "alice")
	load := s.traffic(alice.cookie("grafana"))
	time.Sleep(time.Until(first.Add(5800 * time.Millisecond)))
	if answers := load.all(); len(answers) != 1 || answers["200 OK"] < 100 {
		t.Errorf("while the certificate was renewed: %v\n%s", answers, s.edgeLog)
	}
	if log := s.edgeLog.String(); !strings.Contains(log, "the certificate is renewed") {
		t.Errorf("the log does not tell of a renewal:\n%s", log)
	}
	if err := s.child.Process.Signal(syscall.SIGSTOP); err != nil { // Envoy runs on, and nobody renews
		t.Fatal(err)
	}
	defer func() { _ = s.child.Process.Signal(syscall.SIGCONT) }()
	s.eventually("the certificate has ended", func() bool {
		return alice.get(s.url("grafana", "/"), programHeaders...).StatusCode == 503 && len(s.envoys()) == 0
	})
	if out, err := s.renew(); err == nil || !strings.Contains(out, "tls: ") {
		t.Errorf("renewal after the end: %v %s", err, out)
	}
}

// TestAnEnvoyTrustsItsOwnDoorwardAlone: behind the address stands somebody else.
func TestAnEnvoyTrustsItsOwnDoorwardAlone(t *testing.T) {
	s := newRemoteStack(t, twoHosts)
	s.bootstrap("edge-1")
	other := filepath.Join(s.dir, "other")
	if err := os.Mkdir(other, 0o700); err != nil {
		t.Fatal(err)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	root, err := exec.Command(path, "ca", "--data-dir", other).Output()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.edge, envoy.NodeRoot), root, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := s.renew(); err == nil || !strings.Contains(out, "certificate signed by unknown authority") {
		t.Errorf("renewal with a stranger: %v %s", err, out)
	}
	cmd := exec.Command(s.envoyBin, "-c", filepath.Join(s.edge, "envoy.yaml"), "--use-dynamic-base-id", "--log-level", "error")
	done, err := envoy.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); <-done }()
	s.eventually("Envoy has tried", func() bool {
		if _, err := os.Stat(envoy.SocketsIn(s.edge).Admin); err != nil {
			return false
		}
		return s.stat("cluster.doorward_xds.ssl.fail_verify_error") > 0
	})
	if list := s.envoys(); len(list) != 0 {
		t.Errorf("an Envoy is connected: %+v", list)
	}
}

const nodesSection = "Envoys on other machines"

// TestREADMENodes types what the README says, with addresses and a directory of this machine.
func TestREADMENodes(t *testing.T) {
	s := &remoteStack{stack: prepareStack(t, twoHosts), control: freePort(t)}
	s.apart = true
	blocks := markdown.Blocks(markdown.Section(readme(t), nodesSection))
	if len(blocks) != 2 {
		t.Fatalf("the README has %d blocks on nodes, want 2", len(blocks))
	}
	here := strings.NewReplacer("10.0.0.5:9443", fmt.Sprintf("127.0.0.1:%d", s.control), "doorward.internal:9443", fmt.Sprintf("localhost:%d", s.control))
	s.write("doorward.yaml", s.read("doorward.yaml")+"\n"+here.Replace(blocks[0])+"\n")
	s.launch()
	s.eventually("doorward answers", func() bool { _, err := s.try("envoy", "list", "--config", s.config()); return err == nil })
	s.edge = filepath.Join(s.dir, "edge-1")
	want := map[string]string{
		"bootstrap": `edge-1 is certified until`,
		"run":       ``,
		"list":      `edge-1 +eu +mtls +2`,
		"revoke":    `edge-1 is revoked`,
	}
	for line := range strings.Lines(blocks[1]) {
		command, _, _ := strings.Cut(strings.Replace(line, "/etc/doorward-edge", s.edge, 1), "#")
		args := strings.Fields(command)[1:]
		if args[1] == "run" {
			s.runEdge()
			continue
		}
		if args[1] == "bootstrap" {
			args[len(args)-1] = s.edge
		}
		pattern, known := want[args[1]]
		if out := s.doorward(args...); !known || !regexp.MustCompile(pattern).MatchString(out) {
			t.Errorf("%s prints\n%s\nwant %s", command, out, pattern)
		}
		delete(want, args[1])
	}
	if delete(want, "run"); len(want) > 0 {
		t.Errorf("the README does not say %v", want)
	}
}
