package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"doorward/authz"
	"doorward/xds"
)

// routeState is a route with what becomes of it.
type routeState struct {
	Name     string `json:"name"`
	Host     string `json:"host"`
	From     string `json:"from"`
	Match    string `json:"match"` // what it matches of the path
	To       string `json:"to"`    // its upstreams, or what it answers with
	Policy   string `json:"policy"`
	Source   string `json:"source"` // "pushed", or file:line:column
	Revision string `json:"revision,omitempty"`
	ETag     string `json:"etag,omitempty"`     // of a pushed one
	Status   string `json:"status"`             // served, waiting or rejected
	Reason   string `json:"reason,omitempty"`   // of another status than served
	Document string `json:"document,omitempty"` // YAML of a pushed one
}

// The states of a route.
const (
	routeServed   = "served"
	routeWaiting  = "waiting"  // an Envoy has not acknowledged it yet
	routeRejected = "rejected" // an Envoy has refused it and keeps its last good version, or it does not fit the configuration
)

// routeStates are all routes, by name: those that are served, and the pushed ones that are set aside.
func (p *planes) routeStates() []routeState {
	generation := p.authz.Current()
	p.mu.Lock()
	names, all := p.index.Names(), maps.Clone(p.kept)
	p.mu.Unlock()
	states := make([]routeState, 0, len(names))
	for _, name := range names {
		if s, ok := p.servedState(generation, name); ok {
			states = append(states, s)
		}
	}
	for name, k := range all {
		if k.aside != "" {
			states = append(states, asideState(name, k))
		}
	}
	slices.SortStableFunc(states, func(a, b routeState) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Status, b.Status)) })
	return states
}

// routeState is the route of a name, and the pushed one where there is one in a file too; false for one that there is not.
func (p *planes) routeState(generation *authz.Generation, name string) (routeState, bool) {
	p.mu.Lock()
	k := p.kept[name]
	p.mu.Unlock()
	if k.aside != "" {
		return asideState(name, k), true
	}
	return p.servedState(generation, name)
}

// asideState is a pushed route that does not fit the configuration.
func asideState(name string, k kept) routeState {
	return routeState{Name: name, Source: "pushed", Document: string(k.text), ETag: etag(k.text), Status: routeRejected, Reason: k.aside}
}

// servedState is a route of the configuration.
func (p *planes) servedState(generation *authz.Generation, name string) (routeState, bool) {
	p.mu.Lock()
	r, there := p.index.Route(name)
	k := p.kept[name]
	p.mu.Unlock()
	if !there {
		return routeState{}, false
	}
	s := routeState{
		Name: name, Host: r.Host(), From: r.From.String(), Match: r.Matches(), To: r.Leads(),
		Policy: r.Policy, Source: r.Source.String(), Revision: generation.Revision(name),
	}
	if r.IsPushed() {
		s.Source, s.Document, s.ETag = "pushed", string(k.text), etag(k.text)
	}
	s.Status, s.Reason = hostState(p.xds.Host(s.Host))
	return s, true
}

// hostState says in one line what the Envoys make of a host.
func hostState(h xds.HostState) (status, reason string) {
	for _, node := range slices.Sorted(maps.Keys(h.Rejected)) {
		if no := h.Rejected[node]; len(no) > 0 {
			return routeRejected, fmt.Sprintf("envoy %q rejected %s %q: %s", node, no[0].Type, no[0].Resource, no[0].Message)
		}
	}
	if len(h.Waiting) > 0 {
		return routeWaiting, fmt.Sprintf("envoy %q has not acknowledged it yet", h.Waiting[0])
	}
	return routeServed, ""
}
