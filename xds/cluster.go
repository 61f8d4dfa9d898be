package xds

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
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
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const (
	connectTimeout = 5 * time.Second
	upstreamIdle   = 5 * time.Minute
)

// upstream is what makes one cluster differ from another.
type upstream struct {
	scheme     string // http, https, h2c or tcp
	endpoints  []endpoint
	http1      bool // no HTTP/2 even over TLS: a WebSocket could not be opened with many servers
	skipVerify bool
	ca         []byte // PEM; the system's roots when nil
	cert, key  []byte // PEM; of the client
	care       care
	mirror     bool // it gets copies
}

// endpoint is one address of an upstream.
type endpoint struct {
	Host       string
	Port       int
	ServerName string // of TLS: SNI, and the name that the certificate must bear; "" without TLS
	Weight     uint32 // share of the upstream's requests
}

// care is how an upstream is looked after. The zero value is as nobody says.
type care struct {
	Health    *config.HealthCheck
	AskedAs   string // Host of a health check, "" for the endpoint's own name
	Outlier   *config.OutlierDetection
	Breaker   *config.CircuitBreaker
	Balancing string
	Retries   bool // requests are sent again
}

// target is one of a route's upstreams with its share of the requests.
type target struct {
	upstream
	weight uint32
}

// destination is where the requests of a route go.
type destination struct {
	targets []target
	mirrors []upstream // in the order of the route's
}

// destinationOf reads what a route says about its upstreams, and the files that it names.
func destinationOf(r config.Route) (destination, error) {
	if r.Admin() {
		return destination{}, nil
	}
	base, err := upstreamOf(r)
	var out destination
	for _, t := range r.To {
		u := base
		u.endpoints = []endpoint{endpointOf(t.URL, r.TLSServerName)}
		out.targets = append(out.targets, target{u, t.Weight})
	}
	if r.Cared() {
		out.targets = together(out.targets)
	}
	for _, m := range r.Mirror {
		out.mirrors = append(out.mirrors, mirrorOf(base, m))
	}
	return out, err
}

// together makes of several targets one with several endpoints.
func together(all []target) []target {
	if len(all) < 2 {
		return all
	}
	one := target{all[0].upstream, 1}
	one.endpoints = nil
	for _, t := range all {
		e := t.endpoints[0]
		e.Weight = t.weight
		one.endpoints = append(one.endpoints, e)
	}
	return []target{one}
}

// endpointOf is the address of one upstream.
func endpointOf(u config.UpstreamURL, serverName string) endpoint {
	e := endpoint{Host: u.Hostname(), Port: u.Port(), Weight: 1}
	if u.Scheme() == "https" {
		e.ServerName = cmp.Or(serverName, e.Host)
	}
	return e
}

// upstreamOf is what a route's targets have in common.
func upstreamOf(r config.Route) (upstream, error) {
	if len(r.To) == 0 {
		return upstream{}, nil
	}
	u := upstream{scheme: r.To[0].URL.Scheme(), care: careOf(r)}
	if u.scheme != "https" {
		return u, nil
	}
	u.http1 = r.AllowWebsockets
	u.skipVerify = r.TLSSkipVerify
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

func careOf(r config.Route) care {
	out := care{Health: r.HealthCheck, Outlier: r.OutlierDetection, Breaker: r.CircuitBreaker, Balancing: r.LoadBalancing, Retries: r.Retry != nil}
	if r.HealthCheck != nil {
		out.AskedAs = literalHost(r)
	}
	return out
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

// name is readable, and unique to the upstream: scheme, host and port of the first endpoint, how many others there are, and a hash when there is
// more to it.
func (u upstream) name() string {
	first := u.endpoints[0]
	name := u.scheme + "://" + first.hostPort()
	if u.mirror {
		name = "mirror:" + name
	}
	cared := len(u.endpoints) > 1 || u.care != care{}
	if !cared && (u.scheme != "https" || first.ServerName == first.Host && !u.http1 && !u.skipVerify && u.ca == nil && u.cert == nil) {
		return name
	}
	h := sha256.New()
	for _, part := range [][]byte{[]byte(first.ServerName), u.ca, u.cert, u.key} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	fmt.Fprint(h, u.http1, u.skipVerify)
	if cared {
		text, err := json.Marshal(struct {
			Endpoints []endpoint
			Care      care
		}{u.endpoints, u.care})
		if err != nil {
			panic("xds: name of an upstream: " + err.Error()) // strings and numbers always encode
		}
		h.Write(text)
	}
	if more := len(u.endpoints) - 1; more > 0 {
		name += "+" + strconv.Itoa(more)
	}
	return name + "#" + hex.EncodeToString(h.Sum(nil)[:6])
}

func (e endpoint) hostPort() string { return net.JoinHostPort(e.Host, strconv.Itoa(e.Port)) }

// hostHeader is the endpoint's own name as a Host header has it: with the port when it is not the scheme's.
func (e endpoint) hostHeader(scheme string) string {
	if scheme == "https" && e.Port == 443 || scheme != "https" && e.Port == 80 {
		if strings.Contains(e.Host, ":") {
			return "[" + e.Host + "]"
		}
		return e.Host
	}
	return e.hostPort()
}

// addClusters adds the clusters of a route's upstreams. Routes with the same upstream share one.
func addClusters(out *Resources, d destination) error {
	var errs []error
	add := func(u upstream) {
		c, err := u.cluster()
		if err == nil {
			err = out.add(clusterKind, u.name(), c)
		}
		errs = append(errs, wrap(u.name(), err))
	}
	for _, t := range d.targets {
		add(t.upstream)
	}
	for _, m := range d.mirrors {
		add(m)
	}
	return errors.Join(errs...)
}

// cluster resolves the upstream's names and balances over what it finds. It does not wait for the first answer: while a
// cluster warms, Envoy holds back the acknowledgement of every other one.
//
// Nothing keeps an upstream from being an address on Envoy's own machine, which is useful; so Envoy's admin interface
// must stay on a Unix socket, or a route to its port would publish it.
func (u upstream) cluster() (*clusterv3.Cluster, error) {
	transport, others, err := u.transports()
	out := &clusterv3.Cluster{
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
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(u.buffer()),
		LoadAssignment:                u.loadAssignment(),
		LbPolicy:                      u.care.lbPolicy(),
		CommonLbConfig:                u.care.commonLB(),
		HealthChecks:                  u.healthChecks(),
		OutlierDetection:              u.care.outlierDetection(),
		CircuitBreakers:               u.circuitBreakers(),
		TypedExtensionProtocolOptions: map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": mustPack(u.protocol()),
		},
		TransportSocket:        transport,
		TransportSocketMatches: others,
	}
	if ring := u.care.ring(); ring != nil {
		out.LbConfig = ring
	}
	return out, err
}

func (u upstream) loadAssignment() *endpointv3.ClusterLoadAssignment {
	all := make([]*endpointv3.LbEndpoint, 0, len(u.endpoints))
	for _, e := range u.endpoints {
		to := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: u.endpoint(e)}}
		if len(u.endpoints) > 1 {
			to.LoadBalancingWeight = wrapperspb.UInt32(e.Weight)
		}
		if e.ServerName != u.endpoints[0].ServerName {
			to.Metadata = socketMetadata(e.ServerName)
		}
		all = append(all, to)
	}
	return &endpointv3.ClusterLoadAssignment{ClusterName: u.name(), Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: all}}}
}

func (u upstream) endpoint(e endpoint) *endpointv3.Endpoint {
	out := &endpointv3.Endpoint{
		Hostname: e.hostHeader(u.scheme), // what auto_host_rewrite sends
		Address: &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
			Address:       e.Host,
			PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(e.Port)},
		}}},
	}
	if u.care.Health != nil {
		out.HealthCheckConfig = &endpointv3.Endpoint_HealthCheckConfig{Hostname: cmp.Or(u.care.AskedAs, out.Hostname)}
	}
	return out
}

// protocol is HTTP/1.1, HTTP/2 for h2c, or over TLS what the upstream prefers of the two.
func (u upstream) protocol() *httpv3.HttpProtocolOptions {
	options := &httpv3.HttpProtocolOptions{
		CommonHttpProtocolOptions: &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(upstreamIdle)},
	}
	explicit := new(httpv3.HttpProtocolOptions_ExplicitHttpConfig)
	switch {
	case u.scheme == "https" && !u.http1:
		options.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &httpv3.HttpProtocolOptions_AutoHttpConfig{},
		}
		return options
	case u.scheme == "h2c":
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
			Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
		}
	default:
		explicit.ProtocolConfig = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
			HttpProtocolOptions: &corev3.Http1ProtocolOptions{},
		}
	}
	options.UpstreamProtocolOptions = &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: explicit}
	return options
}
