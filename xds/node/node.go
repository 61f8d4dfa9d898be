// Package node knows the Envoys on other machines: it certifies them, lets them in over mutual TLS, and ends what a node has open when it is
// revoked.
//
// Who a node is and which group it is of says its certificate alone, which only the CA of this package can have signed. A certificate is short-lived
// and renewed by whoever holds it, over the connection that it opens; what ends a node is its record in the store. A connection lives as long as
// the record is good: not revoked, not issued anew to another machine, and its newest certificate not ended. The package refuses everybody else
// in the TLS handshake, and what is spoken on a connection is named by ALPN, so that what a browser can make Envoy send over one protocol never
// reaches another. It decides nothing about requests.
package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// The ALPN names of what is spoken (RFC 7301). Those that begin with doorward- are HTTP/2 for gRPC, but for ProtocolRenewal, which is HTTP/1.1 and
// which no Envoy speaks, and ProtocolACME, which is what a client of Envoy's says, as it comes.
const (
	ProtocolXDS     = "doorward-xds"
	ProtocolAuthz   = "doorward-authz"
	ProtocolStreams = "doorward-streams"
	ProtocolHTTP    = "http/1.1"
	ProtocolRenewal = "doorward-renewal"
	ProtocolACME    = "doorward-acme"
)

// Peer is a node that has connected, as its certificate proves.
type Peer struct {
	Name  string
	Group string // "" for none

	generation uint64
	until      *atomic.Int64 // see Expires
}

// Expires is when the node's newest certificate ends. A renewal moves it, also for connections that are open.
func (p *Peer) Expires() time.Time { return time.Unix(0, p.until.Load()) }

// FromContext returns the node that a gRPC call or an HTTP request comes from, or nil when it comes over a Unix socket, from this machine.
func FromContext(ctx context.Context) *Peer {
	if p, ok := peer.FromContext(ctx); ok {
		if info, ok := p.AuthInfo.(authInfo); ok {
			return info.peer
		}
	}
	p, _ := ctx.Value(contextKey{}).(*Peer)
	return p
}

type contextKey struct{}

// ConnContext is for http.Server: it lets FromContext know whose a connection is.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if c, ok := c.(*conn); ok {
		return context.WithValue(ctx, contextKey{}, c.peer)
	}
	return ctx
}

// Credentials let a gRPC server take connections of a Door, whose handshake is done, and those of Unix sockets.
func Credentials() credentials.TransportCredentials { return transport{} }

type transport struct{}

type authInfo struct {
	credentials.CommonAuthInfo
	peer *Peer // nil for a Unix socket
}

func (authInfo) AuthType() string { return "doorward-node" }

func (transport) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	info := authInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	if c, ok := c.(*conn); ok {
		info.peer = c.peer
	}
	return c, info, nil
}

func (transport) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("node: these credentials are a server's")
}

func (transport) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "doorward-node"}
}

func (t transport) Clone() credentials.TransportCredentials { return t }

func (transport) OverrideServerName(string) error { return nil }

// name is what a node may be called: it goes into logs, URIs and file names.
var name = regexp.MustCompile(`^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$`)

// CheckName says why a node cannot be called so.
func CheckName(s string) error {
	if !name.MatchString(s) {
		return fmt.Errorf("%.80q is no name for a node; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen, and begins and ends with a letter or digit", s)
	}
	return nil
}

// identity is the URI in a node's certificate: doorward://node/NAME?generation=N&group=GROUP.
func identity(r Record) *url.URL {
	query := url.Values{"generation": {strconv.FormatUint(r.Generation, 10)}}
	if r.Group != "" {
		query.Set("group", r.Group)
	}
	return &url.URL{Scheme: "doorward", Host: "node", Path: "/" + r.Name, RawQuery: query.Encode()}
}

// identify reads it. The certificate's chain has been verified.
func identify(leaf *x509.Certificate) (*Peer, error) {
	if len(leaf.URIs) != 1 {
		return nil, errors.New("the certificate names no node")
	}
	u := leaf.URIs[0]
	query := u.Query()
	generation, err := strconv.ParseUint(query.Get("generation"), 10, 64)
	if err != nil || u.Scheme != "doorward" || u.Host != "node" || len(u.Path) < 2 || CheckName(u.Path[1:]) != nil {
		return nil, errors.New("the certificate names no node")
	}
	return &Peer{Name: u.Path[1:], Group: query.Get("group"), generation: generation}, nil
}
