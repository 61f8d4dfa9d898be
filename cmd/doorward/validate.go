package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"doorward/envoy"
	"doorward/xds"
)

// envoyOff is what --envoy says where no Envoy is to be asked.
const envoyOff = "off"

// envoyBinary is the Envoy that is asked about changes. It is looked for when it is first needed. Safe for concurrent use.
type envoyBinary struct {
	flag string // a path, "" for wherever envoy.Find finds one, or off
	dir  string // for what is there while it is asked, "" for the system's temporary one

	once          sync.Once
	path, version string // "" when there is none to ask
	err           error  // a named one that cannot be asked
}

// find returns the path of the binary and its version, both "" when there is none. One that was found and is not of the release that Doorward is made
// for is not asked: what it refuses says nothing. One that was named is.
func (e *envoyBinary) find(ctx context.Context) (path, version string, err error) {
	e.once.Do(func() {
		if e.flag == envoyOff {
			return
		}
		path, err := envoy.Find(e.flag)
		version := ""
		if err == nil {
			version, err = envoy.CheckVersion(context.WithoutCancel(ctx), path)
		}
		if err == nil || e.flag != "" && version != "" {
			e.path, e.version = path, version
		} else if e.flag != "" {
			e.err = err
		}
	})
	return e.path, e.version, e.err
}

// use has a directory that nobody else uses be the one for what is there while an Envoy is asked, and removes what a doorward that was killed has
// left there: private keys are in it.
func (e *envoyBinary) use(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, envoy.ValidatePrefix+"*"))
	for _, one := range left {
		err = errors.Join(err, os.RemoveAll(one))
	}
	e.dir = dir
	return err
}

// validate asks the binary about a change, if there is one.
func (e *envoyBinary) validate(ctx context.Context, change *xds.Change) error {
	path, _, err := e.find(ctx)
	if err != nil || path == "" {
		return err
	}
	return validateWithEnvoy(ctx, path, e.dir, change)
}

// maxRefused is how many refused parts are looked for: each takes some runs of Envoy.
const maxRefused = 5

// validateWithEnvoy asks an Envoy binary about a change before anything is changed. The error joins what Envoy would refuse, at most five
// parts, each with its host and route. In what is refused as a whole and nowhere by itself, all hosts are named.
func validateWithEnvoy(ctx context.Context, binary, dir string, change *xds.Change) error {
	parts, err := change.Parts()
	if err != nil || len(parts) == 0 {
		return err
	}
	t := trial{binary: binary, dir: dir}
	err = t.look(ctx, parts)
	return errors.Join(append(t.refused, err)...)
}

// trial looks for what an Envoy would refuse.
type trial struct {
	binary  string
	dir     string
	refused []error
}

// look tries parts together, and by halves when they are refused. The error is that an Envoy could not be asked.
func (t *trial) look(ctx context.Context, parts []xds.Part) error {
	if len(t.refused) == maxRefused {
		return nil
	}
	reason, err := t.try(ctx, parts)
	if err != nil || reason == nil {
		return err
	}
	before := len(t.refused)
	for _, some := range halves(parts) {
		if err := t.look(ctx, some); err != nil {
			return err
		}
	}
	if len(t.refused) == before {
		t.refused = append(t.refused, fmt.Errorf("%s: %w", listed(parts), reason))
	}
	return nil
}

// try is one run.
func (t *trial) try(ctx context.Context, parts []xds.Part) (*envoy.Refusal, error) {
	resources, err := xds.Static(parts)
	if err != nil {
		return nil, err
	}
	bootstrap, err := envoy.StaticBootstrap(resources)
	if err != nil {
		return nil, err
	}
	err = envoy.Validate(ctx, t.binary, t.dir, bootstrap)
	var reason *envoy.Refusal
	if errors.As(err, &reason) {
		return reason, nil
	}
	return nil, err
}

// halves divides parts; a single one into its routes, if it has several.
func halves(parts []xds.Part) [][]xds.Part {
	if len(parts) == 1 {
		if parts = parts[0].Split(); len(parts) < 2 {
			return nil
		}
	}
	return slices.Collect(slices.Chunk(parts, (len(parts)+1)/2))
}

// listed names a few parts.
func listed(parts []xds.Part) string {
	const few = 3
	var names []string
	for _, p := range parts[:min(few, len(parts))] {
		names = append(names, p.String())
	}
	if more := len(parts) - few; more > 0 {
		names = append(names, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(names, "; ")
}
