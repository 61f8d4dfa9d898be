package config

// serviceProvider begins the user ids of service tokens, as a provider's name begins those of its users.
const serviceProvider = "service"

// bearer checks which tokens of programs a route takes.
func (c *checker) bearer(p place, r *Route) {
	at := p.key("bearer")
	switch {
	case r.Bearer == nil:
	case r.Policy == PolicyPublic:
		c.add(at, "has no effect on a public route; remove it")
	case !r.Bearer.ServiceTokens && !at.key("service_tokens").excused:
		c.add(at, "takes no token at all; set service_tokens: true, or remove it")
	case r.Bearer.ServiceTokens && (p.has("max_age") || p.has("acr_values")):
		c.add(at.key("service_tokens"), "contradicts max_age and acr_values: nobody signs in for a service token; give programs a route of their own")
	}
}
