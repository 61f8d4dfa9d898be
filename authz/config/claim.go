package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// StandardClaims are the names that a route may list beside the provider's own: they are in the identity JWT when it lists none.
var StandardClaims = []string{"email", "groups", "name", "preferred_username"}

// Claim returns the value at a path in claims: the claim of that very name, or, where the path has dots, a member of the object that a first part
// of it names, so that both "https://example.com/groups" and "realm_access.roles" are found.
func Claim(claims map[string]any, path string) (any, bool) {
	names := ClaimPath(claims, path)
	if names == nil {
		return nil, false
	}
	for _, name := range names[:len(names)-1] {
		claims = claims[name].(map[string]any) // ClaimPath has been there
	}
	return claims[names[len(names)-1]], true
}

// ClaimPath returns the names of the objects on the way to a path's value, and last its own; nil when there is no value.
func ClaimPath(claims map[string]any, path string) []string {
	if _, ok := claims[path]; ok {
		return []string{path}
	}
	for i, c := range path {
		if c != '.' {
			continue
		}
		if inner, ok := claims[path[:i]].(map[string]any); ok {
			if rest := ClaimPath(inner, path[i+1:]); rest != nil {
				return append([]string{path[:i]}, rest...)
			}
		}
	}
	return nil
}

// ClaimTexts reads a claim that is a text or an array of them. Anything else is an empty list, and so is what is no text in an array. It is never
// nil.
func ClaimTexts(claim any) []string {
	list := []string{}
	switch c := claim.(type) {
	case string:
		if c != "" {
			list = append(list, c)
		}
	case []any:
		for _, element := range c {
			if s, ok := element.(string); ok && s != "" {
				list = append(list, s)
			}
		}
	}
	return slices.Clip(list)
}

// Template is a text with places for claims: ${path}.
type Template string

// Expand puts claims into their places; false when one of them has no value.
func (t Template) Expand(value func(path string) (string, bool)) (string, bool) {
	var out strings.Builder
	for rest := string(t); rest != ""; {
		before, after, found := strings.Cut(rest, "${")
		out.WriteString(before)
		if !found {
			break
		}
		path, tail, _ := strings.Cut(after, "}")
		text, ok := value(path)
		if !ok {
			return "", false
		}
		out.WriteString(text)
		rest = tail
	}
	return out.String(), true
}

// Only returns the path of a template that is nothing but one place.
func (t Template) Only() (path string, ok bool) {
	path, ok = strings.CutPrefix(string(t), "${")
	path, closed := strings.CutSuffix(path, "}")
	return path, ok && closed && path != "" && !strings.ContainsAny(path, "{}")
}

// fault says what is wrong with a template; "" for nothing.
func (t Template) fault() string {
	rest, places := string(t), 0
	for {
		_, after, found := strings.Cut(rest, "${")
		if !found {
			break
		}
		path, tail, closed := strings.Cut(after, "}")
		if !closed || path == "" || strings.ContainsAny(path, "{$") {
			return fmt.Sprintf("%q has a place for a claim that is not closed or names none; write it as ${email}", shorten(string(t)))
		}
		rest, places = tail, places+1
	}
	if places == 0 {
		return fmt.Sprintf("%q has no place for a claim, as ${email}; for a fixed value use set_request_headers", shorten(string(t)))
	}
	return ""
}

// IdentityHeader is what one header tells of the person: a text with places for claims, or a list of places, of which each value becomes a header
// line of its own.
type IdentityHeader struct {
	Values []Template
	Each   bool
}

// MaxIdentityLines is how many lines an identity header may have that has one for each value. Further values are left out.
const MaxIdentityLines = 64

// identityHeaders checks the headers that carry the identity in plain form.
func (c *checker) identityHeaders(p place, r *Route) {
	at := p.key("identity_headers")
	if len(r.IdentityHeaders) > maxEntriesPerRoute {
		c.add(at, "has %d headers; at most %d are possible", len(r.IdentityHeaders), maxEntriesPerRoute)
		return
	}
	if r.Policy == PolicyPublic && p.has("identity_headers") {
		c.add(at, "has no effect on a public route; remove it")
	}
	seen := make(map[string]string)
	for _, name := range slices.Sorted(maps.Keys(r.IdentityHeaders)) {
		h := r.IdentityHeaders[name]
		one := at.key(name)
		one.field = join(p.field, "identity_headers") + "." + shorten(name)
		if before := seen[canonicalHeader(name)]; before != "" {
			c.add(one, "is the same header as %s; remove one of them", shorten(before))
		}
		seen[canonicalHeader(name)] = name
		if fault := c.nameFault(name); fault != "" {
			c.add(one, "%s", fault)
		}
		for i, t := range h.Values {
			switch path, only := t.Only(); {
			case h.Each && path == "jwt":
				c.add(one.orItem(i), "%q must be a text and not in a list: what is in a list goes through Envoy's metadata, where a token does not belong", string(t))
			case t.fault() != "":
				c.add(one.orItem(i), "%s", t.fault())
			case h.Each && !only:
				c.add(one.orItem(i), "%q must be one place for a claim and nothing else, since each of its values becomes a header", shorten(string(t)))
			}
		}
		if h.Each && strings.Contains(name, "%") {
			c.add(one, "has a %% in its name, which begins a command in what Envoy makes the lines of; give a text in place of a list")
		}
		if h.Each && canonicalHeader(name) == "authorization" {
			c.add(one, "can have one line only; give a text in place of a list")
		}
		if set := slices.ContainsFunc(r.RemoveRequestHeaders, func(n string) bool { return canonicalHeader(n) == canonicalHeader(name) }); set {
			c.add(one, "is in remove_request_headers too; keep one of the two")
		}
		for n := range r.SetRequestHeaders {
			if canonicalHeader(n) == canonicalHeader(name) {
				c.add(one, "is in set_request_headers too; keep one of the two")
			}
		}
	}
}

// claims checks the list of claims.
func (c *checker) claims(p place, r *Route) {
	for i, name := range r.Claims {
		if name == "" || slices.Contains(ownClaims, name) {
			c.add(p.key("claims").orItem(i), "%q cannot be listed: iss, sub, aud, exp, nbf, iat, jti and sid are always there, and others need a name", shorten(name))
		}
	}
}

// ownClaims are the token's own, which no list changes.
var ownClaims = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "email_verified"}
