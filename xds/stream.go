package xds

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"doorward/authz/config"
	"doorward/xds/node"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// A change reaches an Envoy in this order: nothing is sent while anything of a lower rank is due or unacknowledged.
// Certificates wait for nothing and hold up nothing: a handshake waits for each.
const last = 5

var (
	upsertRank  = [kinds]int{clusterKind: 0, secretKind: 0, extensionKind: 0, routeKind: 1, scopeKind: 1, listenerKind: 1}
	removalRank = [kinds]int{scopeKind: 2, listenerKind: 2, routeKind: 3, clusterKind: 4, secretKind: 4, extensionKind: 4}
)

// stream is one Envoy's ADS stream. The server's mutex guards it; wake has room for one signal.
type stream struct {
	server    *Server
	wake      chan struct{}
	connected time.Time
	peer      *node.Peer // nil for an Envoy on this machine
	node      string     // as its certificate says, or, on this machine, as itself does; so is group
	group     string     // "" for none
	met       bool       // it has said who it is
	resumed   bool       // it had clusters before this stream
	version   string
	acked     [kinds]time.Time
	feeds     [kinds]*feed // nil before the first request of the kind
	foreign   []*discoveryv3.DeltaDiscoveryResponse
	waits     map[key][]*wait // who waits for a resource to be answered for
}

// responses are what can be sent now.
func (st *stream) responses() []*discoveryv3.DeltaDiscoveryResponse {
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	if st.server.served == nil {
		return nil
	}
	out := st.foreign
	st.foreign = nil
	limit := st.rank()
	for k, f := range st.feeds {
		if f == nil {
			continue
		}
		if b := f.compose(kind(k), st.lookup(kind(k)), limit); b != nil {
			out = append(out, f.send(kind(k), b))
		}
	}
	return out
}

// rank is the lowest rank of what is due or in flight. Certificates do not count.
func (st *stream) rank() int {
	rank := last
	if st.resuming() {
		rank = removalRank[routeKind]
	}
	for k, f := range st.feeds {
		if f != nil && kind(k) != secretKind {
			rank = min(rank, f.rank(kind(k)))
		}
	}
	return rank
}

// resuming says that an Envoy which comes back has yet to say which routes it has: no cluster is taken away from under them.
func (st *stream) resuming() bool {
	scopes := st.feeds[scopeKind]
	return st.resumed && (st.feeds[listenerKind] == nil || scopes == nil || st.feeds[routeKind] == nil && len(scopes.held) > 0)
}

// lookup finds what is served of a kind.
func (st *stream) lookup(k kind) func(name string) *resource {
	return func(name string) *resource { return st.served(key{k, name}) }
}

// mark works out what is due for a name, if the Envoy has asked for its kind. Routes whose upstream the Envoy refuses are not sent to it while it has
// good ones: it keeps them, and the clusters that they need.
func (st *stream) mark(k kind, name string) {
	f := st.feeds[k]
	if f == nil {
		return
	}
	res := st.served(key{k, name})
	if no, missing := st.missing(k, res); missing && st.works(f.held[name]) && f.held[name].hash() != res.hash() && f.refused[name].version != res.hash() {
		st.refuse(k, name, res, Rejection{
			Type: k.String(), Resource: name, Time: no.Time, Message: fmt.Sprintf("its upstream %s was rejected: %s", no.Resource, no.Message),
		})
	}
	if k == clusterKind && res == nil && st.needed(name) {
		f.forgetDue(name)
		return
	}
	before := f.kept(name)
	f.mark(name, res)
	if before.unknown() && !f.held[name].unknown() {
		st.markClusters(k, before)
	}
}

// missing is the first cluster that routes need and that the Envoy has refused, with no good version to keep.
func (st *stream) missing(k kind, routes *resource) (Rejection, bool) {
	f := st.feeds[clusterKind]
	if k != routeKind || f == nil || len(f.refused) == 0 {
		return Rejection{}, false
	}
	for _, cluster := range slices.Sorted(maps.Keys(routes.clusters())) {
		if no, ok := f.refused[cluster]; ok && f.held[cluster] == nil && no.version == st.served(key{clusterKind, cluster}).hash() {
			return no.Rejection, true
		}
	}
	return Rejection{}, false
}

// works says that the Envoy has routes and, as far as is known, every cluster that they need. An Envoy that has none gets routes whose upstream it
// refused: they answer 503, the other routes of the host work, and Envoy's listener does not wait for routes that never come.
func (st *stream) works(routes *resource) bool {
	for cluster := range routes.clusters() {
		if f := st.feeds[clusterKind]; f != nil && f.held[cluster] == nil {
			return false
		}
	}
	return routes != nil
}

// needed says that last good routes, which the Envoy keeps in place of refused ones, need a cluster, or may: of those that it has from an earlier
// stream it is not known which they need.
func (st *stream) needed(cluster string) bool {
	f := st.feeds[routeKind]
	if f == nil {
		return false
	}
	for name := range f.refused {
		held := f.held[name]
		if _, ok := held.clusters()[cluster]; ok || held.unknown() {
			return true
		}
	}
	return false
}

// refuse notes that the Envoy keeps, or is to keep, what it has in place of a resource, and the clusters of routes with it.
func (st *stream) refuse(k kind, name string, res *resource, why Rejection) {
	f := st.feeds[k]
	f.refused[name] = refused{res.hash(), why}
	st.markClusters(k, f.held[name])
}

// markClusters looks again at the clusters of routes that the Envoy has, or has had, whether they are to go: at all, for routes that are unknown.
func (st *stream) markClusters(k kind, routes *resource) {
	if k != routeKind || st.server.served == nil {
		return
	}
	clusters := routes.clusters()
	if f := st.feeds[clusterKind]; f != nil && routes.unknown() {
		clusters = maps.Clone(f.held)
	}
	for cluster := range clusters {
		if st.served(key{clusterKind, cluster}) == nil {
			st.mark(clusterKind, cluster)
			st.recheck(clusterKind, cluster)
		}
	}
}

// markAll works out what is due for everything that the Envoy asked for, and has from an earlier stream, before there was
// anything to compare it with.
func (st *stream) markAll() {
	for k, f := range st.feeds {
		if f != nil {
			st.markFeed(kind(k), f)
		}
	}
}

func (st *stream) markFeed(k kind, f *feed) {
	for name := range f.held {
		st.mark(k, name)
	}
	for name := range f.subscribed {
		st.mark(k, name)
	}
	if f.wildcard {
		for name := range st.server.served.set[k] {
			st.mark(k, name)
		}
	}
}

// signal makes the stream look for something to send.
func (st *stream) signal() {
	select {
	case st.wake <- struct{}{}:
	default:
	}
}

// handle takes one request: an acknowledgement or a rejection of a response, a change of what is wanted, or both.
// The error is for an Envoy whose stream ends.
func (st *stream) handle(request *discoveryv3.DeltaDiscoveryRequest) error {
	st.server.mu.Lock()
	defer st.server.mu.Unlock()
	if err := st.introduce(request.Node); err != nil {
		return err
	}
	k, ok := kindOf(request.TypeUrl)
	if !ok {
		st.deny(request)
		return nil
	}
	if err := st.bound(st.feeds[k], request); err != nil {
		return err
	}
	if st.feeds[k] == nil {
		st.begin(k, request)
	}
	st.settle(k, request)
	for _, name := range request.ResourceNamesUnsubscribe {
		before := st.feeds[k].kept(name)
		st.feeds[k].unsubscribe(name)
		st.recheck(k, name)
		st.markClusters(k, before)
	}
	st.subscribe(k, request)
	return nil
}

// introduce notes who an Envoy says it is. One on this machine is believed; one on another is who its certificate says, and must know it.
func (st *stream) introduce(node *corev3.Node) error {
	if node == nil || st.met {
		return nil
	}
	st.met = true
	switch {
	case st.peer == nil:
		if st.node = node.Id; node.Cluster != config.NoGroup {
			st.group = node.Cluster
		}
	case node.Id != st.peer.Name:
		st.server.log.Error("an envoy is refused: it says that it is another node than its certificate", "says", node.Id, "certificate", st.peer.Name)
		return grpcstatus.Errorf(codes.PermissionDenied, "the node id is %q and the certificate is of node %q: start Envoy with the bootstrap of its own", node.Id, st.peer.Name)
	}
	st.version = node.GetUserAgentVersion()
	if v := node.GetUserAgentBuildVersion().GetVersion(); v != nil {
		st.version = fmt.Sprintf("%d.%d.%d", v.MajorNumber, v.MinorNumber, v.Patch)
	}
	st.server.log.Info("envoy connected", "node", st.node, "group", st.group, "version", st.version)
	return nil
}

// deny answers for a type that is not served here: what is asked for does not exist.
func (st *stream) deny(request *discoveryv3.DeltaDiscoveryRequest) {
	if len(request.ResourceNamesSubscribe) == 0 {
		return
	}
	st.foreign = append(st.foreign, &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl:          request.TypeUrl,
		Nonce:            "0",
		RemovedResources: request.ResourceNamesSubscribe,
	})
}

// begin starts a kind with what the Envoy has kept from an earlier stream.
func (st *stream) begin(k kind, request *discoveryv3.DeltaDiscoveryRequest) {
	f := newFeed()
	st.feeds[k] = f
	for name, version := range request.InitialResourceVersions {
		f.held[name] = &resource{name: name, version: version}
	}
	st.resumed = st.resumed || k == clusterKind && len(f.held) > 0
	names := request.ResourceNamesSubscribe
	if !k.wildcard() || len(names) > 0 && !slices.Contains(names, "*") {
		return
	}
	f.wildcard = true
	if st.server.served != nil {
		st.markFeed(k, f)
	}
}

func (st *stream) subscribe(k kind, request *discoveryv3.DeltaDiscoveryRequest) {
	f := st.feeds[k]
	for _, name := range request.ResourceNamesSubscribe {
		if name == "*" {
			continue
		}
		held := f.held[name]
		f.subscribe(name)
		if _, ok := request.InitialResourceVersions[name]; ok {
			f.held[name] = held
		}
		if st.server.served != nil {
			st.mark(k, name)
		}
		st.recheck(k, name)
	}
}

// settle takes the answer to the response in flight. An answer to an older one says nothing.
func (st *stream) settle(k kind, request *discoveryv3.DeltaDiscoveryRequest) {
	f := st.feeds[k]
	b := f.pending
	if b == nil || request.ResponseNonce != b.nonce {
		return
	}
	f.pending = nil
	if request.ErrorDetail != nil {
		st.reject(k, b, request.ErrorDetail)
	} else {
		st.accept(k, b)
	}
	for name := range b.items {
		st.mark(k, name)
		st.recheck(k, name)
	}
	if k == clusterKind && request.ErrorDetail != nil {
		st.withhold(b)
	}
}

// withhold looks again at the routes that need a cluster which has just been refused.
func (st *stream) withhold(b *batch) {
	for cluster := range b.items {
		for owner := range st.server.served.users[cluster] {
			for name := range st.server.served.parts[owner].set[routeKind] {
				st.mark(routeKind, name)
				st.recheck(routeKind, name)
			}
		}
	}
}

func (st *stream) accept(k kind, b *batch) {
	f := st.feeds[k]
	st.acked[k] = st.server.now()
	for name, res := range b.items {
		before := f.held[name]
		if before.unknown() {
			before = f.kept(name)
		}
		f.learn(name, res)
		if !b.revert {
			delete(f.refused, name)
			st.markClusters(k, before)
		}
	}
}

// reject sends a batch again by halves, because Envoy does not say which resource it means. A resource that stands alone
// is the one; the Envoy gets its last good version back, or is told that there is none.
func (st *stream) reject(k kind, b *batch, why *status.Status) {
	f := st.feeds[k]
	if len(b.items) > 1 {
		f.again = append(b.split(), f.again...)
		return
	}
	for name, res := range b.items {
		st.server.log.Error("envoy rejected a resource",
			"node", st.node, "type", k.String(), "resource", name, "version", res.hash(), "error", why.GetMessage())
		if b.revert {
			return
		}
		st.refuse(k, name, res, Rejection{Type: k.String(), Resource: name, Message: why.GetMessage(), Time: st.server.now()})
		good := f.held[name]
		if good == nil && k == routeKind {
			good = st.server.served.instead[name]
		}
		if good != nil && good.body == nil || good == nil && f.wildcard {
			return
		}
		f.again = append([]*batch{{items: map[string]*resource{name: good}, rank: b.rank, revert: true}}, f.again...)
	}
}

// envoy is the stream as it is shown.
func (st *stream) envoy() Envoy {
	e := Envoy{Node: st.node, Group: st.group, Via: "unix", Version: st.version, Connected: st.connected, Acked: make(map[string]time.Time)}
	if st.peer != nil {
		e.Via, e.Certificate = "mtls", st.peer.Expires().UTC()
	}
	for k, at := range st.acked {
		if !at.IsZero() {
			e.Acked[kind(k).String()] = at
		}
	}
	e.Current = st.server.served != nil && st.feeds[listenerKind] != nil && st.feeds[scopeKind] != nil && st.feeds[routeKind] != nil
	for _, f := range st.feeds {
		if f == nil {
			continue
		}
		e.Current = e.Current && !f.owes()
		for _, name := range slices.Sorted(maps.Keys(f.refused)) {
			e.Rejected = append(e.Rejected, f.refused[name].Rejection)
		}
	}
	return e
}
