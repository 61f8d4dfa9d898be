package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"doorward/authz"
	"doorward/authz/admin"
	"doorward/xds"
)

// switching is what Envoy's worker threads may take, after Envoy has acknowledged, to route by what it acknowledged.
const switching = 250 * time.Millisecond

// follow tells the log what becomes of each whole configuration at the Envoys, and has authz forget the revisions that no Envoy routes by any
// more, until ctx ends.
func (p *planes) follow(ctx context.Context) error {
	var told *xds.Delivery
	var before map[authz.Revision]bool
	tune := time.NewTicker(giveBackEvery)
	defer tune.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tune.C:
			giveBack()
			continue
		case <-time.After(switching):
		}
		told = p.tell(told)
		before = p.settle(before)
	}
}

// tell logs once that the last configuration is served, or by whom it is not, and returns what has been told.
func (p *planes) tell(told *xds.Delivery) *xds.Delivery {
	p.mu.Lock()
	d, c, routes := p.delivery, p.loaded, p.count()
	p.mu.Unlock()
	if d == nil || d == told {
		return told
	}
	waiting, problem := state(d)
	switch {
	case waiting:
		return told
	case problem != "":
		p.log.Error("the configuration is not served everywhere as it is", "config", c.Path, "checksum", c.Checksum, "cause", problem)
	default:
		p.log.Info("the configuration is served", "config", c.Path, "checksum", c.Checksum, "routes", routes)
	}
	return d
}

// count is how many routes there are; for who holds mu.
func (p *planes) count() int {
	routes, _ := p.index.Len()
	return routes
}

// state says whether an Envoy has yet to answer to a change, and what one has rejected of it.
func state(d *xds.Delivery) (waiting bool, problem string) {
	now, cancel := context.WithCancel(context.Background())
	cancel()
	var problems []string
	for _, a := range d.Wait(now) {
		switch a.State {
		case xds.Waiting:
			waiting = true
		case xds.Rejected:
			problems = append(problems, a.Err().Error())
		}
	}
	return waiting, strings.Join(problems, "\n")
}

// settle forgets the retired revisions at whose hosts no Envoy was behind the last time either, and returns those where none is now: a worker
// thread may route by a revision a little longer than its Envoy has acknowledged the next.
func (p *planes) settle(before map[authz.Revision]bool) map[authz.Revision]bool {
	p.turn.Lock()
	defer p.turn.Unlock()
	now := make(map[authz.Revision]bool)
	var done []authz.Revision
	for _, r := range p.authz.Retired() {
		switch {
		case p.xds.Behind(r.Host):
		case before[r]:
			done = append(done, r)
		default:
			now[r] = true
		}
	}
	if len(done) > 0 {
		p.authz.Settle(done...)
	}
	return now
}

// report is what the admin API shows.
func (p *planes) report() admin.Status {
	envoys, keys, certificates := p.xds.Envoys(), p.keys(), p.certificateTroubles()
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Version, s.Started, s.Envoys = version, p.started, envoys
	s.Routes, s.Hosts = p.index.Len()
	s.Unread, s.Keys, s.Bundles, s.Certificates = p.unread, keys, p.bundles.report(), certificates
	s.Pushed = len(p.kept)
	var problems []string
	for _, e := range envoys {
		for _, r := range e.Rejected {
			problems = append(problems, fmt.Sprintf("envoy %q rejected %s %q: %s", e.Node, r.Type, r.Resource, r.Message))
		}
	}
	waiting := p.delivery == nil
	if !waiting {
		waiting, _ = state(p.delivery)
	}
	s.Served = len(envoys) > 0 && !waiting && len(problems) == 0 && !slices.ContainsFunc(envoys, func(e xds.Envoy) bool { return !e.Current })
	if s.Problem == "" && len(problems) > 0 {
		s.Problem = "an Envoy did not take all of it: " + strings.Join(problems, "\n")
	}
	return s
}
