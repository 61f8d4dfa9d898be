package main

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"

	"doorward/authz"
	"doorward/authz/admin"
	"doorward/authz/decision"
	"doorward/authz/policy"
)

// adminAPI is what the control socket answers with, until ctx ends.
func (p *planes) adminAPI(ctx context.Context) admin.Config {
	handlers := map[string]http.Handler{
		"GET /metrics":       p.metrics(),
		"GET " + explainPath: http.HandlerFunc(p.explainAPI),
		"GET " + usagePath:   http.HandlerFunc(p.usageAPI),
	}
	maps.Copy(handlers, p.keyHandlers())
	maps.Copy(handlers, p.sessionHandlers())
	handlers["POST /v1/seal/rotate"] = http.HandlerFunc(p.seal.rotate)
	maps.Copy(handlers, p.tokenHandlers())
	maps.Copy(handlers, p.routeHandlers())
	maps.Copy(handlers, p.nodeHandlers())
	return admin.Config{
		Status: p.report, Decisions: p.decisions, Last: p.authz.Last, Capture: p.capture, Stop: ctx.Done(),
		Handlers: handlers,
	}
}

func (p *planes) metrics() http.Handler {
	return metrics{p.authz, p.decisions, p.streams, p.xds, p.countCertificates}.handler()
}

// secretHeaders carry what lets their holder in. Fixtures have their values only where the policy depends on them.
var secretHeaders = []string{"authorization", "proxy-authorization", "cookie"}

// capture makes a fixture's line of a decision. Requests that no policy was asked about are left out.
func (p *planes) capture(r decision.Record) ([]byte, bool) {
	behind, ok := p.authz.Behind(r)
	if !ok || behind.Input == nil || behind.Outcome == "misdirected" || behind.Outcome == "malformed" || behind.Outcome == "unavailable" {
		return nil, false
	}
	line, err := newCapture(behind)
	return append(line, '\n'), err == nil
}

// documentOf is what a decision was made from, without the values of secret headers that the policy does not read.
func documentOf(r authz.Recent) policy.Document {
	document := r.Input.Document()
	reads := r.Policy.Reads()
	for _, name := range secretHeaders {
		if _, there := document.Request.Headers[name]; there && !reads.AllHeaders && !slices.Contains(reads.Headers, name) {
			document.Request.Headers[name] = "[masked]"
		}
	}
	return document
}

func newCapture(r authz.Recent) ([]byte, error) {
	input, err := json.Marshal(documentOf(r))
	if err != nil {
		return nil, err
	}
	return json.Marshal(capture{
		ID: r.ID, Time: r.Time.UTC(), Route: r.Route.Name, Policy: r.Policy.Name(), Input: input, Outcome: r.Outcome,
		Reasons: r.Decision.Reasons, Claims: r.Decision.Claims, Headers: r.Decision.Headers,
	})
}
