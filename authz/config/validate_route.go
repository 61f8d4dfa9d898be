package config

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	// maxEntriesPerRoute bounds the labels and each list of headers of a route.
	maxEntriesPerRoute = 100
	// maxBody is the longest body of a direct response that Envoy takes by default, in bytes.
	maxBody = 4096
	// maxPolicyBody is what Envoy may hold of each request's body, and send with its question, which gRPC bounds at 4 MiB.
	maxPolicyBody = 1 << 20
)

// upstreamKeys are the keys that say something only of a route with `to`.
var upstreamKeys = []string{
	"prefix_rewrite", "regex_rewrite_pattern", "regex_rewrite_substitution", "timeout", "idle_timeout", "allow_websockets", "streams",
	"set_request_headers", "remove_request_headers", "preserve_host_header", "host_rewrite",
	"tls_custom_ca_file", "tls_server_name", "tls_client_cert_file", "tls_client_key_file", "tls_skip_verify",
	"health_check", "outlier_detection", "circuit_breaker", "load_balancing", "hash_on", "retry", "mirror",
}

// route checks what concerns one route alone.
func (c *checker) route(p place, r *Route) {
	if !p.has("from") {
		c.add(p.key("from"), "required; it is the public URL of the route's host, as https://app.example.com")
	}
	c.origin(p.key("from"), r.From)
	c.service(p, r)
	c.action(p, r)
	c.adminRoute(p, r)
	c.match(p, r)
	c.access(p, r)
	c.demands(p, r)
	c.bearer(p, r)
	c.cors(p, r)
	c.identityHeaders(p, r)
	c.claims(p, r)
	c.rewrite(p, r)
	if r.Streams && !p.has("timeout") {
		r.Timeout = new(Duration) // what is meant to stay open is not cut off after a while
	}
	c.targets(p, r)
	c.upstreamHost(p, r)
	c.upstreamTLS(p, r)
	c.upstreamCare(p, r)
	c.hsts(p, r)
	c.redirect(p.key("redirect"), r)
	c.response(p.key("response"), r.Response)
	c.headers(p, r)
	labels := p.key("labels")
	if len(r.Labels) > maxEntriesPerRoute {
		c.add(labels, "has %d labels; at most %d are possible", len(r.Labels), maxEntriesPerRoute)
	}
	if _, empty := r.Labels[""]; empty {
		c.add(labels, "has a label without a name; give it one")
	}
}

// action checks that a route does exactly one thing.
func (c *checker) action(p place, r *Route) {
	var given []string
	for _, key := range []string{"to", "redirect", "response"} {
		if p.has(key) {
			given = append(given, key)
		}
	}
	switch {
	case len(given) == 0:
		c.add(p, "has none of to, redirect and response; add `to` with the upstream's URL")
	case len(given) > 1:
		c.add(p.key(given[1]), "a route has exactly one of to, redirect and response, and this has %s; remove the others", strings.Join(given, " and "))
	case given[0] != "to":
		for _, key := range upstreamKeys {
			if p.has(key) {
				c.add(p.key(key), "has no effect on a route with %s; remove it", given[0])
			}
		}
	}
}

// access checks the policy and what goes with it.
func (c *checker) access(p place, r *Route) {
	switch {
	case !p.has("shadow_policy"):
	case !policyName.MatchString(r.ShadowPolicy):
		c.add(p.key("shadow_policy"), "%q is not a policy; name a Rego package, or one of the built-ins %s and %s",
			shorten(r.ShadowPolicy), PolicyAnyAuthenticatedUser, PolicyPublic)
	case r.ShadowPolicy == r.Policy:
		c.add(p.key("shadow_policy"), "is the route's own policy; name the one that may take its place, or remove it")
	}
	if r.PolicyBodyBytes == 0 || r.PolicyBodyBytes > maxPolicyBody {
		c.add(p.key("policy_body_bytes"), "must be 1 to %d bytes", maxPolicyBody)
	}
	switch {
	case !p.has("policy"):
		c.add(p.key("policy"), "required; name a Rego package, or one of the built-ins %s and %s", PolicyAnyAuthenticatedUser, PolicyPublic)
	case !policyName.MatchString(r.Policy):
		c.add(p.key("policy"), "%q is not a policy; name a Rego package, or one of the built-ins %s and %s",
			shorten(r.Policy), PolicyAnyAuthenticatedUser, PolicyPublic)
	case r.AllowAnonymous && r.Policy == PolicyAnyAuthenticatedUser:
		c.add(p.key("allow_anonymous"), "contradicts the policy %s; remove it, or use the policy %s", PolicyAnyAuthenticatedUser, PolicyPublic)
	}
}

// policyName is the name of a Rego package, without "data." in front.
var policyName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*$`)

// targets checks the upstreams.
func (c *checker) targets(p place, r *Route) {
	at := p.key("to")
	if p.has("to") && len(r.To) == 0 {
		c.add(at, "is empty; name at least one upstream")
	}
	var sum uint64
	for i, t := range r.To {
		item := at
		if target(at.node).Kind != yaml.ScalarNode {
			item = at.item(i)
		}
		sum += uint64(t.Weight)
		if t.Weight == 0 {
			c.add(item.key("weight"), "must be 1 or more; remove the upstream if it is to get nothing")
		}
		switch {
		case t.URL.IsZero():
			if target(item.node).Kind == yaml.MappingNode && !item.has("url") {
				c.add(item.key("url"), "required; it is the upstream's URL, as http://app:8080")
			}
		case t.URL.Path() != "" && t.URL.Path() != "/":
			c.add(item, "%q has a path; give the host and port only, and use prefix_rewrite to change the path", shorten(t.URL.String()))
		case r.TCP() && t.URL.Scheme() != "tcp":
			c.add(item, "%q is no TCP upstream, and the route is of a TCP service; write it as tcp://db:5432", shorten(t.URL.String()))
		case !r.TCP() && t.URL.Scheme() == "tcp" && !r.From.IsZero():
			c.add(item, "%q is a TCP upstream, which only a route of a TCP service can have; write `from` as %s://%s:%d", shorten(t.URL.String()),
				schemeService, r.Host(), t.URL.Port())
		case t.URL.Scheme() != r.To[0].URL.Scheme() && !r.To[0].URL.IsZero():
			c.add(item, "%q has another scheme than %q; all upstreams of a route have the same", shorten(t.URL.String()), shorten(r.To[0].URL.String()))
		}
	}
	if sum > math.MaxUint32 {
		c.add(at, "the weights add up to %d; they may add up to %d", sum, uint32(math.MaxUint32))
	}
}

// upstreamHost checks which Host the upstream is to see.
func (c *checker) upstreamHost(p place, r *Route) {
	at := p.key("host_rewrite")
	if !p.has("host_rewrite") {
		return
	}
	if r.PreserveHostHeader {
		c.add(at, "contradicts preserve_host_header; remove one of the two")
	}
	if err := checkHostPort(strings.ToLower(r.HostRewrite)); err != nil {
		c.add(at, "%q is not a host: %s", shorten(r.HostRewrite), err)
	}
}

// upstreamTLS checks how the upstream is verified, and who we are to it.
func (c *checker) upstreamTLS(p place, r *Route) {
	if r.Admin() {
		return // these keys are refused already
	}
	plain := slices.IndexFunc(r.To, func(t Target) bool { return !t.URL.IsZero() && t.URL.Scheme() != "https" })
	for _, key := range []string{"tls_custom_ca_file", "tls_server_name", "tls_client_cert_file", "tls_client_key_file", "tls_skip_verify"} {
		if p.has(key) && plain >= 0 && !r.TCP() {
			c.add(p.key(key), "has no effect on an %s upstream; use https in `to`, or remove it", r.To[plain].URL.Scheme())
		}
	}
	var named []string
	if r.TLSCAFile != "" {
		named = append(named, r.TLSCAFile)
		if err := c.pool(r.TLSCAFile); err != nil {
			c.add(p.key("tls_custom_ca_file"), "%s", err)
		}
	}
	if r.TLSServerName != "" {
		name := strings.ToLower(r.TLSServerName)
		if err := firstOf(checkHostPort(name), checkDNSName(name)); err != nil {
			c.add(p.key("tls_server_name"), "%s", err)
		}
	}
	switch {
	case r.TLSClientCertFile != "" && r.TLSClientKeyFile != "":
		named = append(named, r.TLSClientCertFile, r.TLSClientKeyFile)
		if _, err := c.pair(Certificate{r.TLSClientCertFile, r.TLSClientKeyFile}); err != nil {
			c.add(p.key("tls_client_cert_file"), "%s", err)
		}
	case r.TLSClientCertFile != "":
		c.add(p.key("tls_client_key_file"), "required with tls_client_cert_file; it names the PEM file of its private key")
	case r.TLSClientKeyFile != "":
		c.add(p.key("tls_client_cert_file"), "required with tls_client_key_file; it names the PEM file of its certificate")
	}
	if len(named) > 0 {
		r.contents = c.files.sum("", named)
	}
}

// redirect checks a redirect, and that it leads somewhere else.
func (c *checker) redirect(p place, r *Route) {
	to := r.Redirect
	if to == nil {
		return
	}
	if !slices.Contains([]int{301, 302, 303, 307, 308}, to.Status) {
		c.add(p.key("status"), "%d is not a redirect; it is 301, 302, 303, 307 or 308", to.Status)
	}
	if to.Host == "" && to.Path == "" && to.Prefix == "" && !to.StripQuery {
		c.add(p, "leads to the same URL again; give a host, a path or a prefix")
	}
	if to.Host != "" {
		if err := checkHostPort(strings.ToLower(to.Host)); err != nil {
			c.add(p.key("host"), "%q is not a host: %s", shorten(to.Host), err)
		}
	}
	path, _, _ := strings.Cut(to.Path, "?")
	if to.Path != "" {
		if fault := plainPath(path); fault != "" {
			c.add(p.key("path"), "%s", fault)
		} else if !printable(to.Path) {
			c.add(p.key("path"), "has a query with a character that a URL cannot hold; write it percent-encoded")
		}
	}
	if to.Prefix == "" {
		return
	}
	if fault := plainPath(to.Prefix); fault != "" {
		c.add(p.key("prefix"), "%s", fault)
	}
	if to.Path != "" {
		c.add(p.key("prefix"), "excludes path; remove one of the two")
	}
	if r.Path != "" || r.Regex != "" {
		c.add(p.key("prefix"), "replaces the prefix that the route matches, but the route matches a path or a regex; use path")
	}
}

// response checks a fixed response.
func (c *checker) response(p place, r *Response) {
	if r == nil {
		return
	}
	if r.Status < 200 || r.Status > 599 {
		c.add(p.key("status"), "%d is not the status of a response; it is 200 to 599", r.Status)
	}
	if len(r.Body) > maxBody {
		c.add(p.key("body"), "has %d bytes; a fixed response has at most %d, so serve it from an upstream", len(r.Body), maxBody)
	}
}

// matchName is how a route's match is called in messages.
func matchName(kind, value string) string {
	if kind == kindConnect {
		return "CONNECT"
	}
	if kind == "prefix" && value == "/" {
		return "every path"
	}
	return fmt.Sprintf("%s %q", kind, value)
}
