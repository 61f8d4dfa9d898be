package envoy

import (
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"doorward/xds/node"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnscommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The files of an Envoy on another machine, in its directory. Whoever reads NodePair is that Envoy.
const (
	NodePair    = "node.pem"      // its key and certificate, in one file, so that they change together
	NodeRoot    = "ca.pem"        // the certificate of the CA that Doorward's own certificate is of
	NodeSecrets = "node.sds.json" // tells Envoy to read NodePair, and to read it again when it is replaced
	nodeName    = "doorward_node" // of the secret
)

const (
	// remoteConnect bounds a connection to Doorward on another machine; a check does not wait so long.
	remoteConnect = 2 * time.Second
	// A machine that vanishes closes no connection: after pingEvery and pingWait without a sign of life it counts as gone.
	pingEvery = 5 * time.Second
	pingWait  = 3 * time.Second
	// lookUpEvery is how often the address of Doorward is resolved, lookUpAgain how soon after a failure.
	lookUpEvery = 5 * time.Second
	lookUpAgain = 500 * time.Millisecond
)

// link is a way to Doorward: a Unix socket on one machine, mutual TLS across machines.
type link struct {
	name, socket, alpn string
	limit              uint32 // of requests and connections
}

// cluster has one endpoint.
func (l link) cluster(c BootstrapConfig) (*clusterv3.Cluster, error) {
	if c.Remote != "" {
		return l.remote(c)
	}
	protocol, err := l.protocol(nil)
	return &clusterv3.Cluster{
		Name:                          l.name,
		ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		ConnectTimeout:                durationpb.New(time.Second),
		LoadAssignment:                l.endpoint(pipe(l.socket)),
		CircuitBreakers:               circuitBreakers(l.limit),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{protocolExtension: protocol},
	}, err
}

// remote resolves Doorward's name again and again. All its addresses are one endpoint, of which any that answers will do: a name that has an IPv6
// address where nobody listens works all the same.
func (l link) remote(c BootstrapConfig) (*clusterv3.Cluster, error) {
	host, port, err := splitAddress(c.Remote)
	if err != nil {
		return nil, err
	}
	protocol, err := l.protocol(&corev3.KeepaliveSettings{Interval: durationpb.New(pingEvery), Timeout: durationpb.New(pingWait)})
	if err != nil {
		return nil, err
	}
	transport, err := l.transport(c.SocketDir, host)
	if err != nil {
		return nil, err
	}
	discovery, err := pack(&dnsv3.DnsCluster{
		DnsRefreshRate:        durationpb.New(lookUpEvery),
		DnsFailureRefreshRate: &dnsv3.DnsCluster_RefreshRate{BaseInterval: durationpb.New(lookUpAgain), MaxInterval: durationpb.New(lookUpEvery)},
		DnsLookupFamily:       dnscommonv3.DnsLookupFamily_ALL,

		AllAddressesInSingleEndpoint: true,
	})
	return &clusterv3.Cluster{
		Name: l.name,
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.cluster.dns", TypedConfig: discovery,
		}},
		ConnectTimeout: durationpb.New(remoteConnect),
		LoadAssignment: l.endpoint(&corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
		}}}),
		CircuitBreakers: circuitBreakers(l.limit),
		UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
			KeepaliveTime: seconds(pingEvery), KeepaliveInterval: seconds(pingWait), KeepaliveProbes: wrapperspb.UInt32(2),
		}},
		TransportSocket:               transport,
		TypedExtensionProtocolOptions: map[string]*anypb.Any{protocolExtension: protocol},
	}, err
}

func seconds(d time.Duration) *wrapperspb.UInt32Value {
	return wrapperspb.UInt32(uint32(d / time.Second))
}

func (l link) protocol(keepalive *corev3.KeepaliveSettings) (*anypb.Any, error) {
	if l.alpn == node.ProtocolHTTP || l.alpn == node.ProtocolACME { // of the latter only the connection is used
		return http1()
	}
	return http2(keepalive)
}

func (l link) endpoint(to *corev3.Address) *endpointv3.ClusterLoadAssignment {
	endpoint := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: to}}}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: l.name,
		Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{endpoint}}},
	}
}

// transport is TLS 1.3 in which each side proves who it is. What is spoken is said by ALPN, and each protocol has connections of its own.
func (l link) transport(dir, host string) (*corev3.TransportSocket, error) {
	upstream := &tlsv3.UpstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		AlpnProtocols: []string{l.alpn},
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{
			Name: nodeName,
			SdsConfig: &corev3.ConfigSource{
				ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
					Path: filepath.Join(dir, NodeSecrets), WatchedDirectory: &corev3.WatchedDirectory{Path: dir},
				}},
				ResourceApiVersion: corev3.ApiVersion_V3,
			},
		}},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa:                 file(filepath.Join(dir, NodeRoot)),
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{sanOf(host)},
		}},
	}}
	if net.ParseIP(host) == nil {
		upstream.Sni = host
	}
	packed, err := pack(upstream)
	return &corev3.TransportSocket{
		Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: packed},
	}, err
}

func sanOf(host string) *tlsv3.SubjectAltNameMatcher {
	kind := tlsv3.SubjectAltNameMatcher_DNS
	if ip := net.ParseIP(host); ip != nil {
		kind, host = tlsv3.SubjectAltNameMatcher_IP_ADDRESS, ip.String()
	}
	return &tlsv3.SubjectAltNameMatcher{SanType: kind, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: host}}}
}

func file(path string) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: path}}
}

// Secrets is the file NodeSecrets for a directory on Envoy's machine.
func Secrets(dir string) ([]byte, error) {
	pair := map[string]any{"filename": filepath.Join(dir, NodePair)}
	out, err := json.MarshalIndent(map[string]any{"resources": []any{map[string]any{
		"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
		"name":  nodeName,
		"tls_certificate": map[string]any{
			"certificate_chain": pair, "private_key": pair, "watched_directory": map[string]any{"path": dir},
		},
	}}}, "", "  ")
	return append(out, '\n'), err
}

func splitAddress(address string) (host string, port uint32, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("envoy bootstrap: address of doorward: %w", err)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("envoy bootstrap: address of doorward: %w", err)
	}
	return host, uint32(n), nil
}
