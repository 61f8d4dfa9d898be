package main

import (
	"net/http"
	"time"

	"doorward/authz"
	"doorward/authz/decision"
	"doorward/xds"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics collects what the parts have counted, when it is asked: nothing is done for it while requests are decided.
type metrics struct {
	authz interface {
		Stats() authz.Stats
		TokenUse() authz.TokenUse
		Shadows() map[string]*authz.ShadowCount
	}
	decisions interface{ Stats() decision.Stats }
	streams   interface{ Open() int }
	xds       interface{ Envoys() []xds.Envoy }

	certificates func() certificateCounts
}

// handler answers in Prometheus' text format. The registry is its own, so nothing else comes in.
func (m metrics) handler() http.Handler {
	registry := prometheus.NewRegistry()
	registry.MustRegister(m, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("doorward_"+name, help, labels, nil)
}

var (
	descBuild     = describe("build_info", "Always 1.", "version")
	descRoutes    = describe("routes", "Routes of the configuration that decides.")
	descDecisions = describe("decisions_total", "Decisions by route and outcome. The route is empty where Envoy named one that is not known.", "route", "outcome")
	descLatency   = describe("decision_seconds", "How long deciding took.")
	descLog       = describe("decision_log_records_total", "Records of the decision log: written, or dropped because they could not be written in time.", "result")
	descCache     = describe("decision_cache_requests_total", "Questions to the decision cache: hit, miss, or bypassed because the policy or the request cannot be cached.", "result")
	descEvicted   = describe("decision_cache_evictions_total", "Decisions that made room for others.")
	descEntries   = describe("decision_cache_entries", "Decisions that are kept.")
	descBytes     = describe("decision_cache_bytes", "About what the kept decisions take.")
	descPolicies  = describe("policy_cache_requests_total", "Questions to the decision cache by policy, since the policy was loaded.", "policy", "result")
	descTokens    = describe("identity_tokens_total", "Identity JWTs given to upstreams: reused, or minted.", "result")
	descShadows   = describe("shadow_decisions_total", "Requests that a shadow policy was asked about: evaluated, differing, failed (both of these among the evaluated), or dropped.", "route", "result")
	descStreams   = describe("streams_open", "Open WebSockets and responses of routes with streams, of people with a session.")
	descEnvoys    = describe("envoys_connected", "Envoys that are connected.")
	descCurrent   = describe("envoys_current", "Envoys that have acknowledged all that is served.")
	descCerts     = describe("certificates", "Hosts by where their certificate comes from: file, local_ca or acme, or pending where the first one is awaited.", "source")
	descExpiry    = describe("certificate_expiry_seconds", "How long the certificate that ends first is good for, by where it comes from; negative once it has ended.", "source")
	descCertFault = describe("certificate_problems", "Hosts whose certificate is refused by clients, or could not be got or renewed at the last try.")
	descRejected  = describe("envoy_rejected_resources", "Resources that connected Envoys have rejected.")
)

// Describe sends nothing: what there is depends on the configuration (an unchecked collector).
func (m metrics) Describe(chan<- *prometheus.Desc) {}

// Collect reads every count.
func (m metrics) Collect(to chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n int, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(n), labels...)
	}
	gauge(descBuild, 1, version)
	s := m.authz.Stats()
	gauge(descRoutes, s.Routes)
	for route, outcomes := range s.Decisions {
		for outcome, n := range outcomes {
			counter(descDecisions, n, route, outcome)
		}
	}
	to <- prometheus.MustNewConstHistogram(descLatency, s.Latency.Count, s.Latency.Sum, s.Latency.UpTo)
	counter(descCache, s.Cache.Hits, "hit")
	counter(descCache, s.Cache.Misses, "miss")
	counter(descCache, s.Cache.Bypassed, "bypassed")
	counter(descEvicted, s.Cache.Evicted)
	gauge(descEntries, s.Cache.Entries)
	gauge(descBytes, s.Cache.Bytes)
	for policy, use := range s.Policies {
		counter(descPolicies, use.Hits, policy, "hit")
		counter(descPolicies, use.Misses, policy, "miss")
		counter(descPolicies, use.Bypassed, policy, "bypassed")
	}
	tokens := m.authz.TokenUse()
	counter(descTokens, tokens.Reused, "reused")
	counter(descTokens, tokens.Minted, "minted")
	for route, c := range m.authz.Shadows() {
		counter(descShadows, c.Evaluated.Load(), route, "evaluated")
		counter(descShadows, c.Differing.Load(), route, "differing")
		counter(descShadows, c.Failed.Load(), route, "failed")
		counter(descShadows, c.Dropped.Load(), route, "dropped")
	}
	log := m.decisions.Stats()
	counter(descLog, log.Written, "written")
	counter(descLog, log.Dropped, "dropped")
	gauge(descStreams, m.streams.Open())
	envoys, current, rejected := m.xds.Envoys(), 0, 0
	for _, e := range envoys {
		if rejected += len(e.Rejected); e.Current {
			current++
		}
	}
	gauge(descEnvoys, len(envoys))
	gauge(descCurrent, current)
	gauge(descRejected, rejected)
	m.collectCertificates(to, time.Now())
}

// collectCertificates has few series, however many hosts there are.
func (m metrics) collectCertificates(to chan<- prometheus.Metric, now time.Time) {
	c := m.certificates()
	for source, n := range c.hosts {
		to <- prometheus.MustNewConstMetric(descCerts, prometheus.GaugeValue, float64(n), source)
	}
	for source, end := range c.ends {
		to <- prometheus.MustNewConstMetric(descExpiry, prometheus.GaugeValue, end.Sub(now).Seconds(), source)
	}
	to <- prometheus.MustNewConstMetric(descCertFault, prometheus.GaugeValue, float64(c.problems))
}
