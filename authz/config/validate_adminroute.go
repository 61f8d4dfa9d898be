package config

import (
	"slices"
	"strings"
)

// AdminTarget is what a route's `to` is that leads to Doorward's own admin API.
const AdminTarget = "doorward://admin"

// adminTargets are the Targets of such a route.
func adminTargets() Targets {
	return Targets{{URL: UpstreamURL{URL{raw: AdminTarget, scheme: "doorward", host: "admin"}}, Weight: 1}}
}

// Admin says whether the route leads to the admin API.
func (r Route) Admin() bool { return len(r.To) == 1 && r.To[0].URL.String() == AdminTarget }

// adminKeys are the keys that say something of such a route. Whatever else there is says how an upstream is reached, or lets others than the API's
// own users at it.
var adminKeys = []string{
	"name", "from", "to", "path", "regex", "prefix", "labels", "groups", "policy", "shadow_policy", "policy_body_bytes", "unauthenticated", "idp",
	"max_age", "acr_values", "claims", "bearer", "hsts", "timeout", "idle_timeout", "streams",
}

// adminRoute checks a route to the admin API. Who gets at it decides who gets at everything.
func (c *checker) adminRoute(p place, r *Route) {
	if !r.Admin() {
		return
	}
	if r.Public() {
		c.add(p.key("policy"), "lets everybody change routes: name a Rego package that says who may use %s", AdminTarget)
	}
	if strings.HasPrefix(r.Host(), "*") {
		c.add(p.key("from"), "is a wildcard; %s has a host of its own", AdminTarget)
	}
	node := target(p.node)
	for i := 0; i+1 < len(node.Content); i += 2 {
		if key := target(node.Content[i]).Value; !slices.Contains(adminKeys, key) {
			c.add(p.key(key), "is not possible on a route to %s; remove it", AdminTarget)
		}
	}
}

// adminHosts checks that the admin API shares its host with nothing else: pages of the same origin can do what the person who looks at them can.
func (c *checker) adminHosts() {
	api := make(map[string]Route)
	for _, r := range c.c.Routes {
		if r.Admin() {
			api[r.Host()] = r
		}
	}
	if len(api) == 0 {
		return
	}
	for i, r := range c.c.Routes {
		if one, ok := api[r.Host()]; ok && !r.Admin() {
			c.add(c.routes[i].key("from"), "%s is the host of %s (route %q): its pages could do there what their readers can; give one of them another host",
				r.Host(), AdminTarget, shorten(one.Name))
		}
	}
}
