package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"doorward/authz"
	"doorward/authz/config"
	"doorward/authz/store"
)

// keptPrefix is of the store's keys of pushed routes; the rest is the route's name, the value its YAML.
const keptPrefix = "route/"

// kept is a pushed route as it is in the store.
type kept struct {
	text    []byte
	version store.Version
	aside   string // why it is not served; "" when it is
}

// etag names the content of a route's document.
func etag(text []byte) string {
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

func readKept(ctx context.Context, s store.Store) (map[string]kept, error) {
	all := make(map[string]kept)
	for item, err := range store.All(ctx, s, keptPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read the routes that were pushed: %w", err)
		}
		all[strings.TrimPrefix(item.Key, keptPrefix)] = kept{text: item.Value, version: item.Version}
	}
	return all, nil
}

// documents are the pushed routes by name, with those that are set aside or without.
func documents(all map[string]kept, aside bool) []config.Document {
	list := make([]config.Document, 0, len(all))
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if aside || all[name].aside == "" {
			list = append(list, config.Document{Name: name, Text: all[name].text})
		}
	}
	return list
}

// load reads the files with the routes that were pushed. Those that were set aside get another chance; where they still do not fit, they stay
// aside. It is for who holds the turn.
func (p *planes) load(path string) (*config.Config, error) {
	c, err := config.Load(path, documents(p.kept, true)...)
	if err == nil {
		return c, nil
	}
	some := documents(p.kept, false)
	if len(some) == len(p.kept) {
		return nil, err
	}
	return config.Load(path, some...)
}

// fit sets those routes that were pushed aside, with the reason, which do not fit the files any more, and changes nothing else. The generation is
// that of the files alone.
func (p *planes) fit(c *config.Config, g *authz.Generation) {
	index := config.NewIndex(c)
	for _, d := range documents(p.kept, true) {
		var step *config.Step
		one, err := config.ParseDocument(d, filepath.Dir(c.Path))
		if err == nil {
			step, err = index.Check([]config.Pushed{one}, nil)
		}
		if err == nil {
			_, err = g.With(step.Put, nil) // for its policy
		}
		if p.aside(d.Name, err); err == nil {
			index.Adopt(step)
		}
	}
}

// aside notes why a pushed route is not served, nil for one that is.
func (p *planes) aside(name string, err error) {
	k := p.kept[name]
	if k.aside = ""; err != nil {
		k.aside = err.Error()
		p.log.Error("a route that was pushed does not fit the configuration and is not served", "route", name, "cause", k.aside)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[name] = k
}

// restore adds, one by one, the routes that were pushed, when they cannot be served all, and it is not known which of them do not fit: these are set
// aside, with the reason, and all others are served.
func (p *planes) restore(ctx context.Context) {
	all := documents(p.kept, true)
	p.mu.Lock()
	for _, d := range all { // one that has not had its turn must not spoil another one's
		p.kept[d.Name] = kept{text: d.Text, version: p.kept[d.Name].version, aside: "it is not served yet"}
	}
	p.mu.Unlock()
	for _, d := range all {
		one, err := config.ParseDocument(d, filepath.Dir(p.loaded.Path))
		var made *step
		if err == nil {
			made, err = p.prepareStep(ctx, []config.Pushed{one}, nil)
		}
		if p.aside(d.Name, err); err == nil {
			p.take(made)
		}
	}
}
