package xds

import (
	"time"

	"doorward/authz/config"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Limits of one HTTP connection, after Envoy's "Configuring Envoy as an edge proxy" where it gives a figure. There is no
// limit on the time of a whole request: uploads and streams may take long. One that stands still ends with streamIdle.
const (
	requestHeadersTimeout = 10 * time.Second
	connectionIdle        = 5 * time.Minute
	streamIdle            = 5 * time.Minute
	requestHeadersKiB     = 60
	concurrentStreams     = 100
	streamWindow          = 64 << 10 // bytes
	connectionWindow      = 1 << 20  // bytes
)

// secureManager is the HTTP connection manager of the https listener.
func secureManager(c *config.Config, page func(PageText) Page) *hcmv3.HttpConnectionManager {
	m := baseManager(c, httpsListener, page)
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: scopedRoutes()}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{identityStripper(c)}
	m.HttpFilters = []*hcmv3.HttpFilter{authzFilter(), streamFilter(true), routerFilter()}
	m.UpgradeConfigs = []*hcmv3.HttpConnectionManager_UpgradeConfig{upgradeOf(websocket), upgradeOf(connect)}
	// Over TLS the scheme is https, whatever an HTTP/2 client writes into :scheme.
	m.SchemeHeaderTransformation = &corev3.SchemeHeaderTransformation{
		Transformation: &corev3.SchemeHeaderTransformation_SchemeToOverwrite{SchemeToOverwrite: "https"},
	}
	return m
}

// upgradeOf is a kind of upgrade that is off for every route but those that turn it on.
func upgradeOf(kind string) *hcmv3.HttpConnectionManager_UpgradeConfig {
	return &hcmv3.HttpConnectionManager_UpgradeConfig{
		UpgradeType: kind,
		Enabled:     wrapperspb.Bool(false),
		Filters:     []*hcmv3.HttpFilter{authzFilter(), streamFilter(false), routerFilter()},
	}
}

// plainManager is that of the http listener: it has redirects and nothing else.
func plainManager(c *config.Config, page func(PageText) Page) *hcmv3.HttpConnectionManager {
	m := baseManager(c, httpListener, page)
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: httpRoutes}}
	m.HttpFilters = []*hcmv3.HttpFilter{routerFilter()}
	return m
}

// baseManager has what both listeners share: what a request may look like, and for how long it may take.
func baseManager(c *config.Config, name string, page func(PageText) Page) *hcmv3.HttpConnectionManager {
	return &hcmv3.HttpConnectionManager{
		StatPrefix: name,
		AccessLog:  failureLog(),

		NormalizePath:                wrapperspb.Bool(true),
		MergeSlashes:                 true,
		PathWithEscapedSlashesAction: escapedSlashes(c.Edge.EscapedSlashes),
		StripPortMode:                &hcmv3.HttpConnectionManager_StripAnyHostPort{StripAnyHostPort: true},
		StripTrailingHostDot:         true,

		UseRemoteAddress:  wrapperspb.Bool(true),
		XffNumTrustedHops: c.Edge.TrustedHops,
		// No client is internal, whatever its address: x-envoy-* headers are believed from nobody. An empty list would
		// stand for every private address; the broadcast address is no client's.
		InternalAddressConfig: &hcmv3.HttpConnectionManager_InternalAddressConfig{
			CidrRanges: []*corev3.CidrRange{{AddressPrefix: "255.255.255.255", PrefixLen: wrapperspb.UInt32(32)}},
		},
		GenerateRequestId: wrapperspb.Bool(true),

		RequestHeadersTimeout: durationpb.New(requestHeadersTimeout),
		StreamIdleTimeout:     durationpb.New(streamIdle),
		MaxRequestHeadersKb:   wrapperspb.UInt32(requestHeadersKiB),
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{
			IdleTimeout:                  durationpb.New(connectionIdle),
			HeadersWithUnderscoresAction: underscores(c.Edge.UnderscoreHeaders),
		},
		Http2ProtocolOptions: &corev3.Http2ProtocolOptions{
			MaxConcurrentStreams:        wrapperspb.UInt32(concurrentStreams),
			InitialStreamWindowSize:     wrapperspb.UInt32(streamWindow),
			InitialConnectionWindowSize: wrapperspb.UInt32(connectionWindow),
		},

		// Overwrites what the upstream says of itself, so that no version leaks.
		ServerName:       "doorward",
		LocalReplyConfig: localReplies(c, page),
	}
}

// scopedRoutes finds a host's route configuration by the exact :authority, from which Envoy has taken port and final dot.
func scopedRoutes() *hcmv3.ScopedRoutes {
	return &hcmv3.ScopedRoutes{
		Name:            httpsListener,
		RdsConfigSource: ads(),
		ScopeKeyBuilder: &hcmv3.ScopedRoutes_ScopeKeyBuilder{
			Fragments: []*hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{{
				Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{
					HeaderValueExtractor: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
						Name: ":authority",
						ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{
							Index: 0,
						},
					},
				},
			}},
		},
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{ScopedRdsConfigSource: ads()}},
	}
}

// escapedSlashes says what becomes of a path with %2F or %5C: a 400, or the path as it is.
func escapedSlashes(s string) hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction {
	if s == "keep" {
		return hcmv3.HttpConnectionManager_KEEP_UNCHANGED
	}
	return hcmv3.HttpConnectionManager_REJECT_REQUEST
}

// underscores says what becomes of a request with an underscore in a header's name: a 400, or nothing. Identity headers
// are stripped in every spelling either way.
func underscores(s string) corev3.HttpProtocolOptions_HeadersWithUnderscoresAction {
	if s == "keep" {
		return corev3.HttpProtocolOptions_ALLOW
	}
	return corev3.HttpProtocolOptions_REJECT_REQUEST
}
