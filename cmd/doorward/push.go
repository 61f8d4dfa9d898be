package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"doorward/authz/config"
	"doorward/authz/store"
	"doorward/xds"
)

// push is a change of the routes that come over the admin API: all of it is made, or nothing.
type push struct {
	Put    []routeDocument
	Delete []string
	Prune  bool              // delete every pushed route that Put does not have
	Expect map[string]string // name -> ETag that the pushed route must have now, "" for one that must not exist
	DryRun bool              // change nothing, and say what would be changed

	Validate bool // in Envoy's own words too, where its binary is at hand, before anything is changed
}

// manyChanges is how many changes at once take memory that is worth giving back.
const manyChanges = 500

// routeDocument is a file of routes, as in routes_dir, or with Name one route, as an item of such a file's list. JSON is YAML too.
type routeDocument struct {
	File string // for messages
	Dir  string // that relative paths start at; the configuration's when empty
	Name string
	Text []byte
}

// pushResult is what became of a push that was taken.
type pushResult struct {
	Changes []routeChange // by name
	// Answers waits until every Envoy has answered, or ctx ends, and tells what each said. nil after a dry run.
	Answers func(ctx context.Context) []xds.Answer
}

// routeChange is what a push does to one route.
type routeChange struct {
	Name   string `json:"name"`
	Action string `json:"action"` // create, update, delete or unchanged
	Before string `json:"before,omitempty"`
	After  string `json:"after,omitempty"` // YAML of the route
	ETag   string `json:"etag,omitempty"`  // of After
}

// The actions of a routeChange.
const (
	actionCreate    = "create"
	actionUpdate    = "update"
	actionDelete    = "delete"
	actionUnchanged = "unchanged"
)

// conflict says that a pushed route is not as the caller expected.
type conflict struct {
	Name string
	ETag string // what it has now; "" when it does not exist
}

func (c *conflict) Error() string {
	if c.ETag == "" {
		return fmt.Sprintf("there is no pushed route %q any more: read it again", c.Name)
	}
	return fmt.Sprintf("route %q is another one by now (its ETag is %q): read it again", c.Name, c.ETag)
}

// fixedRoute says that a route is none of those that are pushed.
type fixedRoute struct {
	Name   string
	Source string // where it stands
}

func (f *fixedRoute) Error() string {
	return fmt.Sprintf("route %q stands in %s; change it there", f.Name, f.Source)
}

// errNotKept says that a change was good and could not be written down.
var errNotKept = errors.New("keep the routes")

// errNoSuchRoute says that a route to be deleted is not among the pushed ones.
var errNoSuchRoute = errors.New("there is no such pushed route")

// push makes a change of the pushed routes: validated as a whole, kept in the store, adopted by authz, and on its way to the Envoys when it
// returns. The error is a config.Problems for bad documents, a *conflict, a *fixedRoute, or wraps errNoSuchRoute or errNotKept. Safe for concurrent use.
func (p *planes) push(ctx context.Context, change push) (*pushResult, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	put, err := p.parse(change.Put)
	if err != nil {
		return nil, err
	}
	remove, err := p.removals(change, put)
	if err != nil {
		return nil, err
	}
	result := &pushResult{Changes: p.compare(put, remove)}
	put = p.news(put)
	made, err := p.prepareStep(ctx, put, remove)
	if err != nil {
		return nil, err
	}
	if change.Validate {
		if err := p.envoy.validate(ctx, p.builder.News(made.resources)); err != nil {
			made.discard()
			return nil, err
		}
	}
	if change.DryRun {
		made.discard()
		return result, nil
	}
	if made.whole != nil {
		err = p.ring.Adopt(ctx, keySettings(made.whole))
	}
	if err == nil {
		// Who asked may go away meanwhile; what is known of the store must be what is in it.
		err = p.keep(context.WithoutCancel(ctx), put, remove)
	}
	if err != nil {
		made.discard()
		return nil, err
	}
	result.Answers = p.take(made).Wait
	if len(result.Changes) > manyChanges {
		giveBack()
	}
	return result, nil
}

// news are the routes that are not served as they are already, and all of a name that comes more than once, which Check refuses.
func (p *planes) news(put []config.Pushed) []config.Pushed {
	times := make(map[string]int, len(put))
	for _, one := range put {
		times[one.Route.Name]++
	}
	return slices.DeleteFunc(put, func(one config.Pushed) bool {
		k, ok := p.kept[one.Route.Name]
		return ok && k.aside == "" && bytes.Equal(k.text, one.Text) && times[one.Route.Name] == 1
	})
}

// parse reads the documents.
func (p *planes) parse(documents []routeDocument) ([]config.Pushed, error) {
	var all []config.Pushed
	var problems config.Problems
	for _, d := range documents {
		some, err := d.parse(cmp.Or(d.Dir, filepath.Dir(p.loaded.Path)))
		var found config.Problems
		if errors.As(err, &found) {
			problems = append(problems, found...)
		} else if err != nil {
			return nil, err
		}
		all = append(all, some...)
	}
	if problems != nil {
		return nil, problems
	}
	return all, nil
}

func (d routeDocument) parse(dir string) ([]config.Pushed, error) {
	if d.Name == "" {
		return config.ParsePushed(d.File, d.Text, dir)
	}
	one, err := config.ParseDocument(config.Document{Name: d.Name, Text: d.Text}, dir)
	return []config.Pushed{one}, err
}

// removals are the pushed routes that are to go, and checks what is expected of those that are there.
func (p *planes) removals(change push, put []config.Pushed) ([]string, error) {
	for _, name := range slices.Sorted(maps.Keys(change.Expect)) {
		have := ""
		if k, ok := p.kept[name]; ok {
			have = etag(k.text)
		}
		if have != change.Expect[name] {
			return nil, &conflict{name, have}
		}
	}
	remove := make(map[string]bool)
	for _, name := range change.Delete {
		if _, ok := p.kept[name]; ok {
			remove[name] = true
		} else if r, ok := p.index.Route(name); ok {
			return nil, &fixedRoute{name, r.Source.String()}
		} else {
			return nil, fmt.Errorf("%w: %q", errNoSuchRoute, name)
		}
	}
	if change.Prune {
		for name := range p.kept {
			remove[name] = true
		}
	}
	for _, one := range put {
		delete(remove, one.Route.Name)
	}
	return slices.Sorted(maps.Keys(remove)), nil
}

// compare says what a change does to each route that it names.
func (p *planes) compare(put []config.Pushed, remove []string) []routeChange {
	changes := make(map[string]routeChange)
	for _, one := range put {
		c := routeChange{Name: one.Route.Name, Action: actionCreate, After: string(one.Text), ETag: etag(one.Text)}
		if k, ok := p.kept[c.Name]; ok {
			c.Before, c.Action = string(k.text), actionUpdate
			if c.Before == c.After {
				c.Action = actionUnchanged
			}
		}
		changes[c.Name] = c
	}
	for _, name := range remove {
		changes[name] = routeChange{Name: name, Action: actionDelete, Before: string(p.kept[name].text)}
	}
	list := make([]routeChange, 0, len(changes))
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		list = append(list, changes[name])
	}
	return list
}

// step is a change of routes that is good for both planes.
type step struct {
	*change                // of the whole configuration, or with generation, headers and resources alone
	whole   *config.Config // nil when the routes can be changed by themselves
	routes  *config.Step
}

// prepareStep checks and builds a change of routes, in proportion to it where that is possible, and changes nothing. It is for who holds the turn.
func (p *planes) prepareStep(ctx context.Context, put []config.Pushed, remove []string) (*step, error) {
	served := slices.DeleteFunc(slices.Clone(remove), func(name string) bool { return p.kept[name].aside != "" })
	routes, err := p.index.Check(put, served)
	if err != nil {
		return nil, err
	}
	if routes.Whole || slices.ContainsFunc(routes.Put, func(r config.Route) bool { return len(r.IdentityHeaders) > 0 }) {
		return p.prepareWhole(ctx, put, remove)
	}
	generation, err := p.authz.Current().With(routes.Put, routes.Remove)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(routes.Put))
	for i, r := range routes.Put {
		names[i] = r.Name
	}
	headers := together(p.headers, generation.HeadersOf(names))
	generation.Sending(xds.HeaderSet(headers), headers)
	resources, err := p.builder.Update(xds.Input{
		Config: p.loaded, Revision: generation.Revision, Body: generation.Body,
		Certificate: p.certificates.Certificate, Staple: p.certificates.Staple, Headers: headers,
	}, routes.Hosts)
	if err != nil {
		return nil, err
	}
	return &step{change: &change{generation: generation, headers: headers, resources: resources}, routes: routes}, nil
}

// prepareWhole does so for a change that the whole configuration has to be loaded with.
func (p *planes) prepareWhole(ctx context.Context, put []config.Pushed, remove []string) (*step, error) {
	all := maps.Clone(p.kept)
	for _, name := range remove {
		delete(all, name)
	}
	for _, one := range put {
		all[one.Route.Name] = kept{text: one.Text}
	}
	c, err := config.Load(p.loaded.Path, documents(all, false)...)
	if err != nil {
		return nil, err
	}
	used, err := p.bundles.of(ctx, c)
	if err != nil {
		return nil, err
	}
	made, err := p.prepare(ctx, c, used)
	if err != nil {
		return nil, err
	}
	return &step{change: made, whole: c}, nil
}

// take makes a step the one that decides and is served.
func (p *planes) take(s *step) *xds.Delivery {
	if s.whole != nil {
		p.install(s.whole, s.change)
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.delivery
	}
	p.authz.Adopt(s.generation)
	p.builder.Adopt(s.resources)
	p.mu.Lock()
	p.index.Adopt(s.routes)
	p.headers = s.headers
	p.mu.Unlock()
	p.awaitCertificates(s.routes.Hosts)
	return p.xds.Install(s.resources)
}

// keep writes a change into the store, and remembers it.
func (p *planes) keep(ctx context.Context, put []config.Pushed, remove []string) error {
	var ops []store.Op
	for _, one := range put {
		ops = append(ops, store.Op{Key: keptPrefix + one.Route.Name, Value: one.Text, Expect: p.kept[one.Route.Name].version})
	}
	for _, name := range remove {
		ops = append(ops, store.Op{Key: keptPrefix + name, Expect: p.kept[name].version})
	}
	if len(ops) == 0 {
		return nil
	}
	version, err := p.store.Apply(ctx, ops...)
	if err != nil {
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, one := range put {
		p.kept[one.Route.Name] = kept{text: one.Text, version: version}
	}
	for _, name := range remove {
		delete(p.kept, name)
	}
	return nil
}
