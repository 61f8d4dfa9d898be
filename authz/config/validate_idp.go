package config

import (
	"regexp"
	"slices"
)

var (
	// providerName is part of `sub`, with a colon after it.
	providerName = regexp.MustCompile(`^[a-z0-9._-]{1,63}$`)
	// scopeToken is a scope (RFC 6749, section 3.3).
	scopeToken = regexp.MustCompile(`^[!#-\[\]-~]+$`)
)

// idp checks the provider. Only a configuration without any route that signs people in may do without one.
func (c *checker) idp(p place) {
	if !c.root.has("idp") {
		for _, r := range c.c.Routes {
			if r.Policy != "" && !r.Public() {
				c.add(p, "required because route %q is not public; add idp with issuer and client_id", shorten(r.Name))
				return
			}
		}
		return
	}
	idp := c.c.IDP
	if !providerName.MatchString(idp.Name) {
		c.add(p.key("name"), "%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(idp.Name))
	}
	c.issuer(p)
	if idp.ClientID == "" {
		c.add(p.key("client_id"), "required; the provider shows it where Doorward is registered as a client")
	}
	if len(idp.Scopes) == 0 || !slices.Contains(idp.Scopes, "openid") {
		c.add(p.key("scopes"), "openid is missing, without which a provider sends no ID token; add it")
	}
	for i, scope := range idp.Scopes {
		if !scopeToken.MatchString(scope) {
			c.add(p.key("scopes").item(i), "%q is not a scope; write each one as an item of the list, without spaces", shorten(scope))
		}
	}
	if idp.GroupsClaim == "" {
		c.add(p.key("groups_claim"), "is empty; name the claim that holds the groups, or remove the key for \"groups\"")
	}
	if idp.CAFile != "" {
		if err := c.pool(idp.CAFile); err != nil {
			c.add(p.key("ca_file"), "%s", err)
		}
	}
}

// issuer checks that nobody between can read codes and tokens, or answer in the provider's place.
func (c *checker) issuer(p place) {
	issuer := c.c.IDP.Issuer
	host := issuer.Hostname()
	switch {
	case !p.has("issuer"):
		c.add(p.key("issuer"), "required; it is the URL below which the provider serves /.well-known/openid-configuration")
	case issuer.Scheme() == "http" && !IsLocalhost(host) && host != "127.0.0.1" && host != "::1":
		c.add(p.key("issuer"), "%q must be https: over http anybody on the way could sign in as anybody; http is accepted for localhost, 127.0.0.1, [::1] and hosts below .localhost only",
			shorten(issuer.String()))
	}
}
