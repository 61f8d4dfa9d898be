package xds

import (
	"net/http"
	"regexp"
	"strings"

	"doorward/authz/config"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// ambiguousPath matches a :path in which a path parameter (";x") stands where ignoring it could change which route is
// matched. Envoy ignores everything from the first semicolon on, while an application that knows parameters ignores
// only up to the next slash and then resolves dots: "/public;x/admin" is "/public" to the one and "/public/admin" to the
// other, and "/a/b/%2e%2e;x" is "/a/" to the other. (Envoy itself resolves "..;x", for both.) At the end of an ordinary
// segment a parameter is harmless.
//
// The same holds for dots beside an escaped slash, which come here where escaped slashes are kept: "/public/..%2Fadmin" is below
// "/public" to Envoy, and "/admin" to an application that decodes first.
const ambiguousPath = `[^?;]*(;[^?]*/.*|/(\.|%2[eE]){1,2};.*)` +
	`|[^?]*(%2[fF]|%5[cC])(\.|%2[eE]){1,2}(([/?;]|%2[fF]|%5[cC]).*)?` +
	`|[^?]*/(\.|%2[eE]){1,2}(%2[fF]|%5[cC]).*`

// guards come before every other route of a host: a request whose TLS handshake was for another host, as a browser
// sends it that shares one connection between hosts, is 421; a path that two programs would read differently is 400.
func guards(host string) []*routev3.Route {
	misdirected := anyPath()
	misdirected.Headers = []*routev3.HeaderMatcher{{
		Name:                      HeaderSNI,
		HeaderMatchSpecifier:      &routev3.HeaderMatcher_StringMatch{StringMatch: serverNameOf(host)},
		InvertMatch:               true,
		TreatMissingHeaderAsEmpty: true,
	}}
	ambiguous := anyPath()
	ambiguous.Headers = []*routev3.HeaderMatcher{{
		Name:                 ":path",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: matching(ambiguousPath)},
	}}
	return []*routev3.Route{
		refusal(routeMisdirected, misdirected, http.StatusMisdirectedRequest, bodyMisdirected),
		refusal(routeAmbiguous, ambiguous, http.StatusBadRequest, bodyAmbiguous),
	}
}

// match is what a route matches of the path.
func match(r config.Route) *routev3.RouteMatch {
	switch matchClass(r) {
	case pathClass:
		return exactMatch(r.Path)
	case regexClass:
		return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: r.Regex},
		}}
	}
	return prefixMatch(cleanPrefix(r))
}

// cleanPrefix is the route's prefix without a final slash, "" for every path: a prefix is whole segments in any case.
func cleanPrefix(r config.Route) string { return strings.TrimRight(r.Prefix, "/") }

func exactMatch(path string) *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Path{Path: path}}
}

// prefixMatch matches whole segments: "/pub" is not a prefix of "/public".
func prefixMatch(prefix string) *routev3.RouteMatch {
	if prefix == "" {
		return anyPath()
	}
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}}
}

func anyPath() *routev3.RouteMatch {
	return &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
}

// grpcContent matches the content types of gRPC, gRPC-Web among them.
func grpcContent() *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{
		Name: "content-type",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: "application/grpc"},
			IgnoreCase:   true,
		}},
	}
}

// rewritePath sets how the path changes on its way to the upstream.
func rewritePath(r config.Route, action *routev3.RouteAction) {
	switch {
	case r.PrefixRewrite != "":
		action.PrefixRewrite, action.RegexRewrite = newPrefix(r, r.PrefixRewrite)
	case r.RegexRewritePattern != "":
		action.RegexRewrite = substitute(r.RegexRewritePattern, r.RegexRewriteSubstitution)
	}
}

func redirectPrefix(r config.Route, action *routev3.RedirectAction) {
	prefix, regex := newPrefix(r, r.Redirect.Prefix)
	if regex != nil {
		action.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: regex}
		return
	}
	action.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: prefix}
}

// newPrefix puts to in the place of the matched prefix, with exactly one slash before the rest. Only routes by prefix have one. Envoy replaces the matched
// text as it stands: "/grafana" by "/" would make "//x" of "/grafana/x", and "/" by "/app" "/appx" of "/x".
func newPrefix(r config.Route, to string) (prefix string, regex *matcherv3.RegexMatchAndSubstitute) {
	from := cleanPrefix(r)
	if from == "" {
		return strings.TrimRight(to, "/") + "/", nil
	}
	if !strings.HasSuffix(to, "/") {
		return to, nil
	}
	return "", substitute("^"+regexp.QuoteMeta(from)+"/?", strings.ReplaceAll(to, `\`, `\\`))
}

func substitute(pattern, with string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{
		Pattern:      &matcherv3.RegexMatcher{Regex: pattern},
		Substitution: with,
	}
}
