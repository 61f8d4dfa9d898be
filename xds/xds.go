// Package xds is the control plane: it turns a configuration into Envoy resources and delivers them over delta ADS.
//
// Build is pure. What varies from host to host is a small resource of its own (a route configuration, a scope, a
// certificate per host, a cluster per upstream), so that the listener never changes and a change costs what the change
// costs. Server keeps what is to be served, orders a change for each Envoy by that Envoy's own acknowledgements
// (clusters, their ACK, routes and scopes; removals in reverse) and knows for each Envoy what it accepted and what it
// rejected. The package refuses to decide who may do what: it names the route to ext_authz, and a request that ext_authz
// does not see has no upstream.
package xds

import (
	"time"

	"doorward/authz/config"
)

// Names of the static clusters in Envoy's bootstrap, and of the paths' internal headers.
const (
	ClusterXDS     = "doorward_xds"
	ClusterAuthz   = "doorward_authz"
	ClusterHTTP    = "doorward_http"
	ClusterStreams = "doorward_streams"
	ClusterACME    = "doorward_acme" // TLS as the client speaks it: tls-alpn-01 challenges
	// HeaderSNI is set by Envoy on requests to ClusterHTTP: the server name of the TLS handshake. No upstream sees it.
	HeaderSNI = "x-doorward-sni"
	// HeaderAdmin is set by Envoy on requests to ClusterHTTP that a route to the admin API takes: the route's name.
	HeaderAdmin = "x-doorward-admin"
	// HeaderClientIP is set by Envoy on every request, after the client's own has been stripped: the client's address, found by
	// trusted_hops. The source address of a Check is the peer's, which may be a proxy.
	HeaderClientIP = "x-envoy-external-address"
	// Keys of ext_authz's context_extensions.
	ContextRoute    = "route"
	ContextRevision = "revision"
	ContextBody     = "body" // how many bytes of the body are sent, or ContextBodyNone; only where the policy reads it
	ContextBodyNone = "none"
	// MetadataHeaders is the gRPC metadata of a Check that names the set of headers Envoy was told to send: HeaderSet of it.
	MetadataHeaders = "x-doorward-headers"
)

// Input is all that the resources are made of.
type Input struct {
	Config   *config.Config
	Revision func(route string) string // of a route, by name
	Body     func(route string) bool   // the policy of a route, by name, reads the bodies of requests; nil for none
	// Certificate returns the PEM chain and key for a host, exact and lower case. Without a chain and without an error the host's certificate is
	// awaited: all else of the host is built, and its handshakes fail until there is one.
	Certificate func(host string) (chain, key []byte, err error)
	Staple      func(host string) []byte // the OCSP response for that certificate, in DER; nil where there is none for any
	// Headers are the request headers that ext_authz is sent, in lower case; nil means all of them. HeaderClientIP is to be one.
	Headers []string
	// Page makes the page that a browser gets of one of Envoy's own answers; nil for none. It is part of the listeners: they are updated in place
	// when it changes.
	Page func(PageText) Page
}

// Envoy is the state of one connected Envoy.
type Envoy struct {
	Node        string               `json:"node"`
	Group       string               `json:"group"`                        // "" for none
	Via         string               `json:"via"`                          // "unix" from this machine, "mtls" from another
	Certificate time.Time            `json:"certificate_expires,omitzero"` // when a node's newest certificate ends; zero on this machine
	Version     string               `json:"version"`
	Connected   time.Time            `json:"connected"`
	Acked       map[string]time.Time `json:"acked"` // short type name (CDS, RDS, ...) -> last ACK
	Rejected    []Rejection          `json:"rejected"`
	Current     bool                 `json:"current"` // it has answered for all that is served and that it asked for, its listeners among that
}

// Rejection is a resource that an Envoy refused.
type Rejection struct {
	Type     string    `json:"type"`
	Resource string    `json:"resource"`
	Message  string    `json:"message"` // Envoy's
	Time     time.Time `json:"time"`
}
