package envoy

import (
	"fmt"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	upstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	monitorHeap        = "envoy.resource_monitors.fixed_heap"
	monitorConnections = "envoy.resource_monitors.global_downstream_max_connections"
	protocolExtension  = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
)

// overloadManager sheds load before memory or file descriptors run out. The order is that of Envoy's guide for edge proxies
// ("Overload manager"): give memory back, let connections end, refuse requests, refuse connections.
func overloadManager(c BootstrapConfig) (*overloadv3.OverloadManager, error) {
	heap, connections := c.MaxHeap, c.MaxConnections
	if heap == 0 {
		heap = DefaultMaxHeap
	}
	if connections == 0 {
		connections = DefaultMaxConnections
	}
	heapConfig, err := pack(&heapv3.FixedHeapConfig{MaxHeapSizeBytes: heap})
	if err != nil {
		return nil, err
	}
	connectionsConfig, err := pack(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: int64(connections)})
	if err != nil {
		return nil, err
	}
	return &overloadv3.OverloadManager{
		RefreshInterval: durationpb.New(250 * time.Millisecond),
		ResourceMonitors: []*overloadv3.ResourceMonitor{
			{Name: monitorHeap, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: heapConfig}},
			{Name: monitorConnections, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: connectionsConfig}},
		},
		Actions: []*overloadv3.OverloadAction{
			{Name: "envoy.overload_actions.shrink_heap", Triggers: heapAbove(0.85)},
			{Name: "envoy.overload_actions.disable_http_keepalive", Triggers: heapAbove(0.92)},
			{Name: "envoy.overload_actions.stop_accepting_requests", Triggers: heapAbove(0.95)},
		},
		LoadshedPoints: []*overloadv3.LoadShedPoint{
			{Name: "envoy.load_shed_points.tcp_listener_accept", Triggers: heapAbove(0.98)},
		},
	}, nil
}

// heapAbove triggers at a share of the largest heap.
func heapAbove(share float64) []*overloadv3.Trigger {
	return []*overloadv3.Trigger{{
		Name:         monitorHeap,
		TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: share}},
	}}
}

// statsConfig leaves out the statistics that are made for each certificate and for each host's routes: their number grows with the
// configuration, and what they tell (updates taken and rejected) Doorward records itself.
func statsConfig() *metricsv3.StatsConfig {
	perHost := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: `http\.[^.]*\.rds\..*`},
	}}
	perSecret := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "sds."}}
	return &metricsv3.StatsConfig{StatsMatcher: &metricsv3.StatsMatcher{
		StatsMatcher: &metricsv3.StatsMatcher_ExclusionList{
			ExclusionList: &matcherv3.ListStringMatcher{Patterns: []*matcherv3.StringMatcher{perSecret, perHost}},
		},
	}}
}

// runtimeLayers has one static layer, so that nothing on the machine can change Envoy's runtime.
func runtimeLayers() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "static",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			// Envoy's default of 100 refuses path expressions that operators do write. Matching stays linear in the input.
			"re2.max_program_size.error_level": structpb.NewNumberValue(2000),
			"re2.max_program_size.warn_level":  structpb.NewNumberValue(1000),
		}}},
	}}}
}

// circuitBreakers is a cluster's own ceiling on requests and connections.
func circuitBreakers(limit uint32) *clusterv3.CircuitBreakers {
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		Priority:           corev3.RoutingPriority_DEFAULT,
		MaxConnections:     wrapperspb.UInt32(limit),
		MaxPendingRequests: wrapperspb.UInt32(limit),
		MaxRequests:        wrapperspb.UInt32(limit),
	}}}
}

// http2 is for gRPC. Keepalive is nil for a Unix socket, which closes with the process behind it.
func http2(keepalive *corev3.KeepaliveSettings) (*anypb.Any, error) {
	return protocol(nil, &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: keepalive},
		},
	})
}

// http1 is for the ordinary handlers. Envoy gives up an idle connection after 30 seconds, which must be earlier than the server behind it
// does (net/http's IdleTimeout), so that no request meets a connection that is just being closed.
func http1() (*anypb.Any, error) {
	common := &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(30 * time.Second)}
	return protocol(common, &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig{
		ProtocolConfig: &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		},
	})
}

// protocol packs the protocol that a cluster's endpoints are spoken to in.
func protocol(common *corev3.HttpProtocolOptions, explicit *upstreamv3.HttpProtocolOptions_ExplicitHttpConfig) (*anypb.Any, error) {
	return pack(&upstreamv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: common,
		UpstreamProtocolOptions:   &upstreamv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit},
	})
}

// pipe is the address of a Unix socket.
func pipe(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
}

// pack wraps a message for a field that takes any.
func pack(m proto.Message) (*anypb.Any, error) {
	packed, err := anypb.New(m)
	if err != nil {
		return nil, fmt.Errorf("envoy bootstrap: encode %T: %w", m, err)
	}
	return packed, nil
}
