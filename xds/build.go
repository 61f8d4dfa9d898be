package xds

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
)

// Build makes the resources of a configuration. The error joins every problem, each naming its route or host. It reads
// the files that routes name, and is otherwise pure.
func Build(in Input) (*Resources, error) { return new(Builder).Build(in) }

// Builder builds as Build does, and keeps what it made for each host: the next build makes anew only what belongs to a host
// that changed. The zero value is ready; it is safe for concurrent use, one build at a time.
type Builder struct {
	mu    sync.Mutex
	sites map[string]built // by host, of the last build that succeeded
}

// built is what was made of one host, and out of what.
type built struct {
	from siteInput
	made *Resources
}

// Build is the function Build.
func (b *Builder) Build(in Input) (*Resources, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	sites := sitesOf(in.Config)
	out := newResources()
	errs := []error{addListeners(out, in, sites), addAuthz(out, in.Headers)}
	kept := make(map[string]built, len(sites))
	for _, s := range sites {
		one, err := b.build(in, s)
		if err == nil {
			err = out.merge(one.made)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("host %q: %w", s.host, err))
		}
		kept[s.host] = one
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	b.sites = kept
	return out, nil
}

func (b *Builder) build(in Input, s site) (built, error) {
	from, err := inputOf(in, s)
	if err != nil {
		return built{}, err
	}
	if last, ok := b.sites[s.host]; ok && reflect.DeepEqual(last.from, from) {
		return last, nil
	}
	made, err := from.build()
	return built{from, made}, err
}
