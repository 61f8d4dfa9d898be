package xds

import (
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strings"

	"doorward/authz/config"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What a client that wants neither a page nor JSON is told in place of Envoy's own words.
const (
	bodyMisdirected = "421: no application of this name is served here\n"
	bodyNotFound    = "404: nothing is served at this address\n"
	bodyAmbiguous   = "400: a path parameter is only understood at the end of a path\n"
	bodyUpstream    = "The application did not answer. Try again in a moment.\n"
	bodyUndecided   = "503: whether you may see this cannot be decided at the moment\n"
)

// The routes that answer by themselves, so that their answers can be told from those of the configuration's routes.
const (
	routeNotFound    = "doorward/404"
	routeMisdirected = "doorward/421"
	routeAmbiguous   = "doorward/400"
)

// upstreamFlags are Envoy's response flags for a request that an upstream failed, or never got.
// (Envoy, "Access logging", %RESPONSE_FLAGS%)
var upstreamFlags = []string{"UH", "UF", "UC", "UO", "UR", "URX", "UPE", "UT", "LR", "NC", "DF"}

// Page is what a browser shows of one of Envoy's own answers: an HTML document in UTF-8, and headers beside its Content-Type.
type Page struct {
	Body   string
	Header map[string]string
}

// PageText is what such a page says. Status is 0 where it is not known beforehand.
type PageText struct {
	Status                 int
	Title, Message, Remedy string
}

// localReply is one of Envoy's own answers: when it is given, and what it says.
type localReply struct {
	when   []*accesslogv3.AccessLogFilter // all of them, the cheap ones first
	status uint32                         // in place of Envoy's; 0 for Envoy's
	code   string                         // "error" in JSON, as authz has it
	plain  string                         // "" leaves what Envoy says
	text   PageText
}

// localReplies are Envoy's own answers. Only what Envoy made up itself is given another form: an answer of an upstream, a denial of ext_authz and
// a `response` of a route stay as they are. When an upstream fails, the reason, which names addresses, stays in the log.
func localReplies(c *config.Config, page func(PageText) Page) *hcmv3.LocalReplyConfig {
	out := new(hcmv3.LocalReplyConfig)
	for _, r := range []localReply{
		{
			when: []*accesslogv3.AccessLogFilter{flagFilter("NR")}, status: http.StatusMisdirectedRequest, code: "wrong_host", plain: bodyMisdirected,
			text: PageText{http.StatusMisdirectedRequest, "Wrong host", "No application of this name is served on this connection.", "Open the address again."},
		},
		{
			when: []*accesslogv3.AccessLogFilter{flagFilter(upstreamFlags...)}, code: "no_answer", plain: bodyUpstream,
			text: PageText{0, "No answer", "The application did not answer.", "Try again in a moment."},
		},
		{
			when: []*accesslogv3.AccessLogFilter{flagFilter("UAEX"), celFilter(`response.code_details in ["ext_authz_error", "ext_authz_invalid"]`)}, code: "not_available", plain: bodyUndecided,
			text: PageText{0, "Not available", "Whether you may see this cannot be decided at the moment.", "Try again in a few seconds."},
		},
		{
			when: answeredBy(http.StatusNotFound, routeNotFound), code: "not_found",
			text: PageText{http.StatusNotFound, "Page not found", "Nothing is served at this address.", "Check the address."},
		},
		{
			when: answeredBy(http.StatusMisdirectedRequest, routeMisdirected), code: "wrong_host",
			text: PageText{http.StatusMisdirectedRequest, "Wrong host", "This connection was made for another host.", "Open the address again."},
		},
		{
			when: []*accesslogv3.AccessLogFilter{statusFilter(accesslogv3.ComparisonFilter_EQ, http.StatusBadRequest),
				celFilter(`xds.route_name == "` + routeAmbiguous + `" || !(response.code_details in ["direct_response", "ext_authz_denied"])`)}, code: "bad_request",
			text: PageText{http.StatusBadRequest, "Bad request", "The request cannot be understood.", "Check the address, or remove this site's cookies."},
		},
	} {
		out.Mappers = append(out.Mappers, r.mappers(c.Paths.JWKS, page)...)
	}
	return out
}

// mappers are the forms of one answer; Envoy takes the first that fits. A consumer of keys gets no JSON, which Grafana would take for an empty
// key set whatever the status is.
func (r localReply) mappers(jwks string, page func(PageText) Page) []*hcmv3.ResponseMapper {
	var status *wrapperspb.UInt32Value
	if r.status != 0 {
		status = wrapperspb.UInt32(r.status)
	}
	var out []*hcmv3.ResponseMapper
	if page != nil {
		p := page(r.text)
		m := &hcmv3.ResponseMapper{Filter: allOf(headerFilter("accept", "text/html", false), r.when...), StatusCode: status,
			Body: inlineString(p.Body), BodyFormatOverride: asBody("text/html; charset=utf-8")}
		for _, name := range slices.Sorted(maps.Keys(p.Header)) {
			if !strings.EqualFold(name, "Content-Type") {
				m.HeadersToAdd = append(m.HeadersToAdd, setHeader(strings.ToLower(name), p.Header[name]))
			}
		}
		out = append(out, m)
	}
	body, err := json.Marshal(map[string]string{"error": r.code, "message": r.text.Message})
	if err != nil {
		panic("xds: local reply: " + err.Error()) // the texts are constants
	}
	out = append(out, &hcmv3.ResponseMapper{
		Filter:     allOf(headerFilter("accept", "application/json", false), append([]*accesslogv3.AccessLogFilter{headerFilter(":path", jwks, true)}, r.when...)...),
		StatusCode: status, Body: inlineString(string(body) + "\n"), BodyFormatOverride: asBody("application/json"),
		HeadersToAdd: []*corev3.HeaderValueOption{setHeader("cache-control", "no-store"), setHeader("x-content-type-options", "nosniff")},
	})
	if r.plain != "" {
		out = append(out, &hcmv3.ResponseMapper{Filter: allOf(r.when[0], r.when[1:]...), StatusCode: status, Body: inlineString(r.plain)})
	}
	return out
}

// asBody sends the body as it stands, with a type. In a format of its own a % would begin a command.
func asBody(contentType string) *corev3.SubstitutionFormatString {
	return &corev3.SubstitutionFormatString{
		Format:      &corev3.SubstitutionFormatString_TextFormatSource{TextFormatSource: inlineString("%LOCAL_REPLY_BODY%")},
		ContentType: contentType,
	}
}

// answeredBy wants an answer of a route of ours. Another route's may have the same status.
func answeredBy(status uint32, route string) []*accesslogv3.AccessLogFilter {
	return []*accesslogv3.AccessLogFilter{statusFilter(accesslogv3.ComparisonFilter_EQ, status), celFilter(`xds.route_name == "` + route + `"`)}
}

func allOf(first *accesslogv3.AccessLogFilter, rest ...*accesslogv3.AccessLogFilter) *accesslogv3.AccessLogFilter {
	if len(rest) == 0 {
		return first
	}
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: append([]*accesslogv3.AccessLogFilter{first}, rest...)},
	}}
}

func flagFilter(flags ...string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: flags},
	}}
}

func statusFilter(op accesslogv3.ComparisonFilter_Op, status uint32) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op: op, Value: &corev3.RuntimeUInt32{DefaultValue: status, RuntimeKey: "doorward.status"},
		}},
	}}
}

// headerFilter wants a request header that contains a text, or one that does not.
func headerFilter(name, text string, not bool) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_HeaderFilter{HeaderFilter: &accesslogv3.HeaderFilter{
		Header: &routev3.HeaderMatcher{Name: name, InvertMatch: not, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{
			StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: text}, IgnoreCase: true},
		}},
	}}}
}

// celFilter wants an expression over Envoy's attributes to be true. One that cannot be evaluated is not.
func celFilter(expression string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
		Name:       "envoy.access_loggers.extension_filters.cel",
		ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: mustPack(&celv3.ExpressionFilter{Expression: expression})},
	}}}
}

func inlineString(s string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
}
