package xds

import (
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// challengeChain is the filter chain of tls-alpn-01 challenges.
const challengeChain = "doorward/acme"

// challengePath is what http-01 challenges begin with: RFC 8555, section 8.3.
const challengePath = "/.well-known/acme-challenge/"

// challengeIdle is how long a challenge's connection may stand still.
const challengeIdle = 10 * time.Second

// addChallenges has a listener hand tls-alpn-01 challenges to Doorward as they come: the handshake is the answer. Nothing of it depends on a host.
func addChallenges(l *listenerv3.Listener) {
	l.FilterChainMatcher = byProtocol(challengeChain, l.FilterChainMatcher)
	l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
		Name: challengeChain,
		Filters: []*listenerv3.Filter{{
			Name: "envoy.filters.network.tcp_proxy",
			ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustPack(&tcpproxyv3.TcpProxy{
				StatPrefix:       "acme",
				ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: ClusterACME},
				IdleTimeout:      durationpb.New(challengeIdle),
			})},
		}},
	})
}

// challengeRoute hands http-01 challenges to Doorward, which knows those that are under way and answers any other with 404.
func challengeRoute() *routev3.Route {
	route := ownRoute("doorward/acme", &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: challengePath}})
	route.TypedPerFilterConfig = nil // there is no ext_authz on the plain listener
	return route
}
