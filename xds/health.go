package xds

import (
	"time"

	"doorward/authz/config"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// checkJitter spreads the checks of many Envoys and upstreams over time, in percent of the interval.
const checkJitter = 10

// healthChecks ask each endpoint from the beginning, whether it has requests or not.
func (u upstream) healthChecks() []*corev3.HealthCheck {
	h := u.care.Health
	if h == nil {
		return nil
	}
	out := &corev3.HealthCheck{
		Timeout:               durationpb.New(time.Duration(h.Timeout)),
		Interval:              durationpb.New(time.Duration(h.Interval)),
		NoTrafficInterval:     durationpb.New(time.Duration(h.Interval)), // Envoy's default is a minute
		IntervalJitterPercent: checkJitter,
		HealthyThreshold:      wrapperspb.UInt32(h.HealthyThreshold),
		UnhealthyThreshold:    wrapperspb.UInt32(h.UnhealthyThreshold),
	}
	if h.GRPCService != nil {
		out.HealthChecker = &corev3.HealthCheck_GrpcHealthCheck_{GrpcHealthCheck: &corev3.HealthCheck_GrpcHealthCheck{ServiceName: *h.GRPCService}}
		if u.scheme == "https" {
			// The connections of checks ask for no protocol unless told to, and servers of gRPC refuse that (RFC 9113, section 3.2).
			out.TlsOptions = &corev3.HealthCheck_TlsOptions{AlpnProtocols: []string{"h2"}}
		}
	} else {
		out.HealthChecker = &corev3.HealthCheck_HttpHealthCheck_{HttpHealthCheck: u.httpCheck(h)}
	}
	return []*corev3.HealthCheck{out}
}

func (u upstream) httpCheck(h *config.HealthCheck) *corev3.HealthCheck_HttpHealthCheck {
	out := &corev3.HealthCheck_HttpHealthCheck{
		Path: h.Path,
		// Any other status counts as one bad answer. Without this, one of them would be enough whatever the threshold is.
		RetriableStatuses: []*typev3.Int64Range{{Start: 100, End: 600}},
	}
	if u.scheme == "h2c" {
		out.CodecClientType = typev3.CodecClientType_HTTP2
	}
	for _, status := range h.ExpectedStatuses {
		out.ExpectedStatuses = append(out.ExpectedStatuses, &typev3.Int64Range{Start: int64(status), End: int64(status) + 1})
	}
	return out
}

// outlierDetection ejects for errors in a row alone: none of Envoy's statistics over all endpoints, which are on by default.
func (c care) outlierDetection() *clusterv3.OutlierDetection {
	o := c.Outlier
	if o == nil {
		return nil
	}
	return &clusterv3.OutlierDetection{
		Consecutive_5Xx:                    wrapperspb.UInt32(o.Consecutive5xx),
		Interval:                           durationpb.New(time.Duration(o.Interval)),
		BaseEjectionTime:                   durationpb.New(time.Duration(o.BaseEjectionTime)),
		MaxEjectionPercent:                 wrapperspb.UInt32(o.MaxEjectionPercent),
		EnforcingConsecutive_5Xx:           wrapperspb.UInt32(100),
		EnforcingSuccessRate:               wrapperspb.UInt32(0),
		EnforcingConsecutiveGatewayFailure: wrapperspb.UInt32(0),
	}
}
