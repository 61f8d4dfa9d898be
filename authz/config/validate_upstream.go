package config

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// maxCheckTimeout bounds a health check's timeout: Envoy takes no other change of upstreams while it waits for the first answer of a new one.
	maxCheckTimeout = time.Second
	// shortest is the least interval of checks and looks.
	shortest = 100 * time.Millisecond
	// longest is more than any of the times is good for.
	longest = 24 * time.Hour
	// maxThreshold bounds the thresholds of a health check and the errors of an outlier.
	maxThreshold = 100
	maxAttempts  = 10
	maxMirrors   = 4
	// preloadAge is the least max_age of a host that browsers have built in (hstspreload.org, "Submission Requirements").
	preloadAge = 365 * 24 * time.Hour
)

// upstreamCare checks how an upstream is looked after.
func (c *checker) upstreamCare(p place, r *Route) {
	c.healthCheck(p.key("health_check"), r)
	c.outliers(p.key("outlier_detection"), r.OutlierDetection)
	c.breaker(p.key("circuit_breaker"), r.CircuitBreaker)
	c.balancing(p, r)
	c.retry(p.key("retry"), r)
	c.mirrors(p.key("mirror"), r)
	if r.AllowWebsockets && plaintextHTTP2(r.To) {
		c.add(p.key("allow_websockets"), "cannot go with an h2c upstream: over HTTP/2 few applications take WebSockets; use http in `to`, or remove it")
	}
}

func plaintextHTTP2(to Targets) bool {
	return slices.ContainsFunc(to, func(t Target) bool { return t.URL.Scheme() == "h2c" })
}

func (c *checker) healthCheck(p place, r *Route) {
	h := r.HealthCheck
	if h == nil {
		return
	}
	path, _, _ := strings.Cut(h.Path, "?")
	switch {
	case p.has("path") == p.has("grpc_service"):
		c.add(p, "needs either a path, which is asked with GET, or a grpc_service")
	case p.has("path") && plainPath(path) != "":
		c.add(p.key("path"), "%s", plainPath(path))
	case p.has("path") && !printable(h.Path):
		c.add(p.key("path"), "has a query with a character that a URL cannot hold; write it percent-encoded")
	case p.has("grpc_service") && len(r.To) > 0 && (r.To[0].URL.Scheme() == "http" || r.AllowWebsockets):
		c.add(p.key("grpc_service"), "needs HTTP/2; use h2c or https in `to` without allow_websockets, or a path")
	}
	if len(h.ExpectedStatuses) > 0 && h.GRPCService != nil {
		c.add(p.key("expected_statuses"), "has no effect beside grpc_service; remove it")
	}
	if h.GRPCService != nil && (len(*h.GRPCService) > maxPath || !printable(*h.GRPCService)) {
		c.add(p.key("grpc_service"), "is not the name of a service; it is as grpc.health.v1.Health")
	}
	c.within(p.key("interval"), h.Interval, shortest, longest)
	if t := time.Duration(h.Timeout); t < 10*time.Millisecond || t > maxCheckTimeout {
		c.add(p.key("timeout"), "%s must be 10ms to %s: no other change of upstreams is taken while the first check of a new one waits", t, maxCheckTimeout)
	}
	c.count(p.key("healthy_threshold"), h.HealthyThreshold, maxThreshold)
	c.count(p.key("unhealthy_threshold"), h.UnhealthyThreshold, maxThreshold)
	c.statuses(p.key("expected_statuses"), h.ExpectedStatuses)
}

func (c *checker) outliers(p place, o *OutlierDetection) {
	if o == nil {
		return
	}
	c.count(p.key("consecutive_5xx"), o.Consecutive5xx, maxThreshold)
	c.within(p.key("interval"), o.Interval, shortest, longest)
	c.within(p.key("base_ejection_time"), o.BaseEjectionTime, shortest, longest)
	c.count(p.key("max_ejection_percent"), o.MaxEjectionPercent, 100)
}

// maxAtATime bounds what a circuit breaker lets through.
const maxAtATime = 1_000_000

func (c *checker) breaker(p place, b *CircuitBreaker) {
	if b == nil {
		return
	}
	c.count(p.key("max_connections"), b.MaxConnections, maxAtATime)
	c.count(p.key("max_pending_requests"), b.MaxPendingRequests, maxAtATime)
	c.count(p.key("max_requests"), b.MaxRequests, maxAtATime)
	if b.MaxRetries != nil {
		c.count(p.key("max_retries"), *b.MaxRetries, maxAtATime)
	}
}

// balancing checks how requests are shared among endpoints.
func (c *checker) balancing(p place, r *Route) {
	at := p.key("load_balancing")
	if p.has("load_balancing") && !slices.Contains(LoadBalancings(), r.LoadBalancing) {
		c.add(at, "%q is not known; it is one of %s", shorten(r.LoadBalancing), strings.Join(LoadBalancings(), ", "))
		return
	}
	hashes := r.LoadBalancing == RingHash || r.LoadBalancing == Maglev
	switch at := p.key("hash_on"); {
	case !p.has("hash_on") && hashes:
		c.add(at, "required with %s; name what decides where a request goes: cookie, header or client_ip", r.LoadBalancing)
	case p.has("hash_on") && !hashes:
		c.add(at, "has an effect with %s and %s alone; use one of them in load_balancing, or remove it", RingHash, Maglev)
	case r.HashOn != nil:
		c.hashOn(at, r.HashOn)
	}
}

// hashOn checks what decides where a request goes.
func (c *checker) hashOn(p place, h *HashOn) {
	given := 0
	for _, is := range []bool{p.has("cookie"), p.has("header"), h.ClientIP} {
		if is {
			given++
		}
	}
	if given != 1 {
		c.add(p, "needs exactly one of cookie, header and client_ip")
	}
	switch {
	case !p.has("cookie"):
	case !headerName.MatchString(h.Cookie) || len(h.Cookie) > maxHeaderName:
		c.add(p.key("cookie"), "%q is not the name of a cookie (RFC 6265, section 4.1.1); it has letters, digits, - and _", shorten(h.Cookie))
	case strings.HasPrefix(strings.ToLower(h.Cookie), cookiePrefix):
		c.add(p.key("cookie"), "%q is a cookie of Doorward's own, which the upstream never sees; use another name", shorten(h.Cookie))
	}
	if p.has("header") {
		if fault := c.hashHeaderFault(h.Header); fault != "" {
			c.add(p.key("header"), "%s", fault)
		}
	}
}

// hashHeaderFault says why requests cannot be told apart by a header, or "".
func (c *checker) hashHeaderFault(name string) string {
	switch {
	case !headerName.MatchString(name) || len(name) > maxHeaderName:
		return fmt.Sprintf("%q is not a header name (RFC 9110, section 5.1); it has letters, digits and hyphens", shorten(name))
	case canonicalHeader(name) == canonicalHeader(c.c.JWT.Header):
		return fmt.Sprintf("%s carries the identity JWT, which is another one every few minutes; use a header of identity_headers", name)
	}
	return ""
}

func (c *checker) retry(p place, r *Route) {
	retry := r.Retry
	if retry == nil {
		return
	}
	for i, reason := range retry.On {
		if !slices.Contains(RetryReasons(), reason) {
			c.add(p.key("on").orItem(i), "%q is not a reason; it is one of %s", shorten(reason), strings.Join(RetryReasons(), ", "))
		}
	}
	if len(retry.On)+len(retry.Statuses) == 0 {
		c.add(p.key("on"), "is empty; name a reason, or remove retry")
	}
	c.statuses(p.key("statuses"), retry.Statuses)
	c.count(p.key("attempts"), retry.Attempts, maxAttempts)
	switch per := time.Duration(retry.PerTryTimeout); {
	case per == 0:
	case !slices.ContainsFunc(retry.On, func(reason string) bool { return slices.Contains([]string{Reset, GatewayError, ServerError}, reason) }):
		c.add(p.key("per_try_timeout"), "needs %s, %s or %s in on: a try that took too long is sent again for one of them", Reset, GatewayError, ServerError)
	case per < shortest || per > longest:
		c.within(p.key("per_try_timeout"), retry.PerTryTimeout, shortest, longest)
	case r.Timeout != nil && *r.Timeout != 0 && per >= time.Duration(*r.Timeout):
		c.add(p.key("per_try_timeout"), "%s is not less than the route's timeout of %s, which is for all tries together", per, *r.Timeout)
	}
}

func (c *checker) mirrors(p place, r *Route) {
	if len(r.Mirror) > maxMirrors {
		c.add(p, "has %d mirrors; at most %d are possible", len(r.Mirror), maxMirrors)
	}
	if len(r.Mirror) > 0 && r.AllowWebsockets {
		c.add(p, "cannot go with allow_websockets: what is said over a WebSocket has no copies; give the WebSockets a route of their own")
	}
	for i, m := range r.Mirror {
		at := p.item(i)
		switch {
		case !at.has("to"):
			c.add(at.key("to"), "required; it is the URL that gets the copies, as http://canary:8080")
		case m.To.Scheme() == "tcp":
			c.add(at.key("to"), "%q is a TCP upstream, which takes no requests; use http, https or h2c", shorten(m.To.String()))
		case m.To.Path() != "" && m.To.Path() != "/":
			c.add(at.key("to"), "%q has a path; give the host and port only: the copies have the path that the upstream gets", shorten(m.To.String()))
		}
		c.count(at.key("percent"), m.Percent, 100)
	}
}

// hsts checks what browsers are told to remember of the route's host.
func (c *checker) hsts(p place, r *Route) {
	at := p.key("hsts")
	if r.HSTS == nil {
		return
	}
	age := time.Duration(r.HSTS.MaxAge)
	if age%time.Second != 0 || age > 10*preloadAge {
		c.add(at.key("max_age"), "%s must be whole seconds and at most %s", age, 10*preloadAge)
	}
	if r.HSTS.Preload && (age < preloadAge || !r.HSTS.IncludeSubdomains) {
		c.add(at.key("preload"), "needs include_subdomains, and a max_age of at least %s (hstspreload.org)", preloadAge)
	}
	for name := range r.SetResponseHeaders {
		if canonicalHeader(name) == "strict-transport-security" {
			c.add(p.key("set_response_headers").key(name), "contradicts hsts, which says it; remove one of the two")
		}
	}
}

// within checks a time.
func (c *checker) within(at place, d Duration, least, most time.Duration) {
	if t := time.Duration(d); t < least || t > most {
		c.add(at, "%s must be %s to %s", t, least, most)
	}
}

// count checks a number that begins at one.
func (c *checker) count(at place, n, most uint32) {
	if n < 1 || n > most {
		c.add(at, "%d must be 1 to %d", n, most)
	}
}

// statuses checks a list of the statuses of final responses (RFC 9110, section 15).
func (c *checker) statuses(at place, all []uint32) {
	for i, status := range all {
		if status < 200 || status > 599 {
			c.add(at.item(i), "%d is not the status of a response; it is 200 to 599", status)
		}
	}
}
