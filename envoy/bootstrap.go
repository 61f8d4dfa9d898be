package envoy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"doorward/xds"
	"doorward/xds/node"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
)

// Limits that hold when BootstrapConfig leaves them 0.
const (
	// DefaultMaxHeap is for an Envoy whose machine is not known. One that carries 10,000 hosts with a certificate each needs 0.8 GiB.
	DefaultMaxHeap = 2 << 30
	// DefaultMaxConnections is of clients, over all listeners. Each costs Envoy one file descriptor, and about one more upstream.
	DefaultMaxConnections = 50_000
)

// BootstrapConfig says what is particular to one Envoy. Everything else in its bootstrap is the same for all.
type BootstrapConfig struct {
	Node           string // unique among the Envoys of one Doorward
	Cluster        string // the group that the Envoy belongs to; "doorward" when empty
	SocketDir      string // absolute; see SocketsIn. Of an Envoy on another machine only Admin is in it
	Remote         string // host:port of Doorward for an Envoy on another machine, whose SocketDir has NodePair and NodeRoot; "" for one on the same
	MaxHeap        uint64 // bytes at which Envoy counts itself as full; DefaultMaxHeap when 0
	MaxConnections uint32 // of clients, over all listeners; DefaultMaxConnections when 0
}

// Sockets are the Unix sockets between an Envoy and Doorward on one machine. Doorward listens on all but Admin.
type Sockets struct {
	XDS     string // gRPC: ADS
	Authz   string // gRPC: ext_authz
	HTTP    string // HTTP/1.1: sign-in, pages, JWKS
	Streams string // gRPC: ext_proc streams that live as long as a request
	ACME    string // TLS that clients speak: tls-alpn-01 challenges
	Admin   string // Envoy's admin interface
}

// SocketsIn names the sockets in a directory. Whoever can write to them can decide requests, so the directory's mode is 0700.
func SocketsIn(dir string) Sockets {
	return Sockets{
		XDS:     filepath.Join(dir, "xds.sock"),
		Authz:   filepath.Join(dir, "authz.sock"),
		HTTP:    filepath.Join(dir, "http.sock"),
		Streams: filepath.Join(dir, "streams.sock"),
		ACME:    filepath.Join(dir, "acme.sock"),
		Admin:   filepath.Join(dir, "admin.sock"),
	}
}

// maxSocketPath is what fits sockaddr_un.sun_path with its terminating zero: unix(7).
const maxSocketPath = 107

// Validate reports every problem.
func (c BootstrapConfig) Validate() error {
	var errs []error
	if c.Node == "" {
		errs = append(errs, errors.New("envoy bootstrap: the node id is empty; each Envoy needs one of its own"))
	}
	if !filepath.IsAbs(c.SocketDir) {
		errs = append(errs, fmt.Errorf("envoy bootstrap: socket_dir %q must be an absolute path", c.SocketDir))
	}
	if longest := c.longest(); len(longest) > maxSocketPath {
		errs = append(errs, fmt.Errorf("envoy bootstrap: %s is %d bytes long and a Unix socket's path has at most %d; set socket_dir to a shorter one",
			longest, len(longest), maxSocketPath))
	}
	if strings.ContainsRune(c.SocketDir, 0) || strings.HasPrefix(c.SocketDir, "@") {
		errs = append(errs, fmt.Errorf("envoy bootstrap: socket_dir %q is not a directory's name", c.SocketDir))
	}
	if _, _, err := net.SplitHostPort(c.Remote); c.Remote != "" && err != nil {
		errs = append(errs, fmt.Errorf("envoy bootstrap: address %q of doorward is not a host and a port", c.Remote))
	}
	return errors.Join(errs...)
}

// longest is the longest path of a socket.
func (c BootstrapConfig) longest() string {
	if c.Remote != "" {
		return SocketsIn(c.SocketDir).Admin
	}
	return SocketsIn(c.SocketDir).Streams
}

// Bootstrap returns the configuration that an Envoy starts with, as indented JSON, which is YAML too. It is static: all that
// serves requests comes over ADS. Equal configurations give equal bytes.
func Bootstrap(c BootstrapConfig) ([]byte, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	sockets := SocketsIn(c.SocketDir)
	limits, err := overloadManager(c)
	if err != nil {
		return nil, err
	}
	clusters, err := staticClusters(c)
	if err != nil {
		return nil, err
	}
	group := c.Cluster
	if group == "" {
		group = "doorward"
	}
	admin := pipe(sockets.Admin)
	admin.GetPipe().Mode = 0o600
	return render(&bootstrapv3.Bootstrap{
		Node:             &corev3.Node{Id: c.Node, Cluster: group},
		Admin:            &bootstrapv3.Admin{Address: admin, IgnoreGlobalConnLimit: true},
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: clusters},
		DynamicResources: dynamicResources(),
		LayeredRuntime:   runtimeLayers(),
		OverloadManager:  limits,
		StatsConfig:      statsConfig(),
		// Statistics of a cluster's traffic are made by its first request: idle upstreams cost no memory.
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
		// Nothing is pushed to a sink, so histograms are merged when the admin interface is asked, not every five seconds.
		StatsFlush: &bootstrapv3.Bootstrap_StatsFlushOnAdmin{StatsFlushOnAdmin: true},
	})
}

// dynamicResources: one delta ADS stream brings everything. Envoy waits for the first answer as long as it takes, so that /ready is
// true only when it can serve, and comes back within two seconds of a Doorward that was away (Envoy's own ceiling is 30).
func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	ads := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads,
		CdsConfig: ads,
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
					ClusterName: xds.ClusterXDS,
					RetryPolicy: &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
						BaseInterval: durationpb.New(100 * time.Millisecond),
						MaxInterval:  durationpb.New(2 * time.Second),
					}},
				}},
			}},
		},
	}
}

// staticClusters lead to Doorward. Each has thresholds of its own, so that one kind of traffic never takes the place of another: open
// streams must not stop decisions, and neither must stop configuration.
func staticClusters(c BootstrapConfig) ([]*clusterv3.Cluster, error) {
	sockets := SocketsIn(c.SocketDir)
	var clusters []*clusterv3.Cluster
	for _, to := range []link{
		// One stream, and the ones of a reconnect.
		{xds.ClusterXDS, sockets.XDS, node.ProtocolXDS, 16},
		// A request holds its place until it is decided, at most for the check's timeout: room for a stall of a second under 16,000
		// requests a second.
		{xds.ClusterAuthz, sockets.Authz, node.ProtocolAuthz, 16_384},
		// Sign-ins, pages and the JWKS.
		{xds.ClusterHTTP, sockets.HTTP, node.ProtocolHTTP, 1_024},
		// One for each open WebSocket or event stream: as many as there may be connections.
		{xds.ClusterStreams, sockets.Streams, node.ProtocolStreams, 65_536},
		// Handshakes of an ACME server, and of strangers who would be one.
		{xds.ClusterACME, sockets.ACME, node.ProtocolACME, 256},
	} {
		cluster, err := to.cluster(c)
		if err != nil {
			return nil, err
		}
		clusters = append(clusters, cluster)
	}
	return clusters, nil
}

// render is deterministic, which protojson alone is not on purpose.
func render(b *bootstrapv3.Bootstrap) ([]byte, error) {
	if err := b.ValidateAll(); err != nil {
		return nil, fmt.Errorf("envoy bootstrap: %w", err)
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: encode: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("envoy bootstrap: indent: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
