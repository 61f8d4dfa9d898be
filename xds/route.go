package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"time"

	"doorward/authz/config"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	websocket = "websocket"
	// routeTimeout is for a whole response, when the route does not say.
	routeTimeout = 30 * time.Second
	// ownTimeout is for Doorward's own paths; a sign-in waits for the identity provider.
	ownTimeout = 30 * time.Second
)

// scope sends requests for a host to the route configuration of that name. It is not on demand: Envoy asks for the
// routes when it learns of the scope, so that they can be acknowledged before the first request.
func scope(host string) *routev3.ScopedRouteConfiguration {
	return &routev3.ScopedRouteConfiguration{
		Name:                   host,
		RouteConfigurationName: host,
		Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{
			Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{StringKey: host},
		}}},
	}
}

// routeConfiguration is everything about one host: guards, Doorward's own paths, the host's routes in the order in which
// they are matched, and a 404. The scope has fixed the host, so that one virtual host takes all.
func (s siteInput) routeConfiguration() (*routev3.RouteConfiguration, error) {
	routes := append(guards(s.host), ownRoutes(s.paths)...)
	var errs []error
	for i, r := range s.routes {
		made, err := s.route(i)
		errs = append(errs, inRoute(r, err))
		routes = append(routes, made...)
	}
	if !slices.ContainsFunc(s.routes, func(r config.Route) bool { return !r.TCP() }) {
		routes = append(routes, userPageRedirect(s.paths, s.origin))
	}
	return &routev3.RouteConfiguration{
		Name: s.host,
		VirtualHosts: []*routev3.VirtualHost{{
			Name:    s.host,
			Domains: []string{"*"},
			Routes:  append(routes, notFound()),
			// What the client itself asked for. Envoy has taken the port from :authority.
			RequestHeadersToAdd: []*corev3.HeaderValueOption{
				s.forwardedHost(),
				setHeader("x-forwarded-port", strconv.Itoa(s.origin.Port())),
			},
			ResponseHeadersToAdd: strictTransport(s.agreedHSTS()),
		}},
		// A route's own header wins over the host's, and the route to Doorward puts back what is removed here.
		MostSpecificHeaderMutationsWins:    true,
		RequestHeadersToRemove:             []string{HeaderSNI},
		IgnorePathParametersInPathMatching: true,
		ValidateClusters:                   wrapperspb.Bool(false),
	}, errors.Join(errs...)
}

// ownRoutes are the paths that Doorward serves on every host. ext_authz is off for them; they reach no other upstream.
func ownRoutes(p config.Paths) []*routev3.Route {
	return []*routev3.Route{
		ownRoute("doorward/jwks", exactMatch(p.JWKS)),
		ownRoute("doorward/prefix", prefixMatch(p.Prefix)),
	}
}

func ownRoute(name string, match *routev3.RouteMatch) *routev3.Route {
	return &routev3.Route{
		Name:  name,
		Match: match,
		Action: &routev3.Route_Route{Route: &routev3.RouteAction{
			ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: ClusterHTTP},
			Timeout:          durationpb.New(ownTimeout),
		}},
		RequestHeadersToAdd:  []*corev3.HeaderValueOption{formatHeader(HeaderSNI, "%REQUESTED_SERVER_NAME%")},
		TypedPerFilterConfig: unchecked(),
	}
}

// notFound ends every host's routes.
func notFound() *routev3.Route {
	return refusal(routeNotFound, anyPath(), http.StatusNotFound, bodyNotFound)
}

// refusal answers without an upstream and without asking ext_authz.
func refusal(name string, match *routev3.RouteMatch, status uint32, body string) *routev3.Route {
	return &routev3.Route{
		Name:                 name,
		Match:                match,
		Action:               directResponse(status, body),
		TypedPerFilterConfig: unchecked(),
	}
}

// userPageRedirect leads from "/" of a host that has no page, as a sign-in host without a route or the host of a TCP service, to the user page.
func userPageRedirect(p config.Paths, origin config.URL) *routev3.Route {
	return &routev3.Route{
		Name:  "doorward/home",
		Match: exactMatch("/"),
		Action: &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{
			PortRedirect:         publicPort(origin),
			PathRewriteSpecifier: &routev3.RedirectAction_PathRedirect{PathRedirect: p.Prefix + "/"},
			ResponseCode:         routev3.RedirectAction_FOUND,
		}},
		TypedPerFilterConfig: unchecked(),
	}
}

// route is one route of the configuration, in the revision that ext_authz is to decide by. Where the policy reads bodies it is two, of which the
// first takes gRPC; and where requests of some methods alone are sent again, each of them is two.
func (s siteInput) route(i int) ([]*routev3.Route, error) {
	r, limit := s.routes[i], s.bodies[i]
	if r.TCP() {
		out := connectRoute(s.host, r, checked(r.Name, s.revisions[i], body{limit: limit, stream: true}), s.to[i].targets)
		return []*routev3.Route{out}, out.ValidateAll()
	}
	out, err := s.oneRoute(r, checked(r.Name, s.revisions[i], body{limit: limit}), s.to[i])
	if err != nil {
		return nil, err
	}
	made := []*routev3.Route{out}
	if limit != 0 {
		stream := proto.Clone(out).(*routev3.Route)
		stream.Match.Headers = append(stream.Match.Headers, grpcContent())
		stream.TypedPerFilterConfig = checked(r.Name, s.revisions[i], body{limit: limit, stream: true})
		made = []*routev3.Route{stream, out}
	}
	made = byMethod(r, made)
	var errs []error
	for _, m := range made {
		errs = append(errs, m.ValidateAll())
	}
	return made, errors.Join(errs...)
}

func (s siteInput) oneRoute(r config.Route, check map[string]*anypb.Any, to destination) (*routev3.Route, error) {
	out := &routev3.Route{
		Name:                    r.Name,
		Match:                   match(r),
		TypedPerFilterConfig:    check,
		RequestHeadersToAdd:     append(setHeaders(r.SetRequestHeaders), identityLines(r)...),
		RequestHeadersToRemove:  r.RemoveRequestHeaders,
		ResponseHeadersToAdd:    append(setHeaders(r.SetResponseHeaders), strictTransport(r.HSTS)...),
		ResponseHeadersToRemove: r.RemoveResponseHeaders,
	}
	if r.CORS != nil {
		// What the upstream says of it: ext_authz's answer says all of it, and is applied after this.
		out.ResponseHeadersToRemove = slices.Concat(r.RemoveResponseHeaders, corsHeaders)
	}
	if r.Streams {
		out.TypedPerFilterConfig[streamsName] = watched()
	}
	switch {
	case r.Response != nil:
		out.Action = directResponse(uint32(r.Response.Status), r.Response.Body)
	case r.Redirect != nil:
		out.Action = &routev3.Route_Redirect{Redirect: redirect(r)}
	case r.Admin():
		out.RequestHeadersToAdd = append(out.RequestHeadersToAdd, setHeader(HeaderAdmin, r.Name))
		out.Action = &routev3.Route_Route{Route: toDoorward(r)}
	case len(to.targets) > 0:
		action := forward(r, to.targets)
		action.RequestMirrorPolicies = mirrorPolicies(r, to.mirrors, s.assertion)
		out.Action = &routev3.Route_Route{Route: action}
	default:
		return nil, errors.New("has none of to, redirect and response")
	}
	return out, nil
}

// corsHeaders are the response headers of the CORS protocol (Fetch Standard, section 3.3.3).
var corsHeaders = []string{
	"access-control-allow-origin", "access-control-allow-credentials", "access-control-allow-methods", "access-control-allow-headers",
	"access-control-expose-headers", "access-control-max-age", "access-control-allow-private-network",
}

// toDoorward sends the request to Doorward itself, which sees the host that the client asked for.
func toDoorward(r config.Route) *routev3.RouteAction {
	action := within(r)
	action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: ClusterHTTP}
	return action
}

// within is an action with the route's timeouts.
func within(r config.Route) *routev3.RouteAction {
	action := &routev3.RouteAction{Timeout: durationpb.New(routeTimeout)}
	if r.Timeout != nil {
		action.Timeout = durationpb.New(time.Duration(*r.Timeout))
	}
	if r.IdleTimeout != nil {
		action.IdleTimeout = durationpb.New(time.Duration(*r.IdleTimeout))
	}
	return action
}

// forward sends the request to the route's upstreams.
func forward(r config.Route, targets []target) *routev3.RouteAction {
	action := within(r)
	action.RetryPolicy, action.HashPolicy = retryPolicy(r.Retry), hashPolicy(r.HashOn)
	if r.AllowWebsockets {
		action.UpgradeConfigs = []*routev3.RouteAction_UpgradeConfig{
			{UpgradeType: websocket, Enabled: wrapperspb.Bool(true)},
		}
	}
	if u := targets[0]; u.scheme == "h2c" || u.scheme == "https" && !u.http1 {
		// A gRPC call ends when its client stops waiting (gRPC over HTTP2, "Timeout"), at the latest after the route's timeout.
		action.MaxStreamDuration = &routev3.RouteAction_MaxStreamDuration{GrpcTimeoutHeaderMax: action.Timeout}
	}
	rewritePath(r, action)
	rewriteHost(r, action)
	sendTo(targets, action)
	return action
}

// sendTo names the clusters of the route's targets, with their weights.
func sendTo(targets []target, action *routev3.RouteAction) {
	weights := make(map[string]uint32)
	for _, t := range targets {
		weights[t.name()] += t.weight
	}
	names := slices.Sorted(maps.Keys(weights))
	if len(names) == 1 {
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: names[0]}
		return
	}
	weighted := new(routev3.WeightedCluster)
	for _, name := range names {
		weighted.Clusters = append(weighted.Clusters, &routev3.WeightedCluster_ClusterWeight{
			Name:   name,
			Weight: wrapperspb.UInt32(weights[name]),
		})
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: weighted}
}

// rewriteHost says which Host the upstream sees: its own name, the route's, or the client's.
func rewriteHost(r config.Route, action *routev3.RouteAction) {
	if host := literalHost(r); host != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: host}
		return
	}
	if !r.PreserveHostHeader {
		action.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
}

// literalHost is the Host that the upstream sees, "" for its own name, or for the client's where that differs from request to request. The client's is
// written out, because Envoy has taken the port from it: under a wildcard it is without the port.
func literalHost(r config.Route) string {
	if r.HostRewrite == "" && r.PreserveHostHeader && !config.IsWildcard(r.Host()) {
		return r.From.Host()
	}
	return r.HostRewrite
}

func redirect(r config.Route) *routev3.RedirectAction {
	action := &routev3.RedirectAction{
		HostRedirect: r.Redirect.Host,
		StripQuery:   r.Redirect.StripQuery,
		ResponseCode: redirectCode(r.Redirect.Status),
	}
	if r.Redirect.Host == "" {
		action.PortRedirect = publicPort(r.From)
	}
	switch {
	case r.Redirect.Path != "":
		action.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: r.Redirect.Path}
	case r.Redirect.Prefix != "":
		redirectPrefix(r, action)
	}
	return action
}

func directResponse(status uint32, body string) *routev3.Route_DirectResponse {
	response := &routev3.DirectResponseAction{Status: status}
	if body != "" {
		response.Body = inlineString(body)
	}
	return &routev3.Route_DirectResponse{DirectResponse: response}
}

func setHeaders(values map[string]string) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	for _, name := range slices.Sorted(maps.Keys(values)) {
		out = append(out, setHeader(name, values[name]))
	}
	return out
}

// redirects is the route configuration of the plain listener: every host is sent to its own https address, with method and path kept. It names
// only the hosts that are not at the usual port, so that it does not grow with the hosts; who asks for one that is not served here is told so there.
func redirects(c *config.Config, ports map[string]uint32) *routev3.RouteConfiguration {
	hosts := map[uint32][]string{usualPort(c): {"*"}}
	for _, host := range slices.Sorted(maps.Keys(ports)) {
		hosts[ports[host]] = append(hosts[ports[host]], host)
	}
	out := &routev3.RouteConfiguration{Name: httpRoutes}
	var challenges []*routev3.Route
	if c.TLS.ACME.Solves(config.ChallengeHTTP) {
		challenges = append(challenges, challengeRoute())
	}
	for _, port := range slices.Sorted(maps.Keys(hosts)) {
		out.VirtualHosts = append(out.VirtualHosts, &routev3.VirtualHost{
			Name:    fmt.Sprintf("https-%d", cmp.Or(port, 443)),
			Domains: hosts[port],
			Routes: append(slices.Clone(challenges), &routev3.Route{Match: anyPath(), Action: &routev3.Route_Redirect{Redirect: &routev3.RedirectAction{
				SchemeRewriteSpecifier: &routev3.RedirectAction_HttpsRedirect{HttpsRedirect: true},
				PortRedirect:           port,
				ResponseCode:           routev3.RedirectAction_PERMANENT_REDIRECT,
			}}}),
		})
	}
	return out
}

// usualPort is the public port of the sign-in host, 0 for https's own.
func usualPort(c *config.Config) uint32 {
	if c.AuthURL.IsZero() {
		return 0
	}
	return publicPort(c.AuthURL)
}

// publicPort is the port to put into a redirect on the same host: Envoy has taken it from :authority. 0 is the default.
func publicPort(u config.URL) uint32 {
	if u.Port() == 443 {
		return 0
	}
	return uint32(u.Port())
}
