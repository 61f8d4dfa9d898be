package xds

import (
	"net/http"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	withoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What a client is told in place of Envoy's own words.
const (
	bodyMisdirected = "421: no application of this name is served here\n"
	bodyNotFound    = "404: nothing is served at this address\n"
	bodyUpstream    = "The application did not answer. Try again in a moment.\n"
)

// upstreamFlags are Envoy's response flags for a request that an upstream failed, or never got.
// (Envoy, "Access logging", %RESPONSE_FLAGS%)
var upstreamFlags = []string{"UH", "UF", "UC", "UO", "UR", "URX", "UPE", "UT", "LR", "NC", "DF"}

// localReplies are Envoy's own answers. A host without a scope is 421; the 404 at the end of each host's routes is a
// direct response and does not carry the flag. When an upstream fails, the reason, which names addresses, stays in the
// log.
func localReplies() *hcmv3.LocalReplyConfig {
	return &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{
		{
			Filter:     flagFilter("NR"),
			StatusCode: wrapperspb.UInt32(http.StatusMisdirectedRequest),
			Body:       inlineString(bodyMisdirected),
		},
		{Filter: flagFilter(upstreamFlags...), Body: inlineString(bodyUpstream)},
	}}
}

func flagFilter(flags ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
	}}
}

func inlineString(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}

// failureLog writes a line of JSON to standard output for each request that failed in Envoy or beyond it: status 500
// and up, or one of upstreamFlags. Every other request is in the decision log of ext_authz. The path is without its
// query, which may hold secrets.
func failureLog() []*accesslogv3.AccessLog {
	fields := map[string]any{
		"log":        "access",
		"time":       "%START_TIME%",
		"request_id": "%REQ(X-REQUEST-ID)%",
		"method":     "%REQ(:METHOD)%",
		"host":       "%REQ(:AUTHORITY)%",
		"path":       "%REQ_WITHOUT_QUERY(X-ENVOY-ORIGINAL-PATH?:PATH)%",
		"route":      "%ROUTE_NAME%",
		"status":     "%RESPONSE_CODE%",
		"flags":      "%RESPONSE_FLAGS%",
		"details":    "%RESPONSE_CODE_DETAILS%",
		"failure":    "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
		"cluster":    "%UPSTREAM_CLUSTER%",
		"upstream":   "%UPSTREAM_HOST%",
		"client":     "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
		"ms":         "%DURATION%",
		"policy":     "%DYNAMIC_METADATA(envoy.filters.http.ext_authz:" + MetadataLog + ")%", // what the policy says for logs, and nothing of ours
	}
	format, err := structpb.NewStruct(fields)
	if err != nil {
		panic("xds: access log: " + err.Error()) // the fields are constants
	}
	log := &streamv3.StdoutAccessLog{AccessLogFormat: &streamv3.StdoutAccessLog_LogFormat{
		LogFormat: &corev3.SubstitutionFormatString{
			Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: format},
			Formatters: []*corev3.TypedExtensionConfig{{
				Name:        "envoy.formatter.req_without_query",
				TypedConfig: mustPack(&withoutqueryv3.ReqWithoutQuery{}),
			}},
		},
	}}
	return []*accesslogv3.AccessLog{{
		Name:       "envoy.access_loggers.stdout",
		Filter:     failureFilter(),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: mustPack(log)},
	}}
}

func failureFilter() *accesslogv3.AccessLogFilter {
	status := &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: accesslogv3.ComparisonFilter_GE,
			Value: &corev3.RuntimeUInt32{
				DefaultValue: http.StatusInternalServerError,
				RuntimeKey:   "doorward.access_log.status",
			},
		}},
	}}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: []*accesslogv3.AccessLogFilter{status, flagFilter(upstreamFlags...)}},
	}}
}
