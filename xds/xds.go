// Package xds is the control plane: it turns a configuration into Envoy resources and delivers them over delta ADS.
//
// Build is pure. Server keeps what is to be served, orders a change (clusters, their ACK, routes, scopes; removals in
// reverse) and knows for each Envoy what it accepted and what it rejected.
package xds

import (
	"context"
	"log/slog"
	"time"

	"doorward/authz/config"

	"google.golang.org/grpc"
)

// Names of the static clusters in Envoy's bootstrap, and of the paths' internal headers.
const (
	ClusterXDS     = "doorward_xds"
	ClusterAuthz   = "doorward_authz"
	ClusterHTTP    = "doorward_http"
	ClusterStreams = "doorward_streams"
	// HeaderSNI is set by Envoy on requests to ClusterHTTP: the server name of the TLS handshake.
	HeaderSNI = "x-doorward-sni"
	// Keys of ext_authz's context_extensions.
	ContextRoute    = "route"
	ContextRevision = "revision"
)

// Input is all that the resources are made of.
type Input struct {
	Config   *config.Config
	Revision func(route string) string // of a route, by name
	// Certificate returns the PEM chain and key for a host, exact and lower case.
	Certificate func(host string) (chain, key []byte, err error)
}

// Resources are what one configuration comes to. Immutable once built.
type Resources struct{}

// Build makes the resources of a configuration. The error joins every problem, each naming its route or host.
func Build(in Input) (*Resources, error) { panic("unwritten") }

// Envoy is the state of one connected Envoy.
type Envoy struct {
	Node      string               `json:"node"`
	Version   string               `json:"version"`
	Connected time.Time            `json:"connected"`
	Acked     map[string]time.Time `json:"acked"` // short type name (CDS, RDS, ...) -> last ACK
	Rejected  []Rejection          `json:"rejected"`
}

// Rejection is a resource that an Envoy refused.
type Rejection struct {
	Type     string    `json:"type"`
	Resource string    `json:"resource"`
	Message  string    `json:"message"` // Envoy's
	Time     time.Time `json:"time"`
}

// Server serves ADS. Safe for concurrent use.
type Server struct{}

// NewServer returns a Server without resources: an Envoy that connects waits until the first Apply.
func NewServer(log *slog.Logger) *Server { panic("unwritten") }

// Register adds the ADS service to a gRPC server.
func (s *Server) Register(g *grpc.Server) { panic("unwritten") }

// Apply makes r what is served, and returns when every connected Envoy has acknowledged the change, or has rejected it, or ctx ends.
// Changes are applied one after the other. The error says which Envoy did not take what, and why; what was rejected went back to its last
// good version there, and everything else is served.
func (s *Server) Apply(ctx context.Context, r *Resources) error { panic("unwritten") }

// Envoys lists the connected Envoys by node id.
func (s *Server) Envoys() []Envoy { panic("unwritten") }
