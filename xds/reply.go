package xds

import (
	"net/http"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	streamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stream/v3"
	withoutqueryv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/formatter/req_without_query/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

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
	status := statusFilter(accesslogv3.ComparisonFilter_GE, http.StatusInternalServerError)
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: []*accesslogv3.AccessLogFilter{status, flagFilter(upstreamFlags...)}},
	}}
}
