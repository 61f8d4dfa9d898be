package config

import (
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
)

// longestPreflight is as long as browsers remember a preflight's answer at most: Firefox a day, Chromium two hours.
const longestPreflight = 24 * time.Hour

// methodToken is a method as applications have them: a token (RFC 9110, section 9.1) without lower-case letters, which browsers would compare as they
// stand.
var methodToken = regexp.MustCompile(`^[A-Z][A-Z0-9_-]*$`)

// cors checks which pages of other origins may read a route's answers.
func (c *checker) cors(p place, r *Route) {
	at := p.key("cors")
	if r.CORS == nil {
		return
	}
	if len(r.CORS.AllowOrigins) == 0 && !at.key("allow_origins").excused {
		c.add(at.key("allow_origins"), "required; name the origins whose pages may read the answers, as https://app.example.com")
	}
	for i, origin := range r.CORS.AllowOrigins {
		if fault := originFault(origin, r.CORS); fault != "" {
			c.add(at.key("allow_origins").orItem(i), "%s", fault)
		}
	}
	for i, method := range r.CORS.AllowMethods {
		if !methodToken.MatchString(method) {
			c.add(at.key("allow_methods").orItem(i), "%q is not a method; write each one in capitals, as PUT", shorten(method))
		}
	}
	for key, names := range map[string]Names{"allow_headers": r.CORS.AllowHeaders, "expose_headers": r.CORS.ExposeHeaders} {
		for i, name := range names {
			if !headerName.MatchString(name) || strings.Contains(name, "*") {
				c.add(at.key(key).orItem(i), "%q is not a header name; write each one out", shorten(name))
			}
		}
	}
	if age := time.Duration(r.CORS.MaxAge); age > longestPreflight || age%time.Second != 0 {
		c.add(at.key("max_age"), "%s must be whole seconds and at most %s: no browser remembers it for longer", age, longestPreflight)
	}
	for _, name := range slices.Sorted(maps.Keys(r.SetResponseHeaders)) {
		if strings.HasPrefix(canonicalHeader(name), "access-control-") {
			c.add(p.key("set_response_headers").key(name), "contradicts cors, which says all of that; remove it")
		}
	}
}

// originFault says why something is no origin that may be allowed, or "".
func originFault(origin string, c *CORS) string {
	switch {
	case origin == "*" && c.AllowCredentials:
		return `"*" cannot go with allow_credentials: every page could act as whoever looks at it; name the origins`
	case origin == "*" && len(c.AllowOrigins) > 1:
		return `"*" is every origin; remove the others, or "*"`
	case origin == "*":
		return ""
	case origin == "null":
		return `"null" is the origin of every sandboxed frame, anybody's; name the origins`
	}
	u, err := ParseURL(origin)
	switch {
	case err != nil:
		return err.Error()
	case u.Path() != "":
		return "has a path; an origin is scheme, host and port, as https://app.example.com"
	case u.Scheme() == "http" && !isHere(u.Hostname()):
		return "must be https: over http anybody on the way can be that page; http is accepted for localhost, 127.0.0.1, [::1] and hosts below .localhost only"
	}
	return ""
}
