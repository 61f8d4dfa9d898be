package xds

import (
	"time"

	"doorward/authz/config"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// connect is how Envoy calls CONNECT among the upgrades.
const connect = "CONNECT"

// connectRoute takes CONNECT to its host and sends what comes after it to a TCP upstream as it is, and back (RFC 9110, section 9.3.6): no header
// reaches the upstream. The matchers of paths, the guards among them, never match CONNECT, which has no path; so the server name is compared here.
// What matches nothing is 403, because CONNECT is on for no other route.
func connectRoute(host string, r config.Route, check map[string]*anypb.Any, targets []target) *routev3.Route {
	action := &routev3.RouteAction{
		Timeout: durationpb.New(0), // of the whole connection: none
		UpgradeConfigs: []*routev3.RouteAction_UpgradeConfig{{
			UpgradeType:   connect,
			Enabled:       wrapperspb.Bool(true),
			ConnectConfig: new(routev3.RouteAction_UpgradeConfig_ConnectConfig),
		}},
	}
	if r.IdleTimeout != nil {
		action.IdleTimeout = durationpb.New(time.Duration(*r.IdleTimeout))
	}
	sendTo(targets, action)
	return &routev3.Route{
		Name: r.Name,
		Match: &routev3.RouteMatch{
			PathSpecifier: &routev3.RouteMatch_ConnectMatcher_{ConnectMatcher: new(routev3.RouteMatch_ConnectMatcher)},
			Headers: []*routev3.HeaderMatcher{{
				Name: HeaderSNI,
				HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
					MatchPattern: &matcherv3.StringMatcher_Exact{Exact: host},
				}},
			}},
		},
		Action:               &routev3.Route_Route{Route: action},
		TypedPerFilterConfig: check,
	}
}
