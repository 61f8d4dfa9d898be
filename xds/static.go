package xds

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
)

// Part is one resource of a change that an Envoy may refuse, to be looked at by itself (Static).
type Part struct {
	// Where and Name say for a person what it is: `host "wiki.example.com"`, `route "wiki"`. Where is "" for what is no host's.
	Where, Name string
	message     proto.Message
}

// String is Name, and Where if there is one.
func (p Part) String() string {
	if p.Where == "" {
		return p.Name
	}
	return p.Where + ", " + p.Name
}

// Parts are the resources of a change, those of one host side by side, by the names of the hosts. Scopes are left out: they are this package's own, and
// an Envoy refuses none by itself.
func (c *Change) Parts() ([]Part, error) {
	var out []Part
	for _, owner := range slices.Sorted(maps.Keys(c.parts)) {
		part := c.parts[owner]
		if part == nil {
			continue
		}
		where := ""
		if !strings.Contains(owner, "/") {
			where = fmt.Sprintf("host %q", owner)
		}
		for k, set := range part.set {
			if kind(k) == scopeKind {
				continue
			}
			for _, name := range slices.Sorted(maps.Keys(set)) {
				message, err := set[name].body.UnmarshalNew()
				if err != nil {
					return nil, fmt.Errorf("decode %s %q: %w", kind(k), name, err)
				}
				out = append(out, Part{where, kind(k).called(name), message})
			}
		}
	}
	return out, nil
}

// called is what a person calls a resource.
func (k kind) called(name string) string {
	switch k {
	case clusterKind:
		return fmt.Sprintf("upstream %q", name)
	case secretKind:
		if host, clients := strings.CutPrefix(name, clientsPrefix); clients {
			return fmt.Sprintf("client certificates of %q", host)
		}
		return "certificate"
	case routeKind:
		return "routes"
	case listenerKind:
		return fmt.Sprintf("listener %q", name)
	}
	return fmt.Sprintf("filter %q", name)
}

// Split are the routes of a part, each by itself and under its name; nil for a part that is one thing.
func (p Part) Split() []Part {
	all, ok := p.message.(*routev3.RouteConfiguration)
	if !ok {
		return nil
	}
	var out []Part
	for _, host := range all.VirtualHosts {
		for _, r := range host.Routes {
			one := proto.CloneOf(all)
			only := proto.CloneOf(host)
			only.Routes = []*routev3.Route{r}
			one.VirtualHosts = []*routev3.VirtualHost{only}
			out = append(out, Part{p.Where, fmt.Sprintf("route %q", r.Name), one})
		}
	}
	return out
}

// Static has the parts in themselves, in a form that Envoy can be started with: for what is only referred to in xDS (routes, certificates, filters)
// it has a listener that serves nobody. What the parts refer to beside each other (Doorward's own clusters, ADS) is to be in the bootstrap that gets
// this. There are few listeners, however many parts: what Envoy does for one more grows with those that are there.
func Static(parts []Part) (*bootstrapv3.Bootstrap_StaticResources, error) {
	out := new(bootstrapv3.Bootstrap_StaticResources)
	clusters := make(map[string]bool) // hosts may share one
	routes := new(hcmv3.ScopedRouteConfigurationsList)
	filters, certificates := []*hcmv3.HttpFilter{}, []*tlsv3.TlsCertificate{}
	for i, p := range parts {
		switch m := p.message.(type) {
		case *clusterv3.Cluster:
			if !clusters[m.Name] {
				clusters[m.Name] = true
				out.Clusters = append(out.Clusters, m)
			}
		case *listenerv3.Listener:
			out.Listeners = append(out.Listeners, m)
		case *routev3.RouteConfiguration:
			one := scope(fmt.Sprint("part-", i))
			one.RouteConfigurationName, one.RouteConfiguration = "", m
			routes.ScopedRouteConfigurations = append(routes.ScopedRouteConfigurations, one)
		case *corev3.TypedExtensionConfig:
			filters = append(filters, &hcmv3.HttpFilter{Name: m.Name, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: m.TypedConfig}})
		case *tlsv3.Secret:
			switch {
			case m.GetTlsCertificate() != nil:
				certificates = append(certificates, m.GetTlsCertificate())
			case m.GetValidationContext() != nil:
				one, err := verifying(fmt.Sprint("part-", i), m.GetValidationContext())
				if err != nil {
					return nil, err
				}
				out.Clusters = append(out.Clusters, one)
			default:
				return nil, fmt.Errorf("%s has no certificate in it", p)
			}
		default:
			return nil, fmt.Errorf("%s is a %T, which has no static form", p, p.message)
		}
	}
	unheard, err := unheardListener(routes, filters, certificates)
	out.Listeners = append(out.Listeners, unheard)
	return out, err
}

// verifying is a cluster that verifies by what is to be looked at: a listener that does so would want a certificate of its own.
func verifying(name string, by *tlsv3.CertificateValidationContext) (*clusterv3.Cluster, error) {
	socket, err := transportSocket(&tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: by},
	}})
	return &clusterv3.Cluster{
		Name: name, ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, TransportSocket: socket,
	}, err
}

// unheardListener is one that is made to be looked at.
func unheardListener(routes *hcmv3.ScopedRouteConfigurationsList, filters []*hcmv3.HttpFilter, certificates []*tlsv3.TlsCertificate) (*listenerv3.Listener, error) {
	const name = "doorward/unheard"
	m := &hcmv3.HttpConnectionManager{
		StatPrefix:     name,
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{Name: name}},
		HttpFilters:    append(filters, routerFilter()),
	}
	if len(routes.ScopedRouteConfigurations) > 0 {
		scoped := scopedRoutes()
		scoped.ConfigSpecifier = &hcmv3.ScopedRoutes_ScopedRouteConfigurationsList{ScopedRouteConfigurationsList: routes}
		m.RouteSpecifier = &hcmv3.HttpConnectionManager_ScopedRoutes{ScopedRoutes: scoped}
	}
	chain := &listenerv3.FilterChain{Name: name, Filters: []*listenerv3.Filter{connectionManager(m)}}
	if len(certificates) > 0 {
		socket, err := transportSocket(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: certificates}})
		if err != nil {
			return nil, err
		}
		chain.TransportSocket = socket
	}
	addr, err := address("127.0.0.1:0")
	return &listenerv3.Listener{Name: name, Address: addr, FilterChains: []*listenerv3.FilterChain{chain}}, err
}
