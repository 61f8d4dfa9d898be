package xds

import (
	"maps"
	"slices"
	"strings"

	"doorward/authz/config"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
)

const (
	// mirrorBuffer is how much of a body a mirror may leave unread before the request itself has to wait for it: Envoy sends a copy on as it comes.
	mirrorBuffer = 1 << 20
	// mirrorConnections bounds what is kept for a mirror that reads nothing: a buffer for each.
	mirrorConnections = 128
)

// buffer is how many bytes are kept of what the upstream does not read, for each connection.
func (u upstream) buffer() uint32 {
	if u.mirror {
		return mirrorBuffer
	}
	return connectionBuffer
}

// mirrorOf is an upstream that gets copies. It is trusted by the route's CA and is its own name: neither the server name nor the client certificate,
// which are for the application, are for it.
func mirrorOf(base upstream, m config.Mirror) upstream {
	u := upstream{scheme: m.To.Scheme(), endpoints: []endpoint{endpointOf(m.To, "")}, mirror: true}
	if u.scheme == "https" {
		u.ca, u.skipVerify = base.ca, base.skipVerify
	}
	return u
}

// mirrorPolicies send copies of the requests that ext_authz let through.
func mirrorPolicies(r config.Route, to []upstream, assertion string) []*routev3.RouteAction_RequestMirrorPolicy {
	var out []*routev3.RouteAction_RequestMirrorPolicy
	for i, m := range r.Mirror {
		p := &routev3.RouteAction_RequestMirrorPolicy{
			Cluster: to[i].name(),
			RuntimeFraction: &corev3.RuntimeFractionalPercent{
				DefaultValue: &typev3.FractionalPercent{Numerator: m.Percent, Denominator: typev3.FractionalPercent_HUNDRED},
			},
			HostRewriteLiteral: to[i].endpoints[0].hostHeader(to[i].scheme),
		}
		if !m.WithIdentity {
			p.RequestHeadersMutations = withoutIdentity(r, assertion)
		}
		out = append(out, p)
	}
	return out
}

// withoutIdentity takes from a copy what says who the user is, or would let its receiver pass for the user or for this edge: the identity JWT and
// headers, all names that are stripped from clients' requests, cookies, credentials, and what the route sets for its
// upstream, which may be a password. A header of another name that a policy sets stays.
func withoutIdentity(r config.Route, assertion string) []*mutationv3.HeaderMutation {
	names := slices.Concat([]string{assertion, "cookie", "authorization", "proxy-authorization"},
		slices.Sorted(maps.Keys(r.IdentityHeaders)), slices.Sorted(maps.Keys(r.SetRequestHeaders)), strippedHeaders)
	patterns := []string{forwardedFamily(1)} // all but for and proto
	for _, name := range names {
		patterns = append(patterns, namePattern(name))
	}
	var out []*mutationv3.HeaderMutation
	for part := range slices.Chunk(patterns, patternsAtOnce) {
		out = append(out, removeMatching(strings.Join(part, "|")))
	}
	return out
}
