package xds

import (
	"strings"
	"time"

	"doorward/authz/config"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// safeMethods are sent again for every reason: they change nothing (RFC 9110, section 9.2.1).
const safeMethods = "GET|HEAD|OPTIONS"

// choices is how often another endpoint is looked for that has not failed the request yet.
const choices = 3

// unasked is how requests are sent again when a route does not say: once, when the upstream cannot have seen them. A name may have two addresses of which
// the application listens at one, as localhost has.
var unasked = config.Retry{On: config.Names{config.ConnectFailure, config.RefusedStream}, Attempts: 1}

// retryPolicy says when a request is sent again. What ext_authz has put into the request is in every try.
func retryPolicy(r *config.Retry) *routev3.RetryPolicy {
	if r == nil {
		r = &unasked
	}
	var on []string
	for _, reason := range r.On {
		on = append(on, strings.ReplaceAll(reason, "_", "-")) // as Envoy writes them (Router, x-envoy-retry-on)
	}
	if len(r.Statuses) > 0 {
		on = append(on, "retriable-status-codes")
	}
	out := &routev3.RetryPolicy{
		RetryOn:              strings.Join(on, ","),
		NumRetries:           wrapperspb.UInt32(r.Attempts),
		RetriableStatusCodes: r.Statuses,
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: mustPack(&previousv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: choices,
	}
	if !r.Answered() {
		// Nobody is overloaded by a request that did not arrive: the next address is tried at once. Envoy's default is up to 25 ms.
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(time.Millisecond)}
	}
	if r.PerTryTimeout > 0 {
		out.PerTryTimeout = durationpb.New(time.Duration(r.PerTryTimeout))
	}
	return out
}

// byMethod splits routes in two where not every reason holds for every method: the first takes the safe methods, the second all others, which are
// sent again only when the upstream has not seen them.
func byMethod(r config.Route, made []*routev3.Route) []*routev3.Route {
	if r.Retry == nil || r.Retry.UnsafeMethods {
		return made
	}
	unseen := r.Retry.Unseen()
	if !r.Retry.Answered() {
		return made
	}
	var cautious *routev3.RetryPolicy
	if len(unseen) > 0 {
		cautious = retryPolicy(&config.Retry{On: unseen, Attempts: r.Retry.Attempts})
	}
	out := make([]*routev3.Route, 0, 2*len(made))
	for _, m := range made {
		safe := proto.Clone(m).(*routev3.Route)
		safe.Match.Headers = append(safe.Match.Headers, &routev3.HeaderMatcher{
			Name:                 ":method",
			HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: matching(safeMethods)},
		})
		m.GetRoute().RetryPolicy = cautious
		out = append(out, safe, m)
	}
	return out
}
