package config

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

var (
	// providerName is part of `sub`, with a colon after it.
	providerName = regexp.MustCompile(`^[a-z0-9._-]{1,63}$`)
	// scopeToken is a scope (RFC 6749, section 3.3).
	scopeToken = regexp.MustCompile(`^[!#-\[\]-~]+$`)
)

// idpRequired checks that there is a provider: only a configuration without any route that signs people in may do without one.
func (c *checker) idpRequired(p place) {
	if c.root.has("idp") {
		return
	}
	for _, r := range c.c.Routes {
		if r.Policy != "" && !r.Public() {
			c.add(p, "required because route %q is not public; add idp with issuer and client_id", shorten(r.Name))
			return
		}
	}
}

// idps checks the providers.
func (c *checker) idps(p place) {
	if c.idpRequired(p); !c.root.has("idp") {
		return
	}
	if len(c.c.IDP) == 0 {
		c.add(p, "is empty; give a provider with issuer and client_id")
	}
	seen := make(map[string]bool)
	for i, idp := range c.c.IDP {
		at := provider(c.root, i)
		switch {
		case i > 0 && !at.has("name"):
			c.add(at.key("name"), "required for every provider but the first; routes name it, and the ids of its users begin with it")
		case idp.Name == serviceProvider:
			c.add(at.key("name"), "%q begins the ids of service tokens; choose another name", idp.Name)
		case seen[idp.Name]:
			c.add(at.key("name"), "%q is the name of another provider too; give each its own", shorten(idp.Name))
		}
		seen[idp.Name] = true
		c.idp(at, idp)
	}
}

// idp checks one provider.
func (c *checker) idp(p place, idp IDP) {
	if !providerName.MatchString(idp.Name) && !(idp.Name == "" && !p.has("name")) {
		c.add(p.key("name"), "%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(idp.Name))
	}
	if len(idp.Label) > maxLabel {
		c.add(p.key("label"), "has %d bytes; at most %d are possible", len(idp.Label), maxLabel)
	}
	c.issuer(p, idp.Issuer)
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
	if idp.GroupsOverage != "refuse" && idp.GroupsOverage != "ignore" {
		c.add(p.key("groups_overage"), "%q is neither refuse nor ignore", shorten(idp.GroupsOverage))
	}
	if idp.CAFile != "" {
		if err := c.pool(idp.CAFile); err != nil {
			c.add(p.key("ca_file"), "%s", err)
		}
	}
}

// issuer checks that nobody between can read codes and tokens, or answer in the provider's place.
func (c *checker) issuer(p place, issuer URL) {
	switch {
	case !p.has("issuer"):
		c.add(p.key("issuer"), "required; it is the URL below which the provider serves /.well-known/openid-configuration")
	case issuer.Scheme() == "http" && !isHere(issuer.Hostname()):
		c.add(p.key("issuer"), "%q must be https: over http anybody on the way could sign in as anybody; http is accepted for localhost, 127.0.0.1, [::1] and hosts below .localhost only",
			shorten(issuer.String()))
	}
}

// demands checks what a route asks of a session.
func (c *checker) demands(p place, r *Route) {
	for _, key := range []string{"idp", "max_age", "acr_values"} {
		if p.has(key) && r.Policy == PolicyPublic {
			c.add(p.key(key), "has no effect on a public route; remove it")
		}
	}
	for i, name := range r.IDP {
		if _, known := c.c.IDP.Find(name); !known && c.root.has("idp") {
			c.add(p.key("idp").orItem(i), "there is no provider %q; the names are %s", shorten(name), c.c.IDP.names())
		}
	}
	if a := time.Duration(r.MaxAge); p.has("max_age") && (a < minMaxAge || a%time.Second != 0) {
		c.add(p.key("max_age"), "%s must be at least %s, in whole seconds: a shorter one would ask for credentials again and again", a, minMaxAge)
	}
	for i, acr := range r.ACRValues {
		if !scopeToken.MatchString(acr) {
			c.add(p.key("acr_values").orItem(i), "%q is not an authentication class; write each one as an item of the list, without spaces", shorten(acr))
		}
	}
}

const (
	// maxLabel is how long the text on a button may be, in bytes.
	maxLabel = 80
	// minMaxAge leaves time for the way from the provider to the route.
	minMaxAge = time.Minute
)

func (all IDPs) names() string {
	names := make([]string, len(all))
	for i, idp := range all {
		names[i] = idp.Name
	}
	return strings.Join(names, ", ")
}
