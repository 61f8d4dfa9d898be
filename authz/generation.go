package authz

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"doorward/authz/bearer"
	"doorward/authz/config"
	"doorward/authz/policy"
	"doorward/authz/session"
)

// keepRevisions bounds how many old revisions of one route are kept for Envoys that have not acknowledged their successor.
const keepRevisions = 8

// Generation is everything that decisions are made by. It is immutable, except that Adopt and Settle derive the next one from it.
type Generation struct {
	routes   *table // the current revisions
	retired  map[string][]*route
	sets     map[string]headerSet // that Envoy may say it sends, by their names
	policies *policy.Set
	edge     *edge
	replaced []*route // of a generation that With made: what it does not have any more
	derived  bool     // made by With
}

// route is one revision of a route with its policy and the settings that it was built with.
type route struct {
	config.Route
	revision string
	host     string
	wild     bool   // host is a wildcard
	scope    string // of a TCP service: the host for which the credential is issued that counts; "" for the request's
	policy   *policy.Policy
	input    policy.Route
	reads    headerSet
	body     bool // the policy reads the request's body
	asks     bool // the policy, or the shadow policy, reads what only Envoy's whole question has
	edge     *edge
	digest   string // of the policy, shortened
	faults   *gate
	tally    *tally // shared by all revisions of the route
	heavy    *gate
	plain    []plainHeader // identity headers beside the JWT
	token    string        // names all of this that a prepared token depends on: the revision, and the JWT's header, which is no part of it
	demand   session.Demand
	bearer   *bearer.Allowed // nil when the route takes no bearer tokens
	cors     *cors           // nil when other origins' pages are no concern of Doorward's
	shadow   *route          // the same with the shadow policy in the policy's place; nil without one
}

// edge is what all routes of one configuration share.
type edge struct {
	header  string // of the identity JWT, lower case
	prefix  string // of our own paths
	proxied bool   // there are trusted proxies in front of Envoy

	budget int // bytes of a JWT beyond which it is warned of

	issuers map[string]string // of the providers, by their names; nil when there is none
}

// Build makes the generation of a configuration and its compiled policies. The error joins every route's problem.
func Build(c *config.Config, policies *policy.Set) (*Generation, error) {
	shared := &edge{header: lower(c.JWT.Header), prefix: c.Paths.Prefix, proxied: c.Edge.TrustedHops > 0, budget: int(c.JWT.SizeBudget), issuers: issuers(c.IDP)}
	made, err := newRoutes(c.Routes, policies, shared)
	if err != nil {
		return nil, err
	}
	return &Generation{routes: new(table).with(made), sets: map[string]headerSet{"": nil}, policies: policies, edge: shared}, nil
}

// With derives the generation in which some routes take the place of those of their names and others are gone, in proportion to these alone.
// Policies and edge are those of g, which is to be the one adopted last. The error joins every route's problem.
func (g *Generation) With(put []config.Route, remove []string) (*Generation, error) {
	made, err := newRoutes(put, g.policies, g.edge)
	if err != nil {
		return nil, err
	}
	for _, name := range remove {
		made[name] = nil
	}
	next := &Generation{sets: maps.Clone(g.sets), policies: g.policies, edge: g.edge, derived: true}
	for name, r := range made {
		before := g.routes.find(name)
		if before == nil {
			continue
		}
		next.replaced = append(next.replaced, before)
		if r != nil {
			r.tally = before.tally
		}
	}
	next.routes = g.routes.with(made)
	return next, nil
}

// newRoutes makes the routes, by name.
func newRoutes(routes []config.Route, policies *policy.Set, shared *edge) (map[string]*route, error) {
	out := make(map[string]*route, len(routes))
	var errs []error
	for _, r := range routes {
		made, err := newRoute(r, policies, shared)
		errs = append(errs, err)
		out[r.Name] = made
	}
	return out, errors.Join(errs...)
}

func newRoute(r config.Route, policies *policy.Set, shared *edge) (*route, error) {
	p, err := policies.Policy(r.Policy)
	if err != nil {
		return nil, fmt.Errorf("%s:%d: routes[%s].policy: %w", r.Source.File, r.Source.Line, r.Name, err)
	}
	revision := r.Revision(p.Digest())
	made := &route{
		Route:    r,
		revision: revision,
		host:     r.Host(),
		wild:     config.IsWildcard(r.Host()),
		policy:   p,
		input:    policy.Route{Name: r.Name, Host: r.Host(), Labels: r.Labels, Revision: revision},
		reads:    read(p),
		body:     p.Reads().Body,
		asks:     asks(p),
		edge:     shared,
		digest:   shortDigest(p),
		faults:   new(gate),
		tally:    new(tally),
		heavy:    new(gate),
		plain:    plainHeaders(r),
		token:    revision + " " + shared.header,
		demand:   session.Demand{Providers: r.IDP, MaxAge: time.Duration(r.MaxAge), ACR: r.ACRValues},
	}
	if r.TCP() {
		made.scope = session.ForService(made.host)
	}
	if r.Bearer != nil {
		made.bearer = &bearer.Allowed{Route: r.Name, ServiceTokens: r.Bearer.ServiceTokens, Issuers: r.Bearer.Issuers}
		made.reads.add(headerAuthorization)
	}
	if r.CORS != nil {
		made.cors = newCORS(r.CORS)
		made.reads.add(headerOrigin, headerRequestMethod)
	}
	if r.ShadowPolicy == "" {
		return made, nil
	}
	if p, err = policies.Policy(r.ShadowPolicy); err != nil {
		return nil, fmt.Errorf("%s:%d: routes[%s].shadow_policy: %w", r.Source.File, r.Source.Line, r.Name, err)
	}
	shadow := *made
	shadow.Policy, shadow.policy, shadow.reads, shadow.body = r.ShadowPolicy, p, read(p), p.Reads().Body
	shadow.digest = shortDigest(p)
	made.shadow = &shadow
	made.asks = made.asks || asks(p)
	return made, nil
}

func issuers(idps config.IDPs) map[string]string {
	if len(idps) == 0 {
		return nil
	}
	all := make(map[string]string, len(idps))
	for _, idp := range idps {
		all[idp.Name] = idp.Issuer.String()
	}
	return all
}

// serves says whether the route is one of a host.
func (r *route) serves(host string) bool {
	if r.wild {
		return config.WildcardOf(host) == r.host
	}
	return host == r.host
}

// unmet says what a session lacks for the route; "" when it is good. A session of a provider that is no longer configured is good for
// nothing. Which bearer tokens a route takes says its key bearer, not idp.
func (r *route) unmet(s *session.Session, now time.Time, token bool) string {
	if token {
		demand := r.demand
		demand.Providers = nil
		return demand.Unmet(s, now)
	}
	if r.edge.issuers != nil && r.edge.issuers[s.Provider] != s.Issuer {
		return "the session's provider is no longer configured"
	}
	return r.demand.Unmet(s, now)
}

func asks(p *policy.Policy) bool { return len(p.Reads().Plugin) > 0 || p.Reads().Certificate }

// Body says whether Envoy has to send the bodies of a route's requests: its policy or its shadow policy reads them.
func (g *Generation) Body(name string) bool {
	r := g.routes.find(name)
	return r != nil && (r.body || r.shadow != nil && r.shadow.body)
}

// Revision returns the current revision of a route, or "" for a name that there is not.
func (g *Generation) Revision(name string) string {
	if r := g.routes.find(name); r != nil {
		return r.revision
	}
	return ""
}

// find returns the named revision of a route, or nil.
func (g *Generation) find(name, revision string) *route {
	if r := g.routes.find(name); r != nil && r.revision == revision {
		return r
	}
	for _, r := range g.retired[name] {
		if r.revision == revision {
			return r
		}
	}
	return nil
}

// after returns g with the revisions of old that it does not have itself, newest first.
func (g *Generation) after(old *Generation) *Generation {
	next := *g
	next.sets, next.retired, next.replaced = maps.Clone(old.sets), make(map[string][]*route, len(old.retired)), nil
	if next.sets == nil {
		next.sets = make(map[string]headerSet)
	}
	maps.Copy(next.sets, g.sets)
	keep := func(r *route) {
		if next.find(r.Name, r.revision) == nil {
			next.retired[r.Name] = append(next.retired[r.Name], r)
		}
	}
	if g.derived {
		for _, r := range g.replaced {
			keep(r)
		}
	} else if old.routes != nil {
		g.keepTallies(old)
		for r := range old.routes.all() {
			keep(r)
		}
	}
	for _, kept := range old.retired {
		for _, r := range kept {
			keep(r)
		}
	}
	for name, kept := range next.retired {
		next.retired[name] = bounded(kept)
	}
	return &next
}

// bounded are the oldest and the newest of a route's retired revisions. The oldest is what an Envoy that refuses all later ones goes on with, and the
// newest what one that is slow is about to leave.
func bounded(kept []*route) []*route {
	if len(kept) <= keepRevisions {
		return kept
	}
	return slices.Delete(kept, keepRevisions/2, keepRevisions/2+len(kept)-keepRevisions)
}

// Revision names one revision of a route, with the host that it is at.
type Revision struct{ Route, Name, Host string }

// Retired are the revisions that are kept for Envoys which have not acknowledged their successors.
func (s *Server) Retired() []Revision {
	var all []Revision
	for name, kept := range s.current.Load().retired {
		for _, r := range kept {
			all = append(all, Revision{name, r.revision, r.host})
		}
	}
	return all
}

// without forgets retired revisions. The sets of headers stay: there are few, and an Envoy that comes back may still name an old one.
func (g *Generation) without(settled []Revision) *Generation {
	next := *g
	next.retired = maps.Clone(g.retired)
	for _, old := range settled {
		kept := slices.DeleteFunc(slices.Clone(next.retired[old.Route]), func(r *route) bool { return r.revision == old.Name })
		if next.retired[old.Route] = kept; len(kept) == 0 {
			delete(next.retired, old.Route)
		}
	}
	return &next
}
