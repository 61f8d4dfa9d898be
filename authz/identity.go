package authz

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/token"
)

// identity is the content of the JWT for a host. The e-mail is there only when it is verified, because upstreams key accounts by it. A route that lists
// claims gets these and no others; whatever the policy adds comes on top.
func identity(r *route, host string, u session.User, sid string, end time.Time, extra map[string]any) token.Claims {
	c := token.Claims{Issuer: host, Audience: host, Subject: u.ID, SID: sid, NotAfter: end, Extra: extra}
	wanted := func(name string) bool { return r.Claims == nil || slices.Contains(r.Claims, name) }
	if u.EmailVerified && wanted("email") {
		c.Email = u.Email
	}
	if name, ok := u.Claims["preferred_username"].(string); ok && wanted("preferred_username") {
		c.PreferredUsername = name
	}
	if wanted("name") {
		c.Name = u.Name
	}
	if wanted("groups") {
		c.Groups = u.Groups
	}
	if more := listed(r.Claims, u.Claims); len(more) > 0 {
		maps.Copy(more, extra)
		c.Extra = more
	}
	return c
}

// listed are the claims of the provider that a route lists, at the places where the provider has them.
func listed(paths []string, claims map[string]any) map[string]any {
	out := map[string]any{}
	for _, path := range paths {
		if slices.Contains(config.StandardClaims, path) {
			continue
		}
		place, names := out, config.ClaimPath(claims, path)
		for i, name := range names {
			if i == len(names)-1 {
				place[name], _ = config.Claim(claims, path)
				break
			}
			inner, ok := place[name].(map[string]any)
			if !ok {
				inner = map[string]any{}
				place[name] = inner
			}
			place = inner
		}
	}
	return out
}

// plainHeader is one header that carries a part of the identity, for upstreams that read no JWT.
type plainHeader struct {
	name   string // lower case
	values []config.Template
	each   bool // a header for each value, in place of one with all of them
}

func plainHeaders(r config.Route) (headers []plainHeader) {
	for _, name := range slices.Sorted(maps.Keys(r.IdentityHeaders)) {
		h := r.IdentityHeaders[name]
		headers = append(headers, plainHeader{lower(name), h.Values, h.Each})
	}
	return headers
}

// withoutIdentity are the identity headers to take away from a request of nobody, but for those that the policy sets: what the client sent under
// such a name is no identity.
func (r *route) withoutIdentity(set map[string]string) (names []string) {
	for _, h := range r.plain {
		if _, given := set[h.name]; !given {
			names = append(names, h.name)
		}
	}
	return names
}

// maxPlain bounds what one identity header may hold, in bytes. A value that a header cannot hold, and in a list joined by commas one with a comma,
// is left out: it would be read as something else.
const maxPlain = 8 << 10

// render appends the headers of one line, as encoded fields of an OkHttpResponse, to b. One that has no value is taken away, so that nobody
// else's is taken for it.
func render(b []byte, headers []plainHeader, value func(path string) []string) ([]byte, error) {
	for _, h := range headers {
		if h.each {
			continue // by metadata
		}
		line, ok := h.values[0].Expand(func(path string) (string, bool) {
			list := value(path)
			several := len(list) > 1
			list = slices.DeleteFunc(slices.Clone(list), func(v string) bool { return !fits(v) || several && strings.Contains(v, ",") })
			return strings.Join(list, ","), len(list) > 0
		})
		switch {
		case !ok:
			b = stringField(b, okHeadersToRemove, h.name)
		case len(line) > maxPlain:
			return nil, fmt.Errorf("identity_headers: %s has %d bytes, more than the %d allowed", h.name, len(line), maxPlain)
		default:
			b = option(b, okHeaders, h.name, line)
		}
	}
	return b, nil
}

// repeated are the headers with a line for each value, as the metadata of which the route makes them (xds.MetadataIdentity): ext_authz would put
// all values into one line. What is beyond the lines that the route has is left out.
func repeated(headers []plainHeader, value func(path string) []string) map[string]any {
	all := map[string]any{}
	for _, h := range headers {
		if !h.each {
			continue
		}
		lines := map[string]any{}
		for _, t := range h.values {
			path, _ := t.Only()
			for _, v := range value(path) {
				if fits(v) && len(lines) < config.MaxIdentityLines {
					lines[strconv.Itoa(len(lines))] = v
				}
			}
		}
		all[h.name] = lines
	}
	if len(all) == 0 {
		return nil
	}
	return map[string]any{metadataIdentity: all}
}

// metadataIdentity is the name of Doorward's own part of the dynamic metadata. It is xds.MetadataIdentity.
const metadataIdentity = "doorward.identity"

// fits says whether a header can hold a text: UTF-8 without control characters, and not empty.
func fits(v string) bool {
	return v != "" && utf8.ValidString(v) && !strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// claimValues looks a path up: in the token's own claims, the policy's, then the provider's.
func claimValues(c *token.Claims, u session.User, jwt string) func(path string) []string {
	return func(path string) []string {
		switch path {
		case "jwt":
			return single(jwt)
		case "sub":
			return single(c.Subject)
		case "sid":
			return single(c.SID)
		case "email":
			return single(c.Email)
		case "name":
			return single(c.Name)
		case "preferred_username":
			return single(c.PreferredUsername)
		case "groups":
			if groups, ok := config.Claim(c.Extra, "groups"); ok {
				return textsOf(groups)
			}
			return c.Groups
		}
		if v, ok := config.Claim(c.Extra, path); ok {
			return textsOf(v)
		}
		v, _ := config.Claim(u.Claims, path)
		return textsOf(v)
	}
}

func single(s string) []string {
	if s == "" {
		return nil
	}
	return []string{s}
}

// textsOf are the texts of a claim: of a string, a number, a truth value, or an array of them.
func textsOf(claim any) (list []string) {
	switch v := claim.(type) {
	case string:
		return single(v)
	case json.Number:
		return single(string(v))
	case bool:
		return single(fmt.Sprint(v))
	case []string:
		return v
	case []any:
		for _, e := range v {
			if _, nested := e.([]any); !nested {
				list = append(list, textsOf(e)...)
			}
		}
	}
	return list
}
