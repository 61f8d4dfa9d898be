package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"doorward/authz/config"
)

// site is one public host with its routes, in the order in which they are matched.
type site struct {
	host   string     // lower case, without the port
	origin config.URL // as the configuration gives it, with the port
	routes []config.Route
	below  []site   // of a wildcard: the exact hosts that it covers
	barred []string // of a wildcard: those of them that have a chain of their own
}

// sitesOf groups the routes by host, in the order of the names. The sign-in host is one of them even without a route.
func sitesOf(c *config.Config) []site {
	byHost := make(map[string][]config.Route)
	if !c.AuthURL.IsZero() {
		byHost[c.AuthURL.Hostname()] = nil
	}
	for _, r := range c.Routes {
		byHost[r.Host()] = append(byHost[r.Host()], r)
	}
	var sites []site
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		if s, ok := siteOf(c, host, byHost[host]); ok {
			sites = append(sites, s)
		}
	}
	return sites
}

// siteOf is one host with all its routes; false for one that is none any more.
func siteOf(c *config.Config, host string, routes []config.Route) (site, bool) {
	if len(routes) == 0 {
		return site{host: host, origin: c.AuthURL}, c.AuthURL.Hostname() == host
	}
	s := site{host: host, origin: routes[0].From, routes: slices.Clone(routes)}
	for i := range s.routes {
		s.routes[i].Source = config.Position{} // where a route stands makes no difference
	}
	slices.SortStableFunc(s.routes, byMatch)
	return s, true
}

// byMatch orders the routes of a host: the one of a TCP service, exact paths, then regular expressions in the order of the file, then prefixes,
// the longest first.
func byMatch(a, b config.Route) int {
	if c := cmp.Compare(matchClass(a), matchClass(b)); c != 0 || matchClass(a) != prefixClass {
		return c
	}
	return -cmp.Compare(len(cleanPrefix(a)), len(cleanPrefix(b)))
}

const (
	connectClass = iota
	pathClass
	regexClass
	prefixClass
)

func matchClass(r config.Route) int {
	switch {
	case r.TCP():
		return connectClass
	case r.Path != "":
		return pathClass
	case r.Regex != "":
		return regexClass
	}
	return prefixClass
}

// siteInput is all that the resources of one host are made of.
type siteInput struct {
	site
	paths     config.Paths
	revisions []string      // of each route
	bodies    []uint32      // of each route: how many bytes of a body the policy is shown, 0 for none
	to        []destination // of each route
	assertion string        // the header of the identity JWT
	chain     []byte        // of the certificate, PEM; none for a host that a wildcard covers
	key       []byte
	staple    []byte      // OCSP response
	below     []siteInput // of site.below
	inScope   bool        // no filter chain of its own leads to it
}

// inputOf reads what belongs to a host. The error joins every problem.
func inputOf(in Input, s site) (siteInput, error) {
	out, errs := routesOf(in, s)
	var err error
	out.chain, out.key, err = in.Certificate(s.host)
	if in.Staple != nil {
		out.staple = in.Staple(s.host)
	}
	return out, errors.Join(errs, wrap("certificate", err))
}

// routesOf is inputOf without the certificate.
func routesOf(in Input, s site) (siteInput, error) {
	out := siteInput{site: s, paths: in.Config.Paths, assertion: in.Config.JWT.Header, inScope: inScope(in.Config, s.host)}
	var errs []error
	for _, r := range s.routes {
		to, err := destinationOf(r)
		errs = append(errs, inRoute(r, err))
		out.to = append(out.to, to)
		out.revisions = append(out.revisions, in.Revision(r.Name))
		limit := uint32(0)
		if in.Body != nil && in.Body(r.Name) {
			limit = r.PolicyBodyBytes
		}
		out.bodies = append(out.bodies, limit)
	}
	for _, exact := range s.below {
		one, err := routesOf(in, exact)
		errs = append(errs, wrap(fmt.Sprintf("host %q", exact.host), err))
		out.below = append(out.below, one)
	}
	return out, errors.Join(errs...)
}

// build makes route configuration, scope, certificate, and the clusters of the routes.
func (s siteInput) build() (*Resources, error) {
	out := new(Resources)
	errs := []error{s.addSecret(out)}
	for _, one := range append([]siteInput{s}, s.below...) {
		for i, r := range one.routes {
			errs = append(errs, inRoute(r, addClusters(out, one.to[i])))
		}
	}
	routes, err := s.routeConfiguration()
	switch {
	case err != nil:
	case s.inScope:
		err = out.add(scopeKind, s.host, scope(s.host))
	case config.IsWildcard(s.host):
		alone(routes, s.host)
		err = s.wildcardRoutes(routes)
	default:
		alone(routes, s.host)
	}
	if err == nil {
		err = out.add(routeKind, s.host, routes)
	}
	if len(s.routes) > 0 {
		out.limit(s.routes[0].Groups) // those of all routes of the host
	}
	return out, errors.Join(append(errs, err)...)
}

// inRoute says where an error comes from.
func inRoute(r config.Route, err error) error { return wrap(fmt.Sprintf("route %q", r.Name), err) }

func wrap(where string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", where, err)
}
