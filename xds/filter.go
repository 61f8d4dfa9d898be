package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// authzName is the name of the ext_authz filter, of its ECDS resource, and the key of its per-route settings.
const authzName = "doorward.ext_authz"

// checkTimeout bounds one Check. Envoy's default is 200 ms, which a busy machine's first evaluation can pass.
const checkTimeout = time.Second

// authzFilter takes its configuration from ECDS, so that the set of headers can change without the listener. There is no
// default configuration: without one from ECDS the listener does not start to listen.
func authzFilter() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name: authzName,
		ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
			ConfigSource: ads(),
			TypeUrls:     []string{mustPack(new(extauthzv3.ExtAuthz)).TypeUrl},
		}},
	}
}

func routerFilter() *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{
		Name: "envoy.filters.http.router",
		ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(&routerv3.Router{
			// x-envoy-* tell strangers how long an upstream took, and upstreams what the client asked for.
			SuppressEnvoyHeaders: true,
		})},
	}
}

// addAuthz adds the configuration of the ext_authz filter.
func addAuthz(out *Resources, headers []string) error {
	body, err := pack(extAuthz(headers))
	if err != nil {
		return err
	}
	return out.add(extensionKind, authzName, &corev3.TypedExtensionConfig{Name: authzName, TypedConfig: body})
}

// extAuthz fails closed: an authz that does not answer is a 503. Headers are sent raw, because the sanitised form joins
// two Cookie headers with a comma and replaces bytes above 0x7f, so that a cookie rewritten from it would be another one.
func extAuthz(headers []string) *extauthzv3.ExtAuthz {
	service := &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{
			EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: ClusterAuthz},
		},
		Timeout: durationpb.New(checkTimeout),
	}
	filter := &extauthzv3.ExtAuthz{
		Services:            &extauthzv3.ExtAuthz_GrpcService{GrpcService: service},
		TransportApiVersion: corev3.ApiVersion_V3,
		FailureModeAllow:    false,
		StatusOnError:       &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		ValidateMutations:   true,
		EncodeRawHeaders:    true,
		IncludeTlsSession:   true,
		// Of the TLS handshake, for policies that read it. No header is its equal: x-forwarded-client-cert is taken from every request.
		IncludePeerCertificate: true,
		ClearRouteCache:        false, // the route that was decided is the one that is taken
		StatPrefix:             "doorward",
	}
	if headers != nil {
		filter.AllowedHeaders = exactly(headers)
		service.InitialMetadata = []*corev3.HeaderValue{{Key: MetadataHeaders, Value: HeaderSet(headers)}}
	}
	return filter
}

// HeaderSet names a set of headers: what a Check says that Envoy sent it (MetadataHeaders). Order and repetition do not
// matter. The empty string is the set of all headers, which nil stands for.
func HeaderSet(headers []string) string {
	if headers == nil {
		return ""
	}
	names := slices.Compact(slices.Sorted(slices.Values(headers)))
	sum := sha256.Sum256([]byte(strings.Join(names, "\n")))
	return hex.EncodeToString(sum[:8])
}

func exactly(names []string) *matcherv3.ListStringMatcher {
	list := new(matcherv3.ListStringMatcher)
	for _, n := range slices.Compact(slices.Sorted(slices.Values(names))) {
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Exact{Exact: n},
		})
	}
	return list
}

// checked is the per-route setting of a route that ext_authz decides: it says which route this is, in which revision, and how much of a
// body is sent.
func checked(route, revision string, b body) map[string]*anypb.Any {
	settings := &extauthzv3.CheckSettings{ContextExtensions: map[string]string{ContextRoute: route, ContextRevision: revision}}
	switch {
	case b.limit == 0:
		settings.DisableRequestBodyBuffering = true
	case b.stream:
		settings.DisableRequestBodyBuffering = true
		settings.ContextExtensions[ContextBody] = ContextBodyNone
	default:
		// More than the limit is no error: the policy decides on what it is shown.
		settings.WithRequestBody = &extauthzv3.BufferSettings{MaxRequestBytes: b.limit, AllowPartialMessage: true}
		settings.ContextExtensions[ContextBody] = strconv.Itoa(int(b.limit))
	}
	return map[string]*anypb.Any{authzName: mustPack(&extauthzv3.ExtAuthzPerRoute{
		Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{CheckSettings: settings},
	})}
}

// body is what ext_authz is sent of requests' bodies.
type body struct {
	limit  uint32 // bytes; 0 where no policy reads it
	stream bool   // gRPC, whose messages may wait for answers: it is never held back
}

// unchecked turns ext_authz off on a route that has no upstream but Doorward.
func unchecked() map[string]*anypb.Any {
	return map[string]*anypb.Any{authzName: mustPack(&extauthzv3.ExtAuthzPerRoute{
		Override: &extauthzv3.ExtAuthzPerRoute_Disabled{Disabled: true},
	})}
}

// setHeader overwrites one header. Envoy reads % in a value as the start of a command, so a literal one is doubled.
func setHeader(name, value string) *corev3.HeaderValueOption {
	return formatHeader(name, strings.ReplaceAll(value, "%", "%%"))
}

// formatHeader overwrites one header with the outcome of an Envoy format string.
func formatHeader(name, format string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: name, Value: format},
		AppendAction: corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// redirectCode is Envoy's name for a redirect's status; 302 for a status that is none.
func redirectCode(status int) routev3.RedirectAction_RedirectResponseCode {
	switch status {
	case 301:
		return routev3.RedirectAction_MOVED_PERMANENTLY
	case 303:
		return routev3.RedirectAction_SEE_OTHER
	case 307:
		return routev3.RedirectAction_TEMPORARY_REDIRECT
	case 308:
		return routev3.RedirectAction_PERMANENT_REDIRECT
	}
	return routev3.RedirectAction_FOUND
}
