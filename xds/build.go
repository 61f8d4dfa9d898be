package xds

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
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
	all := sitesOf(in.Config)
	wildcards := wildcardsOf(all)
	errs := []error{addListeners(edge, in, wildcards), addAuthz(authz, in.Headers), addClients(edge, in.Config), addInstead(edge, in.Config, wildcards)}
	all = gather(in.Config, all)
	out := &Change{
		parts: map[string]*Resources{edgeOwner: edge, authzOwner: authz}, whole: true,
		built: make(map[string]*built, len(all)), ports: make(map[string]uint32), headers: HeaderSet(in.Headers),
	}
	for _, s := range all {
		errs = append(errs, b.add(out, in, s))
	}
	errs = append(errs, addRedirects(out, in.Config))
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// add makes the resources of a site, or those that were made of the same before, a part of a change.
func (b *Builder) add(out *Change, in Input, s site) error {
	one, err := b.build(in, s)
	if err != nil {
		return err
	}
	out.built[s.host], out.parts[s.host] = one, one.made
	for _, host := range append([]site{s}, s.below...) {
		notePort(out.ports, in.Config, host)
	}
	return nil
}

// addRedirects adds the route configuration of the plain listener, if there is one.
func addRedirects(out *Change, c *config.Config) error {
	if c.Listen.HTTP == "" {
		return nil
	}
	plain := new(Resources)
	out.parts[redirectOwner] = plain
	return plain.add(routeKind, httpRoutes, redirects(c, out.ports))
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
	out := &Change{
		parts: make(map[string]*Resources, len(routes)),
		built: make(map[string]*built, len(routes)), ports: maps.Clone(b.ports), headers: HeaderSet(in.Headers),
	}
	var errs []error
	if out.headers != b.headers {
		out.parts[authzOwner] = new(Resources)
		errs = append(errs, addAuthz(out.parts[authzOwner], in.Headers))
	}
	for host, of := range routes {
		delete(out.ports, host)
		if s, ok := siteOf(in.Config, host, of); ok {
			errs = append(errs, b.add(out, in, s))
		} else {
			out.parts[host] = nil
		}
	}
	if !maps.Equal(out.ports, b.ports) {
		errs = append(errs, addRedirects(out, in.Config))
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
