package main

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"time"

	"doorward/authz"
	"doorward/authz/admin"
	"doorward/authz/bearer"
	"doorward/authz/config"
	"doorward/authz/decision"
	"doorward/authz/login"
	"doorward/authz/policy"
	"doorward/authz/web"
	"doorward/xds"
	"doorward/xds/cert"
	"doorward/xds/cert/acme"
)

// change is a configuration built for both planes.
type change struct {
	generation *authz.Generation
	headers    []string // see planes.headers
	resources  *xds.Change
	bundles    bundleVersions
	settings   *login.Settings
	pages      *web.Pages
	issuers    *bearer.IssuerSet
	decisions  *decision.Target // nil when decisions go where they went
	trust      *admin.Trust     // of the admin API on the network; nil when it is not there

	certificates *cert.Source
	acme         *acme.Prepared // nil when there is no ACME server
}

// discard gives up a change that is not applied.
func (c *change) discard() {
	if c.decisions != nil {
		c.decisions.Discard()
	}
}

// prepare builds a change and applies nothing. The error joins the problems of every part.
func (p *planes) prepare(ctx context.Context, c *config.Config, used bundleVersions) (*change, error) {
	if err := p.fixed(c); err != nil {
		return nil, err
	}
	prepared, certificates, err := p.prepareCertificates(c)
	if err != nil {
		return nil, err
	}
	for _, warning := range append(certificates.Warnings(time.Now()), doubts(c)...) {
		p.log.Warn(warning)
	}
	p.mu.Lock()
	sent, old := p.headers, p.loaded
	p.mu.Unlock()
	change, err := build(ctx, c, used.config(c), &p.builder, certificates, sent)
	if err != nil {
		return nil, err
	}
	change.bundles, change.certificates, change.acme = used, certificates, prepared
	if change.pages, err = web.New(brand(c)); err != nil {
		return nil, fmt.Errorf("%s: brand: %w", c.Path, err)
	}
	if change.issuers, err = p.bearer.Issuers.Prepare(c.Issuers); err != nil {
		return nil, err
	}
	if change.trust, err = admin.LoadTrust(c.Admin); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	change.settings = &login.Settings{
		Programs: c.Programs(), Prefix: c.Paths.Prefix, AuthURL: c.AuthURL, IDPs: c.IDP,
		Lifetime: time.Duration(c.Session.Lifetime), Refresh: time.Duration(c.Session.RefreshInterval), Origin: p.origin, Service: p.service,
	}
	if reflect.DeepEqual(old.DecisionLog, c.DecisionLog) {
		return change, nil
	}
	// Last, so that it is used.
	if change.decisions, err = p.decisions.Prepare(c.DecisionLog); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	return change, nil
}

// build compiles the policies and makes both planes' part of a configuration. Sent are the headers that Envoy sends already.
func build(ctx context.Context, c *config.Config, load policy.Config, b *xds.Builder, certificates *cert.Source, sent []string) (*change, error) {
	policies, err := policy.Load(ctx, load)
	if err != nil {
		return nil, err
	}
	generation, err := authz.Build(c, policies)
	if err != nil {
		return nil, err
	}
	headers := together(generation.Headers(), sent)
	generation.Sending(xds.HeaderSet(headers), headers)
	page, err := edgePage(c)
	if err != nil {
		return nil, err
	}
	resources, err := b.Build(xds.Input{
		Config: c, Revision: generation.Revision, Body: generation.Body, Certificate: certificates.Certificate, Staple: certificates.Staple,
		Headers: headers, Page: page,
	})
	if err != nil {
		return nil, err
	}
	return &change{generation: generation, headers: headers, resources: resources}, nil
}

// together is what Envoy has to send for both; nil means every header.
func together(a, b []string) []string {
	if a == nil || b == nil {
		return nil
	}
	return slices.Compact(slices.Sorted(slices.Values(slices.Concat(a, b))))
}
