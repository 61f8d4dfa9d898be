package xds

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"doorward/xds/node"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Server serves ADS. Safe for concurrent use.
//
// One mutex guards what is served and what each stream knows of its Envoy. It is never held while a message is sent or
// received, and what is done under it is in proportion to the change at hand.
type Server struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	served  *served // nil before the first Install
	streams map[*stream]struct{}
	left    time.Time // when the last one ended of an Envoy that had routes
}

// NewServer returns a Server without resources: an Envoy that connects waits until the first Install.
func NewServer(log *slog.Logger) *Server {
	return &Server{
		log:     log,
		now:     time.Now,
		streams: make(map[*stream]struct{}),
	}
}

// maxRequest is how long a request may be, in bytes. An Envoy that comes back names all that it has in one: 100,000 hosts take some 10 MiB, and gRPC
// takes 4 unless told otherwise.
const maxRequest = 32 << 20

// Options are what a gRPC server needs that ADS is served on.
func Options() []grpc.ServerOption { return []grpc.ServerOption{grpc.MaxRecvMsgSize(maxRequest)} }

// Register adds the ADS service to a gRPC server.
func (s *Server) Register(g *grpc.Server) {
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(g, service{s})
}

// Envoys lists the connected Envoys by node id.
func (s *Server) Envoys() []Envoy {
	s.mu.Lock()
	defer s.mu.Unlock()
	envoys := make([]Envoy, 0, len(s.streams))
	for st := range s.streams {
		envoys = append(envoys, st.envoy())
	}
	slices.SortFunc(envoys, func(a, b Envoy) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), a.Connected.Compare(b.Connected))
	})
	return envoys
}

// service is the gRPC face of a Server. The state-of-the-world variant is not served.
type service struct{ s *Server }

func (service) StreamAggregatedResources(discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	return status.Error(codes.Unimplemented, "only delta ADS is served: set api_type DELTA_GRPC in the bootstrap")
}

func (v service) DeltaAggregatedResources(g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	st := v.s.connect(node.FromContext(g.Context()))
	defer v.s.disconnect(st)
	requests := make(chan *discoveryv3.DeltaDiscoveryRequest)
	failed := make(chan error, 1)
	go func() { failed <- receive(g, requests) }()
	for {
		for _, response := range st.responses() {
			if err := g.Send(response); err != nil {
				return err
			}
		}
		select {
		case request := <-requests:
			if err := st.handle(request); err != nil {
				return err
			}
		case <-st.wake:
		case err := <-failed:
			return err
		}
	}
}

// receive hands over requests until the stream ends, which it does when the handler returns.
func receive(
	g discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer, requests chan<- *discoveryv3.DeltaDiscoveryRequest,
) error {
	for {
		request, err := g.Recv()
		if err != nil {
			return err
		}
		select {
		case requests <- request:
		case <-g.Context().Done():
			return context.Cause(g.Context())
		}
	}
}

// connect begins a stream of a node on another machine, or, for nil, of an Envoy on this one.
func (s *Server) connect(peer *node.Peer) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := &stream{server: s, wake: make(chan struct{}, 1), connected: s.now(), waits: make(map[key][]*wait), peer: peer}
	if peer != nil {
		st.node, st.group = peer.Name, peer.Group
	}
	s.streams[st] = struct{}{}
	return st
}

func (s *Server) disconnect(st *stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st)
	if st.feeds[routeKind] != nil {
		s.left = s.now()
	}
	st.endAll()
	s.log.Info("envoy disconnected", "node", st.node)
}
