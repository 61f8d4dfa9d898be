package xds

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"doorward/authz/config"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	staticnamev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/static_name/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// A wildcard host has a filter chain of its own: scopes know exact hosts only, and a certificate by server name would cost Envoy memory for each
// name that a stranger thinks of. The chain has one certificate and one route configuration, named after the wildcard, which also holds the exact
// hosts that the wildcard covers. Those are in no scope, so that no other chain leads to them.

// wildcardsOf are the wildcard hosts of a configuration, sorted. None covers another: each stands for one label.
func wildcardsOf(sites []site) []string {
	var hosts []string
	for _, s := range sites {
		if config.IsWildcard(s.host) {
			hosts = append(hosts, s.host)
		}
	}
	return hosts
}

// gather puts the exact hosts that a wildcard covers below it, and returns the sites that are left. A host with client certificates has its own chain.
func gather(c *config.Config, sites []site) []site {
	at := make(map[string]int)
	var left []site
	for _, s := range sites {
		if config.IsWildcard(s.host) {
			at[s.host] = len(left)
			s.barred = provingBelow(c, s.host)
			left = append(left, s)
		}
	}
	if len(at) == 0 {
		return sites
	}
	for _, s := range sites {
		if i, covered := at[config.WildcardOf(s.host)]; covered && !provesClients(c, s.host) {
			left[i].below = append(left[i].below, s)
		} else if !config.IsWildcard(s.host) {
			left = append(left, s)
		}
	}
	return left
}

// alone makes of a host's own route configuration that of its filter chain: the host's name is no more in a scope, so it is looked at here.
func alone(out *routev3.RouteConfiguration, host string) {
	out.VirtualHosts[0].Domains = []string{host} // of a wildcard, for Envoy, with any number of labels in the place of the star
	out.VirtualHosts = append(out.VirtualHosts, misdirected(routeMisdirected, "*"))
}

// addInstead adds what the filter chains of wildcards and of hosts with client certificates get where they can have no routes: there are none, they are
// for Envoys of other groups, or the Envoy has refused them. A listener that is new would wait for them, and serve nobody meanwhile.
func addInstead(out *Resources, c *config.Config, wildcards []string) error {
	names := slices.Clone(wildcards)
	for _, clients := range c.TLS.ClientCertificates {
		names = append(names, clients.Hosts...)
	}
	out.instead = make(map[string]*resource, len(names))
	for _, name := range names {
		nothing := &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{misdirected(routeMisdirected, "*")}}
		res, err := newResource(name, nothing)
		if err != nil {
			return err
		}
		out.instead[name] = res
	}
	return nil
}

// misdirected says of domains that they are not served here.
func misdirected(name string, domains ...string) *routev3.VirtualHost {
	return &routev3.VirtualHost{
		Name: name, Domains: domains,
		Routes: []*routev3.Route{refusal(routeMisdirected, anyPath(), http.StatusMisdirectedRequest, bodyMisdirected)},
	}
}

// wildcardRoutes adds to a wildcard's own routes what else its chain may be asked for.
func (s siteInput) wildcardRoutes(out *routev3.RouteConfiguration) error {
	deeper := anyPath()
	deeper.Headers = []*routev3.HeaderMatcher{{
		Name: ":authority", HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: matching(covered(s.host))}, InvertMatch: true,
	}}
	out.VirtualHosts[0].Routes = append([]*routev3.Route{refusal(routeMisdirected, deeper, http.StatusMisdirectedRequest, bodyMisdirected)}, out.VirtualHosts[0].Routes...)
	for _, exact := range s.below {
		one, err := exact.routeConfiguration()
		if err != nil {
			return err
		}
		one.VirtualHosts[0].Domains = []string{exact.host}
		out.VirtualHosts = append(out.VirtualHosts, one.VirtualHosts...)
	}
	if len(s.barred) > 0 {
		out.VirtualHosts = append(out.VirtualHosts, misdirected("doorward/clients", s.barred...))
	}
	return out.ValidateAll()
}

// covered is RE2 for the names that a wildcard stands for.
func covered(wildcard string) string {
	return `[a-z0-9-]+` + quoted(strings.TrimPrefix(wildcard, "*"))
}

// quoted is RE2 for a name as it stands.
func quoted(name string) string { return regexp.QuoteMeta(name) }

// serverNameOf wants the server name of a host. Of a wildcard's it wants one of those that it stands for; whether it is the request's host,
// ext_authz and Doorward's own handlers look.
func serverNameOf(host string) *matcherv3.StringMatcher {
	if config.IsWildcard(host) {
		return matching(covered(host))
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: host}}
}

// forwardedHost is what the client asked for, as X-Forwarded-Host has it.
func (s siteInput) forwardedHost() *corev3.HeaderValueOption {
	if !config.IsWildcard(s.host) {
		return setHeader("x-forwarded-host", s.origin.Host())
	}
	port := ""
	if p := publicPort(s.origin); p != 0 {
		port = fmt.Sprintf(":%d", p)
	}
	return formatHeader("x-forwarded-host", "%REQ(:AUTHORITY)%"+port)
}

// wildcardChain is the filter chain of a wildcard.
func wildcardChain(in Input, wildcard string) (*listenerv3.FilterChain, error) {
	socket, err := downstreamTLS(in.Config.TLS, alwaysNamed(wildcard), nil)
	return ownChain(in, wildcard, socket), err
}

// alwaysNamed is the mapper to one certificate, whatever the server name.
func alwaysNamed(secret string) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.tls.certificate_mappers.static_name",
		TypedConfig: mustPack(&staticnamev3.StaticName{Name: secret}),
	}
}

// ownChain is a filter chain with the route configuration of its name.
func ownChain(in Input, host string, socket *corev3.TransportSocket) *listenerv3.FilterChain {
	m := secureManager(in.Config, in.Page)
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: host}}
	return secureChain(host, socket, m)
}

// ownerOf is the owner of a host's resources: the host, or the wildcard that covers it.
func (s *served) ownerOf(host string) string {
	if s == nil || s.parts[host] != nil {
		return host
	}
	if wildcard := config.WildcardOf(host); s.parts[wildcard] != nil {
		return wildcard
	}
	return host
}
