package xds

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"sync"

	"doorward/authz/config"
)

// The owners of resources that are no host's, which no host can be called.
const (
	edgeOwner     = "doorward/edge"
	redirectOwner = httpRoutes
)

// Build makes the resources of a configuration. The error joins every problem, each naming its route or host. It reads
// the files that routes name, and is otherwise pure.
func Build(in Input) (*Change, error) { return new(Builder).Build(in) }

// Builder builds as Build does, and keeps what it made for each host: the next build makes anew only what belongs to a host
// that changed. The zero value is ready; it is safe for concurrent use, one build at a time.
type Builder struct {
	mu    sync.Mutex
	sites map[string]*built // by host, of what was built last
	ports map[string]uint32 // by host, of those that are not at the usual port
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
	edge := new(Resources)
	out := &Change{parts: map[string]*Resources{edgeOwner: edge}, whole: true}
	errs := []error{addListeners(edge, in), addAuthz(edge, in.Headers)}
	all := sitesOf(in.Config)
	kept, ports := make(map[string]*built, len(all)), make(map[string]uint32)
	for _, s := range all {
		one, err := b.build(in, s)
		errs = append(errs, err)
		if err == nil {
			kept[s.host], out.parts[s.host] = one, one.made
			notePort(ports, in.Config, s)
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
	b.sites, b.ports = kept, ports
	return out, nil
}

// Update makes the resources of some hosts anew, in proportion to these alone: routes has all routes of each, none for a host that is gone. The
// edge is that of the last Build. The errors are those of Build. A change that is not applied leaves nothing behind but what the next build of its
// hosts need not make again.
func (b *Builder) Update(in Input, routes map[string][]config.Route) (*Change, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := &Change{parts: make(map[string]*Resources, len(routes))}
	ports := maps.Clone(b.ports)
	var errs []error
	made := make(map[string]*built, len(routes))
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
	for host := range routes {
		if made[host] == nil {
			delete(b.sites, host)
		} else {
			b.sites[host] = made[host]
		}
	}
	b.ports = ports
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

// Hosts are the hosts of the change, sorted.
func (c *Change) Hosts() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(c.parts)), func(owner string) bool { return owner == edgeOwner || owner == redirectOwner })
}
