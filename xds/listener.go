package xds

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"doorward/authz/config"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	inspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	snimapperv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/sni/v3"
	ondemandv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_selectors/on_demand_secret/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Names of the listeners, and of the plain one's route configuration, which no host can have.
const (
	httpsListener = "https"
	httpListener  = "http"
	httpRoutes    = "doorward/http"
)

// Limits of the edge, after Envoy's "Configuring Envoy as an edge proxy" where it gives a figure.
const (
	connectionBuffer  = 32 << 10 // bytes, per connection and direction
	handshakeTimeout  = 5 * time.Second
	inspectionTimeout = 5 * time.Second
)

// addListeners adds the listeners. They are made from the edge's settings, the look of Envoy's own answers and the hosts with a filter chain of
// their own alone, so that no other change of a route touches them.
func addListeners(out *Resources, in Input, wildcards []string) error {
	c := in.Config
	var errs []error
	https, err := secureListener(in, wildcards)
	errs = append(errs, err)
	if err == nil {
		errs = append(errs, out.add(listenerKind, httpsListener, https))
	}
	if c.Listen.HTTP != "" {
		plain, err := plainListener(c, in.Page)
		errs = append(errs, err)
		if err == nil {
			errs = append(errs, out.add(listenerKind, httpListener, plain))
		}
	}
	return errors.Join(errs...)
}

// secureListener is the listener for every host: certificates by server name, route configurations by :authority, and a chain for each host that
// wants client certificates and each wildcard.
func secureListener(in Input, wildcards []string) (*listenerv3.Listener, error) {
	addr, err := address(in.Config.Listen.HTTPS)
	if err != nil {
		return nil, fmt.Errorf("listen.https: %w", err)
	}
	socket, err := downstreamTLS(in.Config.TLS, &corev3.TypedExtensionConfig{
		Name:        "envoy.tls.certificate_mappers.sni",
		TypedConfig: mustPack(&snimapperv3.SNI{DefaultValue: noServerName}),
	}, nil)
	own, clients, ownErr := clientChains(in)
	errs := []error{err, ownErr}
	chains := append([]*listenerv3.FilterChain{secureChain(httpsListener, socket, secureManager(in.Config, in.Page))}, own...)
	for _, host := range wildcards {
		chain, err := wildcardChain(in, host)
		errs, chains = append(errs, err), append(chains, chain)
	}
	l := &listenerv3.Listener{
		Name:                          httpsListener,
		Address:                       addr,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(connectionBuffer),
		ListenerFilters: []*listenerv3.ListenerFilter{{
			Name:       "envoy.filters.listener.tls_inspector",
			ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: mustPack(&inspectorv3.TlsInspector{})},
		}},
		ListenerFiltersTimeout: durationpb.New(inspectionTimeout),
		FilterChainMatcher:     byServerName(specials(clients, wildcards)),
		FilterChains:           chains,
	}
	if in.Config.TLS.ACME.Solves(config.ChallengeTLSALPN) {
		addChallenges(l)
	}
	return l, errors.Join(errs...)
}

// secureChain is a filter chain with TLS and HTTP.
func secureChain(name string, socket *corev3.TransportSocket, m *hcmv3.HttpConnectionManager) *listenerv3.FilterChain {
	return &listenerv3.FilterChain{
		Name:                          name,
		TransportSocket:               socket,
		TransportSocketConnectTimeout: durationpb.New(handshakeTimeout),
		Filters:                       []*listenerv3.Filter{connectionManager(m)},
	}
}

// plainListener only redirects to https.
func plainListener(c *config.Config, page func(PageText) Page) (*listenerv3.Listener, error) {
	addr, err := address(c.Listen.HTTP)
	if err != nil {
		return nil, fmt.Errorf("listen.http: %w", err)
	}
	return &listenerv3.Listener{
		Name:                          httpListener,
		Address:                       addr,
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(connectionBuffer),
		FilterChains: []*listenerv3.FilterChain{{
			Name:    httpListener,
			Filters: []*listenerv3.Filter{connectionManager(plainManager(c, page))},
		}},
	}, nil
}

// address reads host:port. An absent host is every IPv4 address; "[::]:443" is every address of both families.
func address(s string) (*corev3.Address, error) {
	host, service, err := net.SplitHostPort(s)
	if err != nil {
		return nil, fmt.Errorf("%q is not host:port: %w", s, err)
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("%q: the port must be a number up to 65535", s)
	}
	if host == "" {
		host = "0.0.0.0"
	}
	if net.ParseIP(host) == nil {
		if host != "localhost" {
			return nil, fmt.Errorf("%q: the host must be an IP address or empty", s)
		}
		host = "127.0.0.1"
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:       host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
		Ipv4Compat:    host == "::",
	}}}, nil
}

// downstreamTLS asks for the certificate that the mapper names: after the handshake's server name, or always the same. The server's Secret
// resources hold exact, lower-case hosts and wildcards only, so every other name, and no name, is refused in the handshake. Session resumption is
// off because the certificate selector refuses it. Clients prove what client says, nothing when it is nil.
func downstreamTLS(t config.TLS, mapper *corev3.TypedExtensionConfig, client *clientTLS) (*corev3.TransportSocket, error) {
	selector := &ondemandv3.Config{ConfigSource: ads(), CertificateMapper: mapper}
	context := &tlsv3.DownstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsParams:     tlsParameters(t),
			AlpnProtocols: []string{"h2", "http/1.1"},
			CustomTlsCertificateSelector: &corev3.TypedExtensionConfig{
				Name:        "envoy.tls.certificate_selectors.on_demand_secret",
				TypedConfig: mustPack(selector),
			},
		},
		SessionTicketKeysType:            &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true},
		DisableStatefulSessionResumption: true,
	}
	if client != nil {
		context.RequireClientCertificate = wrapperspb.Bool(!client.optional)
		context.CommonTlsContext.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContextSdsSecretConfig{
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{Name: client.secret, SdsConfig: ads()},
		}
	}
	return transportSocket(context)
}

func transportSocket(m validated) (*corev3.TransportSocket, error) {
	body, err := pack(m)
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: body},
	}, err
}

// ads is the config source of everything dynamic.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ResourceApiVersion:    corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
	}
}

func connectionManager(m *hcmv3.HttpConnectionManager) *listenerv3.Filter {
	return &listenerv3.Filter{
		Name:       "envoy.filters.network.http_connection_manager",
		ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustPack(m)},
	}
}
