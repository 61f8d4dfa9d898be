package config

import (
	"reflect"
	"slices"
	"time"
)

// kindConnect is the kind of match of a route to a TCP service.
const kindConnect = "connect"

// serviceIdle is the idle_timeout of such a route, when it does not say.
const serviceIdle = Duration(time.Hour)

// serviceKeys are the keys that say something of a route to a TCP service. Of such a connection the edge sees who opens it, and bytes.
var serviceKeys = []string{
	"name", "from", "to", "labels", "groups", "policy", "shadow_policy", "allow_anonymous", "unauthenticated", "idp", "max_age", "acr_values", "bearer",
	"idle_timeout",
}

// routeKeys are all keys of a route.
func routeKeys() *keySet {
	known := &keySet{index: make(map[string][]int)}
	known.add(reflect.TypeFor[Route](), nil)
	return known
}

// settle puts the host of a TCP service at the edge's port, which such a route does not name: the sign-in host's.
func (r *Route) settle(auth URL) {
	if r.TCP() && !auth.IsZero() {
		r.From = r.From.atPort(auth.Port())
	}
}

// service checks what only a route to a TCP service has, or lacks, and completes it.
func (c *checker) service(p place, r *Route) {
	if !r.TCP() {
		return
	}
	if !p.has("idle_timeout") {
		idle := serviceIdle
		r.IdleTimeout = &idle
	}
	r.Timeout = nil
	for _, key := range routeKeys().names {
		if p.has(key) && !slices.Contains(serviceKeys, key) {
			c.add(p.key(key), "has no effect on a route to a TCP service; remove it")
		}
	}
	if r.Bearer != nil && r.Bearer.ForwardToken {
		c.add(p.key("bearer").key("forward_token"), "has no effect on a route to a TCP service; remove it")
	}
}
