package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"doorward/authz/config"
	"doorward/xds"
	"doorward/xds/cert"
	"doorward/xds/cert/acme"
	"doorward/xds/node"

	"golang.org/x/sync/errgroup"
)

// certificateState is the certificate that a host has.
type certificateState struct {
	Host      string    `json:"host"`
	Source    string    `json:"source"`            // "local CA", "ACME", or the file
	Pending   bool      `json:"pending,omitempty"` // the first one is awaited: all else of the host is served
	Names     []string  `json:"names,omitempty"`
	Issuer    string    `json:"issuer,omitempty"`
	NotBefore time.Time `json:"not_before,omitzero"`
	NotAfter  time.Time `json:"not_after,omitzero"`
	Renewal   time.Time `json:"renewal,omitzero"`  // when the ACME server is asked for the next one
	Retry     time.Time `json:"retry,omitzero"`    // when it is asked again after a failure
	Problem   string    `json:"problem,omitempty"` // why there is none, or what is wrong with it

	kind string // cert.FromFile, cert.FromLocalCA or cert.FromACME; "" while pending
}

// certificateStates are those of all hosts, by host.
func (p *planes) certificateStates() []certificateState {
	source, hosts := p.certified()
	states := make([]certificateState, 0, len(hosts))
	for _, host := range hosts {
		states = append(states, p.certificateState(source, host))
	}
	return states
}

// certified are the hosts, sorted, and what knows their certificates. There are none before something is served.
func (p *planes) certified() (*cert.Source, []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.certificates == nil {
		return nil, nil
	}
	return p.certificates, p.index.Hosts()
}

func (p *planes) certificateState(source *cert.Source, host string) certificateState {
	s := certificateState{Host: host, Source: source.Of(host)}
	pair, err := source.Pair(host)
	switch {
	case errors.Is(err, cert.ErrPending):
		s.Pending = true
	case err != nil:
		s.Problem = err.Error()
	default:
		s.kind = pair.Source
		s.Names, s.Issuer, s.NotBefore, s.NotAfter = pair.Leaf.DNSNames, pair.Leaf.Issuer.String(), pair.Leaf.NotBefore, pair.Leaf.NotAfter
		s.Problem = doubt(pair, time.Now())
	}
	if source.Issued(host) {
		state := p.acme.State(host)
		s.Renewal, s.Retry = state.Renewal, state.Retry
		if state.Problem != "" {
			s.Problem = state.Problem
		}
	}
	return s
}

// doubt says why clients refuse a certificate; "" when they do not.
func doubt(pair cert.Pair, now time.Time) string {
	switch {
	case now.After(pair.Leaf.NotAfter):
		return "expired"
	case now.Before(pair.Leaf.NotBefore):
		return "not valid yet"
	case pair.LacksStaple():
		return "it is to be shown with an OCSP response (must-staple) and there is none"
	}
	return ""
}

// certificateCounts are hosts by where their certificate comes from.
type certificateCounts struct {
	hosts    map[string]int       // by source; "pending" for those whose first one is awaited
	ends     map[string]time.Time // by source: of the certificate that ends first
	problems int
}

// countCertificates looks at no more than it has to: there may be very many hosts.
func (p *planes) countCertificates() certificateCounts {
	c := certificateCounts{hosts: make(map[string]int), ends: make(map[string]time.Time)}
	source, hosts := p.certified()
	for _, host := range hosts {
		s := certificateState{kind: cert.FromLocalCA}
		if source.Local(host) {
			s.NotAfter = source.Until(host)
		} else if s = p.certificateState(source, host); s.Pending {
			s.kind = "pending"
		}
		c.hosts[s.kind]++
		if s.Problem != "" {
			c.problems++
		}
		if end, ok := c.ends[s.kind]; !s.NotAfter.IsZero() && (!ok || s.NotAfter.Before(end)) {
			c.ends[s.kind] = s.NotAfter
		}
	}
	return c
}

// manyCertificates is how many hosts' troubles the status has; doorward cert list has all.
const manyCertificates = 20

// certificateTroubles are what is wrong with certificates, a line each. There is nothing to say of those of the local CA.
func (p *planes) certificateTroubles() []string {
	var lines []string
	source, hosts := p.certified()
	for _, host := range hosts {
		if source.Local(host) {
			continue
		}
		switch s := p.certificateState(source, host); {
		case s.Problem != "":
			lines = append(lines, s.Host+": "+s.Problem)
		case s.Pending:
			lines = append(lines, s.Host+": "+cert.ErrPending.Error())
		}
	}
	if more := len(lines) - manyCertificates; more > 0 {
		lines = append(lines[:manyCertificates], fmt.Sprintf("and %d more: doorward cert list has them all", more))
	}
	return lines
}

// awaited is what a configuration that is only looked at gets from its ACME server.
func awaited(c *config.Config) cert.Awaited {
	if c.TLS.ACME == nil {
		return nil
	}
	return cert.NothingYet{}
}

// prepareCertificates reads what a configuration's certificates are made of. Nothing is asked for.
func (p *planes) prepareCertificates(c *config.Config) (*acme.Prepared, *cert.Source, error) {
	prepared, err := p.acme.Prepare(c.TLS.ACME)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	var issued cert.Awaited
	if prepared != nil {
		issued = prepared
	}
	source, err := cert.NewSource(c, p.ca, issued)
	return prepared, source, err
}

// facesClients says whether an Envoy serves what there is to be served: challenges come through it.
func (p *planes) facesClients() bool {
	return slices.ContainsFunc(p.xds.Envoys(), func(e xds.Envoy) bool { return e.Current })
}

// issued are those of the hosts whose certificates the ACME server issues.
func (p *planes) issued(hosts []string) []string {
	return slices.DeleteFunc(hosts, func(host string) bool { return !p.certificates.Issued(host) })
}

// awaitCertificates follows a change of some hosts' routes.
func (p *planes) awaitCertificates(hosts map[string][]config.Route) {
	var add, remove []string
	for host, routes := range hosts {
		switch {
		case len(routes) == 0 && host != p.loaded.AuthURL.Hostname():
			remove = append(remove, host)
		case p.certificates.Issued(host):
			add = append(add, host)
		}
	}
	p.acme.Change(context.Background(), add, remove)
}

// renewCertificates serves the certificates that hosts have now: nothing else of the hosts changes, and nothing of others.
func (p *planes) renewCertificates(hosts []string) {
	p.turn.Lock()
	defer p.turn.Unlock()
	if err := p.serveCertificates(hosts); err == nil {
		return
	}
	for _, host := range hosts { // one that does not build must not hold the others back
		if err := p.serveCertificates([]string{host}); err != nil {
			p.log.Error("a new certificate is not served", "host", host, "cause", err.Error())
		}
	}
}

func (p *planes) serveCertificates(hosts []string) error {
	routes := make(map[string][]config.Route, len(hosts))
	for _, host := range hosts {
		if of := p.index.Of(host); of != nil || host == p.loaded.AuthURL.Hostname() {
			routes[host] = of
		}
	}
	generation := p.authz.Current()
	change, err := p.builder.Update(xds.Input{
		Config: p.loaded, Revision: generation.Revision, Body: generation.Body,
		Certificate: p.certificates.Certificate, Staple: p.certificates.Staple, Headers: p.headers,
	}, routes)
	if err != nil {
		return err
	}
	p.builder.Adopt(change)
	p.xds.Install(change)
	return nil
}

// serveChallenges answers the handshakes of tls-alpn-01 challenges, of the Envoy on this machine and of nodes.
func (p *planes) serveChallenges(ctx context.Context, group *errgroup.Group, dir string, door *node.Door) error {
	l, err := unixSocket(filepath.Join(dir, "acme.sock"), 0o660)
	if err != nil {
		return err
	}
	group.Go(func() error { return p.acme.ServeTLS(ctx, l) })
	if door != nil {
		group.Go(func() error { return p.acme.ServeTLS(ctx, door.Listener(node.ProtocolACME)) })
	}
	return nil
}
