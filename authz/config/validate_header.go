package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

const (
	maxHeaderName  = 256  // bytes
	maxHeaderValue = 8192 // bytes; Envoy takes 16384, and every % is written twice for it
	// cookiePrefix begins the name of every cookie of Doorward's.
	cookiePrefix = "__host-doorward"
)

// headerName is a field name: a token (RFC 9110, section 5.6.2).
var headerName = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")

// hopByHop are the headers that belong to one connection (RFC 9110, section 7.6.1) or say where a message ends.
var hopByHop = []string{
	"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "te", "trailer",
	"transfer-encoding", "upgrade", "content-length",
}

// reservedHeader says why a header may neither be set nor removed, as the end of a sentence that begins with its name, or "".
func reservedHeader(name string) string {
	name = canonicalHeader(name)
	switch {
	case name == "host":
		return "is changed by preserve_host_header and host_rewrite alone"
	case slices.Contains(hopByHop, name):
		return "belongs to the connection and is Envoy's to set"
	case strings.HasPrefix(name, "x-envoy-"):
		return "is an instruction to Envoy, which could change timeouts, retries or routing"
	case strings.HasPrefix(name, "x-doorward-"):
		return "is one of Doorward's own"
	}
	return ""
}

// takenHeader says whether a header has a meaning that does not go with the identity JWT: sign-in reads it, or Envoy or every
// application does.
func takenHeader(name string) bool {
	name = canonicalHeader(name)
	for _, prefix := range []string{"sec-", "x-forwarded-", "accept-", "content-", "access-control-", "if-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return slices.Contains([]string{
		"authorization", "cookie", "set-cookie", "accept", "origin", "referer", "user-agent", "forwarded", "x-request-id", "date", "expect",
		"range", "location", "cache-control", "traceparent", "tracestate",
	}, name)
}

// canonicalHeader makes one of the spellings that applications behind CGI and WSGI cannot tell apart.
func canonicalHeader(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// headers checks what a route sets and removes.
func (c *checker) headers(p place, r *Route) {
	c.headerSet(p, "set_request_headers", "remove_request_headers", r.SetRequestHeaders, r.RemoveRequestHeaders)
	c.headerSet(p, "set_response_headers", "remove_response_headers", r.SetResponseHeaders, r.RemoveResponseHeaders)
}

func (c *checker) headerSet(p place, setKey, removeKey string, set map[string]string, remove []string) {
	for key, n := range map[string]int{setKey: len(set), removeKey: len(remove)} {
		if n > maxEntriesPerRoute {
			c.add(p.key(key), "has %d headers; at most %d are possible", n, maxEntriesPerRoute)
			return
		}
	}
	seen := make(map[string]string, len(set))
	for _, name := range slices.Sorted(maps.Keys(set)) {
		at := p.key(setKey).key(name)
		at.field = join(p.field, setKey) + "." + shorten(name)
		if before := seen[canonicalHeader(name)]; before != "" {
			c.add(at, "is the same header as %s; remove one of them", shorten(before))
		}
		seen[canonicalHeader(name)] = name
		if fault := c.nameFault(name); fault != "" {
			c.add(at, "%s", fault)
		} else if fault := valueFault(name, set[name]); fault != "" {
			c.add(at, "%s", fault)
		}
	}
	for i, name := range remove {
		at := p.key(removeKey).item(i)
		if fault := c.nameFault(name); fault != "" {
			c.add(at, "%s", fault)
		} else if seen[canonicalHeader(name)] != "" {
			c.add(at, "%s is in %s too; keep one of the two", name, setKey)
		}
	}
}

// nameFault says why a route cannot set or remove a header, or "".
func (c *checker) nameFault(name string) string {
	switch {
	case strings.HasPrefix(name, ":"):
		return fmt.Sprintf("%q is a pseudo-header; routes change it by their rewrite keys", shorten(name))
	case !headerName.MatchString(name) || len(name) > maxHeaderName:
		return fmt.Sprintf("%q is not a header name (RFC 9110, section 5.1); it has letters, digits and hyphens", shorten(name))
	case canonicalHeader(name) == canonicalHeader(c.c.JWT.Header):
		return name + " carries the identity JWT, which only Doorward sets; use pass_identity_headers: false to leave it out"
	case reservedHeader(name) != "":
		return name + " " + reservedHeader(name) + "; remove it"
	}
	return ""
}

// valueFault says why a header cannot have a value, or "". It never repeats the value: it may be a password of the upstream's.
func valueFault(name, value string) string {
	switch {
	case value == "":
		return "is empty; give a value, or use the key that removes headers"
	case len(value) > maxHeaderValue:
		return fmt.Sprintf("has %d bytes; at most %d are possible", len(value), maxHeaderValue)
	case strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return "has a line break or another control character, which a header cannot hold; remove it"
	case strings.TrimSpace(value) != value:
		return "begins or ends with a space, which a header cannot hold; remove it"
	case strings.HasSuffix(canonicalHeader(name), "cookie") && strings.Contains(strings.ToLower(value), cookiePrefix):
		return "holds a cookie of Doorward's own; use another name"
	}
	return ""
}
