package xds

import (
	"cmp"

	"doorward/authz/config"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What an upstream may have at a time when its route does not say. Each open WebSocket counts as a request.
const (
	upstreamConnections = 4096
	upstreamPending     = 1024
	upstreamRequests    = 4096
	upstreamRetries     = 1024
)

// circuitBreakers bound what an upstream has at a time. Where requests are sent again, retries are a share of what is open, unless the route gives
// their number: a fixed one is too much for a small upstream in trouble and too little for a large one.
func (u upstream) circuitBreakers() *clusterv3.CircuitBreakers {
	c := u.care
	out := &clusterv3.CircuitBreakers_Thresholds{
		MaxConnections:     wrapperspb.UInt32(upstreamConnections),
		MaxPendingRequests: wrapperspb.UInt32(upstreamPending),
		MaxRequests:        wrapperspb.UInt32(upstreamRequests),
		MaxRetries:         wrapperspb.UInt32(upstreamRetries),
	}
	if u.mirror {
		out.MaxConnections = wrapperspb.UInt32(mirrorConnections)
	}
	fixed := false
	if b := c.Breaker; b != nil {
		out.MaxConnections = wrapperspb.UInt32(b.MaxConnections)
		out.MaxPendingRequests = wrapperspb.UInt32(b.MaxPendingRequests)
		out.MaxRequests = wrapperspb.UInt32(b.MaxRequests)
		if b.MaxRetries != nil {
			out.MaxRetries, fixed = wrapperspb.UInt32(*b.MaxRetries), true
		}
	}
	if c.Retries && !fixed {
		out.MaxRetries = nil
		out.RetryBudget = &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent:       &typev3.Percent{Value: config.RetryBudget},
			MinRetryConcurrency: wrapperspb.UInt32(config.MinRetries),
		}
	}
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{out}}
}

// lbPolicy is how requests are shared among endpoints. All of them heed the weights.
func (c care) lbPolicy() clusterv3.Cluster_LbPolicy {
	return map[string]clusterv3.Cluster_LbPolicy{
		config.RoundRobin:   clusterv3.Cluster_ROUND_ROBIN,
		config.LeastRequest: clusterv3.Cluster_LEAST_REQUEST,
		config.Random:       clusterv3.Cluster_RANDOM,
		config.RingHash:     clusterv3.Cluster_RING_HASH,
		config.Maglev:       clusterv3.Cluster_MAGLEV,
	}[cmp.Or(c.Balancing, config.RoundRobin)]
}

// largestRing bounds the entries of a ring. Weights that are far apart make it large, and Envoy, which makes it anew whenever an endpoint comes or
// goes, does nothing else meanwhile: with its own bound of 8 million for seconds. An endpoint whose share is less than an entry may get nothing.
const largestRing = 1 << 16

// ring is how the ring of ring_hash is made; nil for other policies.
func (c care) ring() *clusterv3.Cluster_RingHashLbConfig_ {
	if c.Balancing != config.RingHash {
		return nil
	}
	return &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MaximumRingSize: wrapperspb.UInt64(largestRing)}}
}

// commonLB lets an endpoint's state count at once, where Envoy would wait for up to a second for others to change too, and keeps requests from
// endpoints that their checks call sick: by default all would be used as soon as more than half of them are.
func (c care) commonLB() *clusterv3.Cluster_CommonLbConfig {
	if c.Health == nil && c.Outlier == nil {
		return nil
	}
	out := &clusterv3.Cluster_CommonLbConfig{UpdateMergeWindow: durationpb.New(0)}
	if c.Health != nil {
		out.HealthyPanicThreshold = &typev3.Percent{Value: 0}
	}
	return out
}

// hashPolicy is what requests to the same endpoint have in common; nil where that does not matter.
func hashPolicy(on *config.HashOn) []*routev3.RouteAction_HashPolicy {
	if on == nil {
		return nil
	}
	out := new(routev3.RouteAction_HashPolicy)
	switch {
	case on.Cookie != "":
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: &routev3.RouteAction_HashPolicy_Cookie{
			Name: on.Cookie,
			Ttl:  durationpb.New(0), // for as long as the browser is open
			Path: "/",
			Attributes: []*routev3.RouteAction_HashPolicy_CookieAttribute{
				{Name: "Secure"}, {Name: "HttpOnly"}, {Name: "SameSite", Value: "Lax"},
			},
		}}
	case on.Header != "":
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: on.Header}}
	default:
		out.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{
			ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true},
		}
	}
	return []*routev3.RouteAction_HashPolicy{out}
}
