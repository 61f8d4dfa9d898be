package config

import (
	"cmp"
	"maps"
	"slices"

	"go.yaml.in/yaml/v4"
)

// Index has the routes of a loaded configuration by name and by host, so that a change of a few is checked in proportion to these few. It is not
// safe for concurrent use.
type Index struct {
	config *Config
	byName map[string]*Route
	byHost map[string][]*Route // in the order in which they were loaded; pushed ones last
}

// NewIndex indexes a configuration.
func NewIndex(c *Config) *Index {
	x := &Index{c, make(map[string]*Route, len(c.Routes)), make(map[string][]*Route)}
	for i := range c.Routes {
		x.add(&c.Routes[i])
	}
	return x
}

func (x *Index) add(r *Route) {
	x.byName[r.Name] = r
	x.byHost[r.Host()] = append(x.byHost[r.Host()], r)
	slices.SortStableFunc(x.byHost[r.Host()], func(a, b *Route) int { return inOrder(*a, *b) })
}

// inOrder is how routes come after a start: those of files as they stand there, then the pushed ones by name.
func inOrder(a, b Route) int {
	switch {
	case a.IsPushed() && b.IsPushed():
		return cmp.Compare(a.Name, b.Name)
	case a.IsPushed():
		return 1
	case b.IsPushed():
		return -1
	}
	return 0
}

func (x *Index) remove(r *Route) {
	delete(x.byName, r.Name)
	left := slices.DeleteFunc(slices.Clone(x.byHost[r.Host()]), func(other *Route) bool { return other == r })
	if x.byHost[r.Host()] = left; len(left) == 0 {
		delete(x.byHost, r.Host())
	}
}

// Route returns a route by its name.
func (x *Index) Route(name string) (Route, bool) {
	if r := x.byName[name]; r != nil {
		return *r, true
	}
	return Route{}, false
}

// Len is how many routes there are, and at how many hosts, the sign-in host among them.
func (x *Index) Len() (routes, hosts int) {
	hosts = len(x.byHost)
	if auth := x.config.AuthURL; !auth.IsZero() && x.byHost[auth.Hostname()] == nil {
		hosts++
	}
	return len(x.byName), hosts
}

// Names are the routes' names, sorted.
func (x *Index) Names() []string {
	return slices.Sorted(maps.Keys(x.byName))
}

// Hosts are the hosts that have a route, and the sign-in host, sorted.
func (x *Index) Hosts() []string {
	hosts := slices.Collect(maps.Keys(x.byHost))
	if auth := x.config.AuthURL.Hostname(); auth != "" && !x.Has(auth) {
		hosts = append(hosts, auth)
	}
	slices.Sort(hosts)
	return hosts
}

// Has says whether a host has a route.
func (x *Index) Has(host string) bool { return len(x.byHost[host]) > 0 }

// Of are the routes of a host.
func (x *Index) Of(host string) []Route {
	var routes []Route
	for _, r := range x.byHost[host] {
		routes = append(routes, *r)
	}
	return routes
}

// Service says whether a host has a TCP service.
func (x *Index) Service(host string) bool {
	return slices.ContainsFunc(x.byHost[host], func(r *Route) bool { return r.TCP() })
}

// Config is the configuration with all routes that there are now.
func (x *Index) Config() *Config {
	c := *x.config
	c.Routes = make([]Route, 0, len(x.byName))
	for _, r := range x.config.Routes {
		if !r.IsPushed() {
			c.Routes = append(c.Routes, r)
		}
	}
	for _, name := range x.Names() {
		if r := x.byName[name]; r.IsPushed() {
			c.Routes = append(c.Routes, *r)
		}
	}
	return &c
}

// Origin is the origin of a host that has a route, of one that a wildcard stands for, or of the sign-in host; zero for any other.
func (x *Index) Origin(host string) URL {
	if of := x.byHost[host]; len(of) > 0 {
		return of[0].From.origin()
	}
	if host != "" && host == x.config.AuthURL.Hostname() {
		return x.config.AuthURL.origin()
	}
	if of := x.byHost[WildcardOf(host)]; len(of) > 0 {
		return of[0].From.at(host)
	}
	return URL{}
}

// Step is a change of routes that Check found good.
type Step struct {
	Put    []Route
	Remove []string
	Hosts  map[string][]Route // of each host that is touched: all its routes then, none for one that is gone
	Whole  bool               // the configuration has to be loaded anew with it: it depends on files, or changes what no single route is
}

// Check holds a change against the configuration: put in the place of routes of their names, and removal by name. The error is a Problems, in
// the order of the documents. Removing what is not there is no error. Only pushed routes may be replaced or removed.
func (x *Index) Check(put []Pushed, remove []string) (*Step, error) {
	step := &Step{Hosts: make(map[string][]Route)}
	gone := make(map[string]bool)
	var fixed Problems
	for _, name := range remove {
		if r := x.byName[name]; r != nil && !r.IsPushed() {
			fixed = append(fixed, Problem{Position: r.Source, Field: "routes[" + name + "]", Message: "stands in this file; remove it here"})
		} else if r != nil {
			gone[name] = true
			step.Remove = append(step.Remove, name)
			step.Hosts[r.Host()] = nil
		}
	}
	for _, p := range put {
		if r := x.byName[p.Route.Name]; r != nil {
			gone[r.Name] = true
			step.Hosts[r.Host()] = nil
		}
		if !p.Route.From.IsZero() {
			step.Hosts[p.Route.Host()] = nil
		}
	}
	if fixed != nil {
		return nil, fixed
	}
	check := x.checker(step, put, gone)
	x.origins(check, step, put)
	if err := check.err(); err != nil {
		return nil, err
	}
	for _, r := range check.c.Routes {
		step.Hosts[r.Host()] = append(step.Hosts[r.Host()], r)
	}
	for _, routes := range step.Hosts {
		slices.SortStableFunc(routes, inOrder)
	}
	for _, r := range check.c.Routes[len(check.c.Routes)-len(put):] {
		step.Put = append(step.Put, r)
		step.Whole = step.Whole || r.NamesFiles()
	}
	for host := range step.Hosts {
		step.Whole = step.Whole || IsWildcard(host) || x.Has(WildcardOf(host)) // it shares a filter chain with others
	}
	return step, nil
}

// checker runs the checks of routes on what the touched hosts come to.
func (x *Index) checker(step *Step, put []Pushed, gone map[string]bool) *checker {
	few := *x.config
	few.Routes = nil
	c := &checker{report: new(report), files: newFiles(), c: &few, root: x.config.root, pools: make(map[string]error), pairs: make(map[Certificate]keyPair)}
	for host := range step.Hosts {
		for _, r := range x.byHost[host] {
			if !gone[r.Name] {
				few.Routes, c.routes = append(few.Routes, *r), append(c.routes, elsewhere(r))
			}
		}
	}
	first := len(few.Routes)
	for _, p := range put {
		r := p.Route
		r.settle(x.config.AuthURL)
		if other := x.byName[r.Name]; other != nil && !other.IsPushed() {
			c.add(p.at.key("name"), "%q is the name of the route at %s; change it there, or give this one another name", r.Name, other.Source)
		}
		few.Routes, c.routes = append(few.Routes, r), append(c.routes, p.at)
	}
	c.names()
	c.matches()
	c.groups()
	c.idpRequired(c.root.key("idp"))
	for i := first; i < len(few.Routes); i++ {
		c.route(c.routes[i], &few.Routes[i])
	}
	return c
}

// elsewhere stands for a route that has been checked.
func elsewhere(r *Route) place {
	return place{
		doc: &document{file: r.Source.File}, field: "routes[" + r.Name + "]",
		node: &yaml.Node{Kind: yaml.MappingNode, Line: r.Source.Line, Column: r.Source.Column, Content: []*yaml.Node{
			{Kind: yaml.ScalarNode, Value: "name"}, {Kind: yaml.ScalarNode, Value: r.Name},
		}},
	}
}

// origins checks the hosts of a change: their ports, their certificates, and that the sign-in host is still known.
func (x *Index) origins(c *checker, step *Step, put []Pushed) {
	have := make(map[string]bool, len(step.Hosts))
	for _, r := range c.c.Routes {
		have[r.Host()] = true
	}
	hosts := len(x.byHost)
	for host := range step.Hosts {
		if had := x.Has(host); have[host] && !had {
			hosts++
		} else if had && !have[host] {
			hosts--
		}
	}
	first := make(map[string]Route)
	for i, r := range c.c.Routes {
		if r.From.IsZero() {
			continue
		}
		at := c.routes[i].key("from")
		before, seen := first[r.Host()]
		if !seen {
			first[r.Host()], before = r, r
		}
		if auth := x.config.AuthURL; !seen && !auth.IsZero() && auth.Hostname() == r.Host() && x.config.root.has("auth_url") && auth.Port() != r.From.Port() {
			c.add(at, "port %d, but auth_url has %s at port %d; one host has one port", r.From.Port(), r.Host(), auth.Port())
		}
		if before.From.Port() != r.From.Port() {
			c.add(at, "port %d, but %s is at port %d at %s; one host has one port", r.From.Port(), r.Host(), before.From.Port(), before.Source)
		}
	}
	for _, p := range put {
		c.certified(host{p.Route.Host(), p.Route.From, p.at.key("from")})
	}
	if x.config.root.has("auth_url") {
		return
	}
	switch {
	case len(put) > 0 && hosts > 1:
		c.add(put[0].at.key("from"), "there are %d hosts with it, so auth_url is required: name the one that signs in with the provider in %s, for example auth_url: %s",
			hosts, x.config.Path, put[0].Route.From.Origin())
	case slices.ContainsFunc(put, func(p Pushed) bool { return IsWildcard(p.Route.Host()) }):
		c.add(put[0].at.key("from"), "auth_url is required beside a wildcard: name the host that signs in with the provider in %s", x.config.Path)
	case hosts != len(x.byHost) || len(first) > 0 && x.config.AuthURL.IsZero():
		step.Whole = true // the only host is the sign-in host
	default:
		for host := range first {
			step.Whole = step.Whole || host != x.config.AuthURL.Hostname()
		}
	}
}

// Adopt makes a step a part of the index.
func (x *Index) Adopt(s *Step) {
	for _, name := range s.Remove {
		if r := x.byName[name]; r != nil {
			x.remove(r)
		}
	}
	for _, r := range s.Put {
		if old := x.byName[r.Name]; old != nil {
			x.remove(old)
		}
		r.Source = Position{File: sourcePushed + r.Name, Line: 1, Column: 1}
		x.add(&r)
	}
}
