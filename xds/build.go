package xds

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"doorward/authz/config"
)

// The owners of resources that are no host's, which no host can be called.
const (
	edgeOwner     = "doorward/edge"
	authzOwner    = "doorward/authz"
	redirectOwner = httpRoutes
)

// Build makes the resources of a configuration. The error joins every problem, each naming its route or host. It reads
// the files that routes name, and is otherwise pure.
func Build(in Input) (*Change, error) { return new(Builder).Build(in) }

// Builder builds as Build does, and keeps what was made for each host: the next build makes anew only what belongs to a host
// that changed. The zero value is ready; it is safe for concurrent use, one build at a time.
type Builder struct {
	mu    sync.Mutex
	sites map[string]*built // by host, of what was adopted last
	ports map[string]uint32 // by host, of those that are not at the usual port

	headers string // the set that ext_authz is sent, by name
}

// built is what was made of one host, and out of what.
type built struct {
	from siteInput
	made *Resources
}

// Build is the function Build.
func (b *Builder) Build(in Input) (*Change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	edge, authz := new(Resources), new(Resources)
	out := &Change{parts: map[string]*Resources{edgeOwner: edge, authzOwner: authz}, whole: true}
	all := sitesOf(in.Config)
	errs := []error{addListeners(edge, in, wildcardsOf(all)), addAuthz(authz, in.Headers), addClients(edge, in.Config), addInstead(edge, in.Config, all)}
	all = gather(in.Config, all)
	kept, ports := make(map[string]*built, len(all)), make(map[string]uint32)
	out.built, out.ports = kept, ports
	for _, s := range all {
		one, err := b.build(in, s)
		errs = append(errs, err)
		if err == nil {
			kept[s.host], out.parts[s.host] = one, one.made
			for _, host := range append([]site{s}, s.below...) {
				notePort(ports, in.Config, host)
			}
		}
	}
	if in.Config.Listen.HTTP != "" {
		plain := new(Resources)
		errs = append(errs, plain.add(routeKind, httpRoutes, redirects(in.Config, ports)))
		out.parts[redirectOwner] = plain
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	out.headers = HeaderSet(in.Headers)
	return out, nil
}

// Adopt notes that a change was made a part of what is served: what is built next is built upon it.
func (b *Builder) Adopt(c *Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ports, b.headers = c.ports, c.headers; c.whole {
		b.sites = maps.Clone(c.built)
		return
	}
	for host := range c.parts {
		if c.built[host] == nil {
			delete(b.sites, host)
		} else {
			b.sites[host] = c.built[host]
		}
	}
}

// Update makes the resources of some hosts anew, in proportion to these alone: routes has all routes of each, none for a host that is gone. The
// edge is that of the change that was adopted last. The errors are those of Build.
func (b *Builder) Update(in Input, routes map[string][]config.Route) (*Change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	made, ports := make(map[string]*built, len(routes)), maps.Clone(b.ports)
	out := &Change{parts: make(map[string]*Resources, len(routes)), built: made, ports: ports, headers: HeaderSet(in.Headers)}
	var errs []error
	if HeaderSet(in.Headers) != b.headers {
		out.parts[authzOwner] = new(Resources)
		errs = append(errs, addAuthz(out.parts[authzOwner], in.Headers))
	}
	for host, of := range routes {
		delete(ports, host)
		s, ok := siteOf(in.Config, host, of)
		if !ok {
			out.parts[host] = nil
			continue
		}
		one, err := b.build(in, s)
		errs = append(errs, err)
		if err == nil {
			made[host], out.parts[host] = one, one.made
			notePort(ports, in.Config, s)
		}
	}
	if in.Config.Listen.HTTP != "" && !maps.Equal(ports, b.ports) {
		plain := new(Resources)
		errs = append(errs, plain.add(routeKind, httpRoutes, redirects(in.Config, ports)))
		out.parts[redirectOwner] = plain
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// notePort notes the public port of a host where it is not the usual one.
func notePort(ports map[string]uint32, c *config.Config, s site) {
	if port := publicPort(s.origin); port != usualPort(c) {
		ports[s.host] = port
	}
}

func (b *Builder) build(in Input, s site) (*built, error) {
	from, err := inputOf(in, s)
	if err == nil {
		if last, ok := b.sites[s.host]; ok && reflect.DeepEqual(last.from, from) {
			return last, nil
		}
		var made *Resources
		if made, err = from.build(); err == nil {
			return &built{from, made}, nil
		}
	}
	return nil, fmt.Errorf("host %q: %w", s.host, err)
}

// News is what of a change the builder did not make before: its resources have not been adopted as they are. The edge's count as new.
func (b *Builder) News(c *Change) *Change {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &Change{parts: make(map[string]*Resources)}
	for owner, part := range c.parts {
		if last := b.sites[owner]; last == nil || last.made != part {
			out.parts[owner] = part
		}
	}
	return out
}

// Hosts are the hosts of the change, sorted.
func (c *Change) Hosts() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.parts)), func(owner string) bool { return strings.Contains(owner, "/") })
}
