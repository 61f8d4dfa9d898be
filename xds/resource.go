package xds

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// kind is a type of resource. Its value is the index into per-kind arrays, in the order in which a response is made when
// several are due.
type kind int

const (
	clusterKind kind = iota
	secretKind
	extensionKind
	routeKind
	scopeKind
	listenerKind
	kinds // how many
)

var kindURL = [kinds]string{
	clusterKind:   resourcev3.ClusterType,
	secretKind:    resourcev3.SecretType,
	extensionKind: resourcev3.ExtensionConfigType,
	routeKind:     resourcev3.RouteType,
	scopeKind:     resourcev3.ScopedRouteType,
	listenerKind:  resourcev3.ListenerType,
}

var kindName = [kinds]string{
	clusterKind:   "CDS",
	secretKind:    "SDS",
	extensionKind: "ECDS",
	routeKind:     "RDS",
	scopeKind:     "SRDS",
	listenerKind:  "LDS",
}

// String is the short name: CDS, RDS, ...
func (k kind) String() string { return kindName[k] }

// Kinds are the short names of the types of resources, in the order in which a change is sent.
func Kinds() []string { return kindName[:] }

// kindOf finds the kind of a type URL.
func kindOf(url string) (kind, bool) {
	for k, u := range kindURL {
		if u == url {
			return kind(k), true
		}
	}
	return 0, false
}

// wildcard says that an Envoy wants every resource of the kind without naming them.
func (k kind) wildcard() bool { return k == clusterKind || k == scopeKind || k == listenerKind }

// resource is one resource as it is sent. Immutable.
type resource struct {
	name    string
	version string // hash of body
	body    *anypb.Any
	groups  []string   // of Envoys that may see it, sorted; none for all. What it says of a cluster is its owner's word alone
	part    *Resources // that it belongs to; nil when only the version is known
}

// clusters are those that a host's routes need: all of its part, in which they are the only routes.
func (r *resource) clusters() map[string]*resource {
	if r == nil || r.part == nil || len(r.part.set[routeKind]) != 1 {
		return nil
	}
	return r.part.set[clusterKind]
}

// unknown says that nothing is known of a resource but its version: the Envoy has it from an earlier stream.
func (r *resource) unknown() bool { return r != nil && r.body == nil }

// hash is the version; "" of none.
func (r *resource) hash() string {
	if r == nil {
		return ""
	}
	return r.version
}

// validated is a message with generated checks of its fields.
type validated interface {
	proto.Message
	ValidateAll() error
}

// newResource encodes a message. The error is that of Envoy's own field rules.
func newResource(name string, m validated) (*resource, error) {
	body, err := pack(m)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body.Value)
	return &resource{name: name, version: hex.EncodeToString(sum[:8]), body: body}, nil
}

// pack puts a message into an Any, in the same bytes each time.
func pack(m validated) (*anypb.Any, error) {
	if err := m.ValidateAll(); err != nil {
		return nil, err
	}
	body := new(anypb.Any)
	if err := anypb.MarshalFrom(body, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return body, nil
}

// mustPack is pack for messages that hold nothing but what this package wrote into them.
func mustPack(m validated) *anypb.Any {
	body, err := pack(m)
	if err != nil {
		panic("xds: " + err.Error())
	}
	return body
}

// Resources are what one owner of a configuration comes to: a host, or the edge. Immutable once built.
type Resources struct {
	set    [kinds]map[string]*resource // nil where there is none
	groups []string                    // of Envoys that may see them, sorted; none for all

	// instead are, by name, what an Envoy gets in the place of routes that it cannot have: those that a filter chain of its own waits for.
	instead map[string]*resource
}

// add encodes m under name. Two different resources of one name are a fault of the configuration.
func (r *Resources) add(k kind, name string, m validated) error {
	res, err := newResource(name, m)
	if err != nil {
		return err
	}
	if old, ok := r.set[k][name]; ok && old.version != res.version {
		return fmt.Errorf("two different %s resources are named %q", k, name)
	}
	if r.set[k] == nil {
		r.set[k] = make(map[string]*resource)
	}
	res.part = r
	r.set[k][name] = res
	return nil
}

// Change is what a change of the configuration comes to: the resources of its owners. Immutable once built.
type Change struct {
	parts map[string]*Resources // by owner; nil for one that is gone
	whole bool                  // every owner that is not named is gone

	// What Builder.Adopt keeps.
	built   map[string]*built
	ports   map[string]uint32
	headers string
}
