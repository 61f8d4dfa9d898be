package xds

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"doorward/authz/config"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	dnscommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/common/dns/v3"
	dnsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dns/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	connectTimeout = 5 * time.Second
	upstreamIdle   = 5 * time.Minute
	// Per upstream and priority. Each open WebSocket counts as a request.
	upstreamConnections = 4096
	upstreamPending     = 1024
	upstreamRequests    = 4096
	upstreamRetries     = 3
	// systemRoots is read by Envoy, on Envoy's machine: Debian's and Alpine's path. Elsewhere a route names its CA file.
	systemRoots = "/etc/ssl/certs/ca-certificates.crt"
)

// upstream is what makes one cluster differ from another.
type upstream struct {
	tls        bool
	host       string
	port       int
	http1      bool   // no HTTP/2 even over TLS: a WebSocket could not be opened with many servers
	serverName string // SNI, and the name that the certificate must bear
	skipVerify bool
	ca         []byte // PEM; the system's roots when nil
	cert, key  []byte // PEM; of the client
}

// target is one of a route's upstreams with its share of the requests.
type target struct {
	upstream
	weight uint32
}

func targetsOf(r config.Route) ([]target, error) {
	var targets []target
	var errs []error
	for _, t := range r.To {
		u, err := upstreamOf(r, t)
		errs = append(errs, err)
		targets = append(targets, target{u, t.Weight})
	}
	return targets, errors.Join(errs...)
}

// upstreamOf reads what a route says about one of its targets, and the files that it names.
func upstreamOf(r config.Route, t config.Target) (upstream, error) {
	u := upstream{tls: t.URL.Scheme() == "https", host: t.URL.Hostname(), port: t.URL.Port()}
	if !u.tls {
		return u, nil
	}
	u.http1 = r.AllowWebsockets
	u.skipVerify = r.TLSSkipVerify
	u.serverName = r.TLSServerName
	if u.serverName == "" {
		u.serverName = u.host
	}
	var errs []error
	if r.TLSCAFile != "" {
		ca, err := os.ReadFile(r.TLSCAFile)
		if err == nil && !x509.NewCertPool().AppendCertsFromPEM(ca) {
			err = fmt.Errorf("%s holds no PEM certificate", r.TLSCAFile)
		}
		u.ca = ca
		errs = append(errs, wrap("tls_custom_ca_file", err))
	}
	if r.TLSClientCertFile != "" || r.TLSClientKeyFile != "" {
		var err error
		u.cert, u.key, err = readPair(r.TLSClientCertFile, r.TLSClientKeyFile)
		errs = append(errs, wrap("tls_client_cert_file", err))
	}
	return u, errors.Join(errs...)
}

func readPair(certFile, keyFile string) (cert, key []byte, err error) {
	if cert, err = os.ReadFile(certFile); err != nil {
		return nil, nil, err
	}
	if key, err = os.ReadFile(keyFile); err != nil {
		return nil, nil, err
	}
	_, err = tls.X509KeyPair(cert, key)
	return cert, key, err
}

// name is readable, and unique to the upstream: scheme, host and port, and a hash when there is more to it.
func (u upstream) name() string {
	hostPort := net.JoinHostPort(u.host, strconv.Itoa(u.port))
	if !u.tls {
		return "http://" + hostPort
	}
	if u.serverName == u.host && !u.http1 && !u.skipVerify && u.ca == nil && u.cert == nil {
		return "https://" + hostPort
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(u.serverName), u.ca, u.cert, u.key} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	fmt.Fprint(h, u.http1, u.skipVerify)
	return "https://" + hostPort + "#" + hex.EncodeToString(h.Sum(nil)[:6])
}

// hostHeader is the upstream's own name as a Host header has it: with the port when it is not the scheme's.
func (u upstream) hostHeader() string {
	if u.tls && u.port == 443 || !u.tls && u.port == 80 {
		if strings.Contains(u.host, ":") {
			return "[" + u.host + "]"
		}
		return u.host
	}
	return net.JoinHostPort(u.host, strconv.Itoa(u.port))
}

// addClusters adds the clusters of a route's targets. Routes with the same upstream share one.
func addClusters(out *Resources, targets []target) error {
	var errs []error
	for _, t := range targets {
		c, err := t.cluster()
		if err == nil {
			err = out.add(clusterKind, t.name(), c)
		}
		errs = append(errs, wrap(t.name(), err))
	}
	return errors.Join(errs...)
}

// cluster resolves the upstream's name and balances over what it finds. It does not wait for the first answer: while a
// cluster warms, Envoy holds back the acknowledgement of every other one.
//
// Nothing keeps an upstream from being an address on Envoy's own machine, which is useful; so Envoy's admin interface
// must stay on a Unix socket, or a route to its port would publish it.
func (u upstream) cluster() (*clusterv3.Cluster, error) {
	transport, err := u.transport()
	return &clusterv3.Cluster{
		Name: u.name(),
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.cluster.dns",
			TypedConfig: mustPack(&dnsv3.DnsCluster{
				RespectDnsTtl:   true,
				DnsLookupFamily: dnscommonv3.DnsLookupFamily_ALL,
			}),
		}},
		WaitForWarmOnInit:             wrapperspb.Bool(false),
		ConnectTimeout:                durationpb.New(connectTimeout),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(connectionBuffer),
		LoadAssignment:                u.endpoints(),
		CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
			MaxConnections:     wrapperspb.UInt32(upstreamConnections),
			MaxPendingRequests: wrapperspb.UInt32(upstreamPending),
			MaxRequests:        wrapperspb.UInt32(upstreamRequests),
			MaxRetries:         wrapperspb.UInt32(upstreamRetries),
		}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": mustPack(u.protocol()),
		},
		TransportSocket: transport,
	}, err
}

func (u upstream) endpoints() *endpointv3.ClusterLoadAssignment {
	endpoint := &endpointv3.Endpoint{
		Hostname: u.hostHeader(), // what auto_host_rewrite sends
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address:       u.host,
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(u.port)},
		}}},
	}
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: u.name(),
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: endpoint},
		}}}},
	}
}

// protocol is HTTP/1.1, or over TLS what the upstream prefers of HTTP/2 and HTTP/1.1.
func (u upstream) protocol() *httpv3.HttpProtocolOptions {
	options := &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(upstreamIdle)},
	}
	if u.tls && !u.http1 {
		options.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &httpv3.HttpProtocolOptions_AutoHttpConfig{},
		}
		return options
	}
	options.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
		ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
			ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
				HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
			},
		},
	}
	return options
}

// transport is TLS with the upstream's certificate verified, unless the route says otherwise; nil for plain HTTP.
func (u upstream) transport() (*corev3.TransportSocket, error) {
	if !u.tls {
		return nil, nil
	}
	common := new(tlsv3.CommonTlsContext)
	if !u.skipVerify {
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: u.validation()}
	}
	if u.cert != nil {
		common.TlsCertificates = []*tlsv3.TlsCertificate{keyPair(u.cert, u.key)}
	}
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: common}
	if net.ParseIP(u.serverName) == nil {
		context.Sni = u.serverName
	}
	return transportSocket(context)
}

func (u upstream) validation() *tlsv3.CertificateValidationContext {
	roots := &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: systemRoots}}
	if u.ca != nil {
		roots = inline(u.ca)
	}
	kind := tlsv3.SubjectAltNameMatcher_DNS
	if net.ParseIP(u.serverName) != nil {
		kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	return &tlsv3.CertificateValidationContext{
		TrustedCa: roots,
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
			SanType: kind,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: u.serverName}},
		}},
	}
}
