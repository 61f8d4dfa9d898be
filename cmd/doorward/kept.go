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

// load reads the files with the routes that were pushed, without those that are set aside. It is for who holds the turn.
func (p *planes) load(path string) (*config.Config, error) {
	return config.Load(path, documents(p.kept, false)...)
}

// fit notes of routes that were pushed why they do not fit a configuration, which does not have them, and of those that do that they are not set
// aside. It changes nothing else. The generation is that of the configuration.
func (p *planes) fit(c *config.Config, g *authz.Generation, all []config.Document) {
	index := config.NewIndex(c)
	for _, d := range all {
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
	before := k.aside
	if k.aside = ""; err != nil {
		k.aside = err.Error()
	}
	if k.aside != "" && k.aside != before {
		p.log.Error("a route that was pushed does not fit the configuration and is not served", "route", name, "cause", k.aside)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[name] = k
}

// takeBack gives the routes that are set aside another chance with the configuration that has just been installed. Those that fit again are served
// from now on; the others stay aside, and keep nothing else from being served.
func (p *planes) takeBack(ctx context.Context, c *config.Config) {
	without := maps.Clone(p.kept)
	maps.DeleteFunc(without, func(_ string, k kept) bool { return k.aside == "" })
	if len(without) == 0 {
		return
	}
	all := documents(without, true)
	p.fit(c, p.authz.Current(), all)
	back := slices.DeleteFunc(all, func(d config.Document) bool { return p.kept[d.Name].aside != "" })
	if len(back) == 0 {
		return
	}
	more, err := p.load(c.Path)
	var used bundleVersions
	if err == nil {
		used, err = p.bundles.of(ctx, more)
	}
	var change *change
	if err == nil {
		change, err = p.ready(ctx, more, used)
	}
	if err == nil {
		p.install(more, change)
		return
	}
	for _, d := range back {
		p.aside(d.Name, err)
	}
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
