package xds

import (
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// streamsName is the name of the filter that ends open streams, and the key of its per-route settings.
const streamsName = "doorward.streams"

// authzMetadata is where ext_authz puts the metadata of an answer.
const authzMetadata = "envoy.filters.http.ext_authz"

// streamFilter keeps a gRPC stream open to Doorward for as long as a request lives, so that Doorward can end the request with its session. It
// comes after ext_authz, whose metadata says whose request it is; of the request's headers it sends the id alone. Among the filters of
// upgrades it is on; among the ordinary ones it is off but for the routes that turn it on, since a stream costs more than a check.
//
// That response trailers are asked for is what keeps the stream open: after the last message that can come, Envoy ends it, and nothing can be
// ended any more. It fails closed: a service that cannot be reached is a 503, and when the service goes away the request ends.
func streamFilter(disabled bool) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name:     streamsName,
		Disabled: disabled,
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(&extprocv3.ExternalProcessor{
			GrpcService: &corev3.GrpcService{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
					EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: ClusterStreams},
				},
				Timeout: durationpb.New(0), // of the whole stream: none
			},
			FailureModeAllow: false,
			StatusOnError:    &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
			MessageTimeout:   durationpb.New(streamTimeout),
			ProcessingMode: &extprocv3.ProcessingMode{
				RequestHeaderMode:   extprocv3.ProcessingMode_SEND,
				ResponseHeaderMode:  extprocv3.ProcessingMode_SKIP,
				RequestTrailerMode:  extprocv3.ProcessingMode_SKIP,
				ResponseTrailerMode: extprocv3.ProcessingMode_SEND,
			},
			ForwardRules: &extprocv3.HeaderForwardingRules{AllowedHeaders: exactly([]string{"x-request-id"})},
			MetadataOptions: &extprocv3.MetadataOptions{
				ForwardingNamespaces: &extprocv3.MetadataOptions_MetadataNamespaces{Untyped: []string{authzMetadata}},
			},
			RouteCacheAction: extprocv3.ExternalProcessor_RETAIN, // the route that was decided is the one that is taken
			StatPrefix:       "doorward",
		})},
	}
}

// streamTimeout bounds the answer to the headers of a request: a look into the store.
const streamTimeout = 5 * time.Second

// watched is the per-route setting that turns the filter on.
func watched() *anypb.Any {
	return mustPack(&routev3.FilterConfig{Config: mustPack(&extprocv3.ExtProcPerRoute{Override: &extprocv3.ExtProcPerRoute_Overrides{Overrides: &extprocv3.ExtProcOverrides{}}})})
}
