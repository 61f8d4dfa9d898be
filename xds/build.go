package xds

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"

	"doorward/authz/config"
)

// Build makes the resources of a configuration. The error joins every problem, each naming its route or host.
func Build(in Input) (*Resources, error) {
	out := newResources()
	sites := sitesOf(in.Config)
	errs := []error{
		addListeners(out, in.Config, sites),
		addAuthz(out, in.Headers),
	}
	for _, s := range sites {
		if err := addSite(out, in, s); err != nil {
			errs = append(errs, fmt.Errorf("host %q: %w", s.host, err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

// site is one public host with its routes, in the order in which they are matched.
type site struct {
	host   string     // lower case, without the port
	origin config.URL // as the configuration gives it, with the port
	routes []config.Route
}

// sitesOf groups the routes by host, in the order of the names. The sign-in host is one of them even without a route.
func sitesOf(c *config.Config) []site {
	byHost := make(map[string]*site)
	for _, r := range c.Routes {
		s := byHost[r.Host()]
		if s == nil {
			s = &site{host: r.Host(), origin: r.From}
			byHost[s.host] = s
		}
		s.routes = append(s.routes, r)
	}
	if host := c.AuthURL.Hostname(); !c.AuthURL.IsZero() && byHost[host] == nil {
		byHost[host] = &site{host: host, origin: c.AuthURL}
	}
	var sites []site
	for _, host := range slices.Sorted(maps.Keys(byHost)) {
		s := *byHost[host]
		slices.SortStableFunc(s.routes, byMatch)
		sites = append(sites, s)
	}
	return sites
}

// byMatch orders the routes of a host: exact paths, then regular expressions in the order of the file, then prefixes,
// the longest first.
func byMatch(a, b config.Route) int {
	if c := cmp.Compare(matchClass(a), matchClass(b)); c != 0 || matchClass(a) != prefixClass {
		return c
	}
	return -cmp.Compare(len(cleanPrefix(a)), len(cleanPrefix(b)))
}

const (
	pathClass = iota
	regexClass
	prefixClass
)

func matchClass(r config.Route) int {
	switch {
	case r.Path != "":
		return pathClass
	case r.Regex != "":
		return regexClass
	}
	return prefixClass
}

// addSite adds what belongs to one host: route configuration, scope, certificate, and the clusters of its routes.
func addSite(out *Resources, in Input, s site) error {
	errs := []error{addSecret(out, in, s.host)}
	targets := make(map[string][]target, len(s.routes))
	for _, r := range s.routes {
		ts, err := targetsOf(r)
		if err == nil {
			err = addClusters(out, ts)
		}
		targets[r.Name] = ts
		errs = append(errs, inRoute(r, err))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	routes, err := routeConfiguration(in, s, targets)
	if err != nil {
		return err
	}
	return errors.Join(out.add(routeKind, s.host, routes), out.add(scopeKind, s.host, scope(s.host)))
}

// inRoute says where an error comes from.
func inRoute(r config.Route, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("route %q: %w", r.Name, err)
}
