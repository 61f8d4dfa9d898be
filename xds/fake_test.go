package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
)

// patience is how long a test waits for what must come, quiet for what must not.
const (
	patience = 5 * time.Second
	quiet    = 50 * time.Millisecond
)

// control is a Server behind gRPC.
type control struct {
	*Server
	t    *testing.T
	conn *grpc.ClientConn
}

func newControl(t *testing.T) *control {
	t.Helper()
	s := NewServer(slog.New(slog.NewTextHandler(io.Discard, nil)))
	g := grpc.NewServer(Options()...)
	s.Register(g)
	l := bufconn.Listen(1 << 20)
	go g.Serve(l)
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &control{s, t, conn}
}

// everything is a change to exactly these resources.
func everything(r *Resources) *Change {
	return &Change{parts: map[string]*Resources{"all": r}, whole: true}
}

// flat are all resources of a change.
func flat(t *testing.T, c *Change) *Resources {
	t.Helper()
	all := new(Resources)
	for _, part := range c.parts {
		for k := range kinds {
			if all.set[k] == nil {
				all.set[k] = make(map[string]*resource)
			}
			maps.Copy(all.set[k], part.set[k])
		}
	}
	return all
}

// changes are the names whose resource differs between two states.
func changes(from, to *Change) []key {
	s := newServed()
	s.adopt(from)
	return s.adopt(to)
}

// start installs and waits in the background; the channel gets the outcome.
func (c *control) start(r *Resources) <-chan error {
	c.t.Helper()
	delivery := c.Install(everything(r))
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		var errs []error
		for _, a := range delivery.Wait(ctx) {
			errs = append(errs, a.Err())
		}
		done <- errors.Join(errs...)
	}()
	return done
}

func (c *control) done(done <-chan error) error {
	c.t.Helper()
	select {
	case err := <-done:
		return err
	case <-time.After(patience + time.Second):
		c.t.Fatal("Apply does not return")
		return nil
	}
}

func (c *control) notDone(done <-chan error) {
	c.t.Helper()
	select {
	case err := <-done:
		c.t.Fatalf("Apply returned too early: %v", err)
	case <-time.After(quiet):
	}
}

// client is one delta stream, driven by the test.
type client struct {
	t      *testing.T
	g      discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	got    [kinds]chan *discoveryv3.DeltaDiscoveryResponse
	other  chan *discoveryv3.DeltaDiscoveryResponse
	cancel func()
}

func (c *control) connect(node string) *client { return c.connectAs(node, "") }

// connectAs connects an Envoy of a group.
func (c *control) connectAs(node, group string) *client {
	c.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	c.t.Cleanup(cancel)
	g, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c.conn).DeltaAggregatedResources(ctx)
	if err != nil {
		c.t.Fatal(err)
	}
	e := &client{t: c.t, g: g, cancel: cancel, other: make(chan *discoveryv3.DeltaDiscoveryResponse, 100)}
	for k := range e.got {
		e.got[k] = make(chan *discoveryv3.DeltaDiscoveryResponse, 100)
	}
	e.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: node, Cluster: group}, TypeUrl: "introduction"})
	go func() {
		for {
			response, err := g.Recv()
			if err != nil {
				return
			}
			to := e.other
			if k, ok := kindOf(response.TypeUrl); ok {
				to = e.got[k]
			}
			to <- response
		}
	}()
	return e
}

func (e *client) send(request *discoveryv3.DeltaDiscoveryRequest) {
	e.t.Helper()
	if err := e.g.Send(request); err != nil {
		e.t.Fatal(err)
	}
}

func (e *client) subscribe(k kind, names ...string) {
	e.t.Helper()
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[k], ResourceNamesSubscribe: names})
}

func (e *client) unsubscribe(k kind, names ...string) {
	e.t.Helper()
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[k], ResourceNamesUnsubscribe: names})
}

// resume subscribes with what an earlier stream left.
func (e *client) resume(k kind, versions map[string]string, names ...string) {
	e.t.Helper()
	e.send(&discoveryv3.DeltaDiscoveryRequest{
		TypeUrl: kindURL[k], InitialResourceVersions: versions, ResourceNamesSubscribe: names,
	})
}

// next is the next response of a kind.
func (e *client) next(k kind) *discoveryv3.DeltaDiscoveryResponse {
	e.t.Helper()
	select {
	case r := <-e.got[k]:
		return r
	case <-time.After(patience):
		e.t.Fatalf("no %s response", k)
		return nil
	}
}

// expect is next with its names checked: resources, and removed ones with a minus sign.
func (e *client) expect(k kind, names ...string) *discoveryv3.DeltaDiscoveryResponse {
	e.t.Helper()
	r := e.next(k)
	if got := namesOf(r); !slices.Equal(got, names) {
		e.t.Fatalf("%s response has %v, want %v", k, got, names)
	}
	return r
}

func namesOf(r *discoveryv3.DeltaDiscoveryResponse) []string {
	var names []string
	for _, res := range r.Resources {
		names = append(names, res.Name)
	}
	for _, name := range r.RemovedResources {
		names = append(names, "-"+name)
	}
	slices.Sort(names)
	return names
}

// silent fails when a response of one of the kinds comes.
func (e *client) silent(of ...kind) {
	e.t.Helper()
	time.Sleep(quiet)
	for _, k := range of {
		select {
		case r := <-e.got[k]:
			e.t.Fatalf("%s response too early: %v", k, namesOf(r))
		default:
		}
	}
}

func (e *client) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	e.t.Helper()
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}

func (e *client) nack(r *discoveryv3.DeltaDiscoveryResponse, why string) {
	e.t.Helper()
	e.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce, ErrorDetail: &status.Status{Code: 13, Message: why}})
}

// world is a set of resources that tests write down by name: kind -> name -> any text, which is the version.
type world map[kind]map[string]string

func (w world) build(t *testing.T) *Resources {
	t.Helper()
	r := new(Resources)
	for k, resources := range w {
		for name, text := range resources {
			if err := r.add(k, name, some(k, name, text)); err != nil {
				t.Fatal(err)
			}
		}
	}
	return r
}

// with returns a copy with some resources changed; an empty text removes.
func (w world) with(k kind, changes map[string]string) world {
	out := make(world)
	for k, resources := range w {
		out[k] = maps.Clone(resources)
	}
	if out[k] == nil {
		out[k] = make(map[string]string)
	}
	for name, text := range changes {
		out[k][name] = text
		if text == "" {
			delete(out[k], name)
		}
	}
	return out
}

// some makes a resource of a kind that differs with text.
func some(k kind, name, text string) validated {
	switch k {
	case clusterKind:
		return &clusterv3.Cluster{Name: name, AltStatName: text}
	case secretKind:
		return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{
			GenericSecret: &tlsv3.GenericSecret{Secret: inlineString(text)},
		}}
	case routeKind:
		return &routev3.RouteConfiguration{Name: name, InternalOnlyHeaders: []string{text}}
	case scopeKind:
		s := scope(name)
		s.RouteConfigurationName = text
		return s
	case listenerKind:
		return &listenerv3.Listener{Name: name, StatPrefix: text}
	}
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: mustPack(&routev3.RouteConfiguration{Name: text})}
}

// hosts is a world with n hosts: h0, h1, ...
func hosts(n int) world {
	w := world{
		clusterKind:   {"up": "1"},
		extensionKind: {authzName: "1"},
		listenerKind:  {httpsListener: "1"},
		routeKind:     {},
		scopeKind:     {},
		secretKind:    {},
	}
	for i := range n {
		h := fmt.Sprint("h", i)
		w[routeKind][h], w[scopeKind][h], w[secretKind][h] = "1", h, "1"
	}
	return w
}

// robot behaves as Envoy does: it asks for what its resources refer to, and accepts all but what bad names.
type robot struct {
	*client

	mu        sync.Mutex
	bad       map[string]bool // "h1 2": the name, and the text that is not accepted
	held      [kinds]map[string]*discoveryv3.Resource
	responses [kinds]int
}

// robot connects, with what an earlier robot held.
func (c *control) robot(node string, before *robot, bad ...string) *robot {
	c.t.Helper()
	r := &robot{client: c.connect(node), bad: make(map[string]bool)}
	for _, b := range bad {
		r.bad[b] = true
	}
	for k := range r.held {
		r.held[k] = make(map[string]*discoveryv3.Resource)
		if before != nil {
			before.mu.Lock()
			r.held[k] = maps.Clone(before.held[k])
			before.mu.Unlock()
		}
	}
	for k := range kinds {
		var names []string
		if !k.wildcard() {
			if names = r.interest(k); len(names) == 0 {
				continue
			}
		}
		r.resume(k, r.versions(k), names...)
	}
	for k := range kinds {
		go r.run(k)
	}
	for deadline := time.Now().Add(patience); !c.subscribed(node); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			c.t.Fatalf("%s does not connect", node)
		}
	}
	return r
}

// subscribed says whether a robot's first requests have arrived: listeners are the last of them.
func (c *control) subscribed(node string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for st := range c.streams {
		if st.node == node && st.feeds[listenerKind] != nil {
			return true
		}
	}
	return false
}

// interest is what the robot asks for by name when it comes back: what it has, and what its scopes refer to.
func (r *robot) interest(k kind) []string {
	names := slices.Collect(maps.Keys(r.held[k]))
	if k == routeKind {
		names = slices.AppendSeq(names, maps.Keys(r.held[scopeKind]))
	}
	slices.Sort(names)
	return slices.Compact(names)
}

func (r *robot) versions(k kind) map[string]string {
	out := make(map[string]string)
	for name, res := range r.held[k] {
		out[name] = res.Version
	}
	return out
}

func (r *robot) run(k kind) {
	for response := range r.got[k] {
		r.mu.Lock()
		err := r.g.Send(r.take(k, response))
		r.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// take accepts a response whole, or not at all. Sends are made under the mutex: a stream takes one at a time.
func (r *robot) take(k kind, response *discoveryv3.DeltaDiscoveryResponse) *discoveryv3.DeltaDiscoveryRequest {
	r.responses[k]++
	answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: response.TypeUrl, ResponseNonce: response.Nonce}
	for _, res := range response.Resources {
		if r.bad[res.Name+" "+textOf(k, res)] {
			answer.ErrorDetail = &status.Status{Code: 13, Message: "something is bad"}
			return answer
		}
	}
	for _, res := range response.Resources {
		r.held[k][res.Name] = res
		r.follow(k, res.Name)
	}
	for _, name := range response.RemovedResources {
		delete(r.held[k], name)
		if k == scopeKind {
			delete(r.held[routeKind], name)
			r.g.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[routeKind], ResourceNamesUnsubscribe: []string{name}})
		}
	}
	return answer
}

// follow asks for what a new resource refers to.
func (r *robot) follow(k kind, name string) {
	switch k {
	case scopeKind:
		if r.held[routeKind][name] == nil {
			r.g.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[routeKind], ResourceNamesSubscribe: []string{name}})
		}
	case listenerKind:
		r.g.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: kindURL[extensionKind], ResourceNamesSubscribe: []string{authzName}})
	}
}

// textOf reads back what some was given.
func textOf(k kind, res *discoveryv3.Resource) string {
	m, err := res.Resource.UnmarshalNew()
	if err != nil {
		return err.Error()
	}
	switch m := m.(type) {
	case *clusterv3.Cluster:
		return m.AltStatName
	case *routev3.RouteConfiguration:
		return m.InternalOnlyHeaders[0]
	case *routev3.ScopedRouteConfiguration:
		return m.RouteConfigurationName
	case *listenerv3.Listener:
		return m.StatPrefix
	}
	return ""
}

// has says which text the robot holds of a resource; "" for none.
func (r *robot) has(k kind, name string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if res := r.held[k][name]; res != nil {
		return textOf(k, res)
	}
	return ""
}

// count is how many responses of a kind have come.
func (r *robot) count(k kind) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.responses[k]
}
