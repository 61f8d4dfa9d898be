package xds

import (
	"net"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// systemRoots is read by Envoy, on Envoy's machine: Debian's and Alpine's path. Elsewhere a route names its CA file.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// socketKey is the part of an endpoint's metadata by which Envoy chooses a transport socket (Envoy, "Transport socket matches").
const socketKey = "envoy.transport_socket_match"

// transports are the transport socket of the first endpoint, and those of endpoints with another server name, so that each is verified by its own
// name. An endpoint without a match would be verified by the first one's. They are nil for plain HTTP.
func (u upstream) transports() (first *corev3.TransportSocket, others []*clusterv3.Cluster_TransportSocketMatch, err error) {
	if u.scheme != "https" {
		return nil, nil, nil
	}
	made := map[string]bool{u.endpoints[0].ServerName: true}
	if first, err = u.transport(u.endpoints[0].ServerName); err != nil {
		return nil, nil, err
	}
	for _, e := range u.endpoints[1:] {
		if made[e.ServerName] {
			continue
		}
		made[e.ServerName] = true
		socket, err := u.transport(e.ServerName)
		if err != nil {
			return nil, nil, err
		}
		others = append(others, &clusterv3.Cluster_TransportSocketMatch{Name: e.ServerName, Match: socketMatch(e.ServerName), TransportSocket: socket})
	}
	return first, others, nil
}

func socketMatch(serverName string) *structpb.Struct {
	return &structpb.Struct{Fields: map[string]*structpb.Value{"server_name": structpb.NewStringValue(serverName)}}
}

func socketMetadata(serverName string) *corev3.Metadata {
	return &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{socketKey: socketMatch(serverName)}}
}

// transport is TLS with the upstream's certificate verified, unless the route says otherwise.
func (u upstream) transport(serverName string) (*corev3.TransportSocket, error) {
	common := new(tlsv3.CommonTlsContext)
	if !u.skipVerify {
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: u.validation(serverName)}
	}
	if u.cert != nil {
		common.TlsCertificates = []*tlsv3.TlsCertificate{keyPair(u.cert, u.key)}
	}
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: common}
	if net.ParseIP(serverName) == nil {
		context.Sni = serverName
	}
	return transportSocket(context)
}

func (u upstream) validation(serverName string) *tlsv3.CertificateValidationContext {
	roots := &corev3.DataSource{Specifier: &corev3.DataSource_Filename{Filename: systemRoots}}
	if u.ca != nil {
		roots = inline(u.ca)
	}
	kind := tlsv3.SubjectAltNameMatcher_DNS
	if net.ParseIP(serverName) != nil {
		kind = tlsv3.SubjectAltNameMatcher_IP_ADDRESS
	}
	return &tlsv3.CertificateValidationContext{
		TrustedCa: roots,
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
			SanType: kind,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: serverName}},
		}},
	}
}
