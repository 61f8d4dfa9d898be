package authz

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"doorward/authz/config"
)

// Cross-origin requests (Fetch Standard, section 3.3): which other origins' pages may read what a route answers. All of it is said here, and nothing by
// the upstream, whose headers of this kind are removed on such a route (xds): so a preflight is answered before anybody is asked for a session,
// which browsers never send with one, and a page can read why it was denied.

// The request headers that are read on routes with cors.
const (
	headerOrigin        = "origin"
	headerRequestMethod = "access-control-request-method"
)

const allowOrigin = "access-control-allow-origin"

// cors is what one route answers. It is never changed.
type cors struct {
	origins   []string          // as browsers write them
	every     bool              // any origin, without credentials
	readable  map[string]string // headers of an answer that the page may read, beside allowOrigin
	preflight map[string]string // those of the answer to a preflight
}

// newCORS returns nil for a route without cors.
func newCORS(c *config.CORS) *cors {
	if c == nil {
		return nil
	}
	out := &cors{readable: map[string]string{}}
	for _, origin := range c.AllowOrigins {
		if u, err := config.ParseURL(origin); err == nil {
			out.origins = append(out.origins, u.Origin())
		}
		out.every = out.every || origin == "*"
	}
	if c.AllowCredentials {
		out.readable["access-control-allow-credentials"] = "true"
		out.every = false // the configuration refuses it; this is for who builds one otherwise
	}
	out.preflight = maps.Clone(out.readable)
	if len(c.ExposeHeaders) > 0 {
		out.readable["access-control-expose-headers"] = strings.Join(c.ExposeHeaders, ", ")
	}
	out.preflight["access-control-allow-methods"] = strings.Join(c.AllowMethods, ", ")
	if len(c.AllowHeaders) > 0 {
		out.preflight["access-control-allow-headers"] = strings.Join(c.AllowHeaders, ", ")
	}
	out.preflight["access-control-max-age"] = strconv.Itoa(int(time.Duration(c.MaxAge) / time.Second))
	return out
}

// origin is what allowOrigin is to say, "" when the request comes from no page that may read the answer. An opaque origin ("null") is anybody's:
// that of a sandboxed frame, for example.
func (c *cors) origin(req *request) string {
	origin, once := req.first(headerOrigin)
	switch {
	case !once || origin == "" || origin == "null":
		return ""
	case slices.Contains(c.origins, origin):
		return origin
	case c.every:
		return "*"
	}
	return ""
}

// answers says whether a request is a preflight (Fetch Standard, section 4.8) from a page that may make the request which it asks about. Any other
// OPTIONS is a request like others.
func (c *cors) answers(req *request) bool {
	if c == nil || req.method != "OPTIONS" {
		return false
	}
	method, once := req.first(headerRequestMethod)
	return once && method != "" && c.origin(req) != ""
}

// toPreflight is the answer to one.
func (c *cors) toPreflight(req *request) denial {
	d := denial{status: 204, header: maps.Clone(c.preflight)}
	d.header[allowOrigin] = c.origin(req)
	d.header["vary"] = "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
	return d
}

// addTo returns the headers of an answer with those that let a page read it, and without others of that kind. What a cache keeps of the answer
// depends on the origin, also where that origin may read nothing.
func (c *cors) addTo(header map[string]string, req *request) map[string]string {
	out := make(map[string]string, len(header)+len(c.readable)+2)
	for name, value := range header {
		if !strings.HasPrefix(name, "access-control-") {
			out[name] = value
		}
	}
	if origin := c.origin(req); origin != "" {
		maps.Copy(out, c.readable)
		out[allowOrigin] = origin
	}
	if vary := out["vary"]; vary != "" {
		out["vary"] = vary + ", Origin"
	} else {
		out["vary"] = "Origin"
	}
	return out
}
