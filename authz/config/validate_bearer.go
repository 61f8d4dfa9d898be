package config

import (
	"slices"
	"strings"
)

// serviceProvider begins the user ids of service tokens, as a provider's name begins those of its users.
const serviceProvider = "service"

// Programs are the names that the ids of users begin with, before a colon, who are programs.
func (c *Config) Programs() []string {
	names := []string{serviceProvider}
	for _, i := range c.Issuers {
		names = append(names, i.Name)
	}
	return names
}

// TokenAlgorithms are those that JWTs may be signed with: none of them with a secret, which whoever verifies could sign with too.
var TokenAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// tokenIssuers checks the issuers of JWTs.
func (c *checker) tokenIssuers(list place) {
	first := make(map[string]bool)
	for n := range c.c.Issuers {
		i, p := &c.c.Issuers[n], list.item(n)
		_, provider := c.c.IDP.Find(i.Name)
		switch {
		case !p.has("name"):
			c.add(p.key("name"), "required; routes name the issuer, and the ids of its users begin with it")
		case !providerName.MatchString(i.Name):
			c.add(p.key("name"), "%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(i.Name))
		case provider || first[i.Name]:
			c.add(p.key("name"), "%q is the name of another issuer or provider too: the ids of their users could not be told apart; choose another name", i.Name)
		case i.Name == serviceProvider:
			c.add(p.key("name"), "%q begins the ids of service tokens; choose another name", i.Name)
		}
		first[i.Name] = true
		c.tokenIssuer(p, i)
	}
}

func (c *checker) tokenIssuer(p place, i *TokenIssuer) {
	c.issuer(p, i.Issuer)
	if i.JWKSURL.Scheme() == "http" && !isHere(i.JWKSURL.Hostname()) {
		c.add(p.key("jwks_url"), "%q must be https: over http anybody on the way could put in keys of their own", shorten(i.JWKSURL.String()))
	}
	if len(i.Audiences) == 0 {
		c.add(p.key("audiences"), "required: without an audience any token of the issuer would do, whomever it was made for")
	}
	for n, audience := range i.Audiences {
		if audience == "" || strings.TrimSpace(audience) != audience {
			c.add(p.key("audiences").orItem(n), "%q is not an audience; write what tokens have in aud", shorten(audience))
		}
	}
	if len(i.Algorithms) == 0 {
		c.add(p.key("algorithms"), "is empty; name those that the issuer signs with, or remove it for RS256 and ES256")
	}
	for n, algorithm := range i.Algorithms {
		if !slices.Contains(TokenAlgorithms, algorithm) {
			c.add(p.key("algorithms").orItem(n), "%q is not one of %s", shorten(algorithm), strings.Join(TokenAlgorithms, ", "))
		}
	}
	if i.GroupsClaim == "" {
		c.add(p.key("groups_claim"), "is empty; name the claim that holds the groups, or remove the key for \"groups\"")
	}
	if i.CAFile != "" {
		if err := c.pool(i.CAFile); err != nil {
			c.add(p.key("ca_file"), "%s", err)
		}
		i.contents = c.files.sum("", []string{i.CAFile})
	}
}

func isHere(host string) bool { return IsLocalhost(host) || host == "127.0.0.1" || host == "::1" }

// bearer checks which tokens of programs a route takes.
func (c *checker) bearer(p place, r *Route) {
	at := p.key("bearer")
	if r.Bearer == nil {
		return
	}
	for n, name := range r.Bearer.Issuers {
		if !slices.ContainsFunc(c.c.Issuers, func(i TokenIssuer) bool { return i.Name == name }) {
			c.add(at.key("issuers").orItem(n), "there is no issuer %q in token_issuers", shorten(name))
		}
	}
	switch {
	case r.Policy == PolicyPublic:
		c.add(at, "has no effect on a public route; remove it")
	case len(r.Bearer.Issuers) == 0 && !r.Bearer.ServiceTokens && !at.key("service_tokens").excused && !at.key("issuers").excused:
		c.add(at, "takes no token at all; name issuers, or set service_tokens: true, or remove it")
	case r.Bearer.ForwardToken && len(r.Bearer.Issuers) == 0:
		c.add(at.key("forward_token"), "has no effect without issuers: a service token is never forwarded; remove it")
	case r.Bearer.ServiceTokens && (p.has("max_age") || p.has("acr_values")):
		c.add(at.key("service_tokens"), "contradicts max_age and acr_values: nobody signs in for a service token; give programs a route of their own")
	}
}
