package authz

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"doorward/authz/session"
)

// Keys of the context extensions that xds puts on each of Envoy's routes.
const (
	contextRoute    = "route"
	contextRevision = "revision"
	contextBody     = "body" // how many bytes of a body Envoy sends, or bodyNone; not there where it sends none
)

// request is what a check reads of Envoy's question. Header names are in lower case, as Envoy has them.
type request struct {
	id              string // of the request and of its decision; on pages and in logs
	route, revision string
	method, scheme  string
	authority       string // as sent
	host            string // of the authority: lower case, without port and trailing dot
	target          string // path and query, as sent
	path, query     string // normalised by Envoy; query without "?"
	sni             string
	clientIP        string // "" when the proxies in front of Envoy did not say it
	peer            string // the address of the connection
	mapped          bool   // a header map was there
	headers         []header
	cookie          string // the value of our cookie, "" without one
	bearer          bool   // the Authorization header is a bearer token for Doorward: nobody else sees it
	question        string // all of it, encoded
	bodyLimit       string // contextBody
}

// header is one header line. The value has the bytes that the client sent.
type header struct{ name, value string }

// methodConnect is that of a request to a TCP service. It has no path (RFC 9110, section 9.3.6; RFC 9113, section 8.5).
const methodConnect = "CONNECT"

// usualHeaders is how many Envoy sends when no policy reads others than the way of a request does.
const usualHeaders = 8

// parseRequest reads Envoy's question. The request is not nil even with an error, so that a denial can be logged.
func parseRequest(in string) (*request, error) {
	var one struct { // allocated at once
		request
		headers [usualHeaders]header
	}
	req := &one.request
	req.headers, req.question = one.headers[:0], in
	err := wireCheckRequest(req, in)
	if id, ok := req.first("x-request-id"); ok && plainID(id) {
		req.id = id // Envoy's own, which its access log and the upstream have too
	} else {
		req.id = newID()
	}
	if err != nil {
		return req, err
	}
	req.peer = req.clientIP
	if ip, ok := req.first(headerClientIP); ok {
		req.clientIP = ip
	}
	req.host = hostname(req.authority)
	if !req.mapped {
		return req, errors.New("no header map was sent: Envoy's ext_authz filter lacks encode_raw_headers")
	}
	req.path, req.query, _ = strings.Cut(req.target, "?")
	if !strings.HasPrefix(req.path, "/") && (req.method != methodConnect || req.target != "") {
		return req, fmt.Errorf("path %q does not begin with a slash", clip(req.path))
	}
	if err := req.checkConnection(); err != nil {
		return req, err
	}
	if err := req.markPartial(); err != nil {
		return req, err
	}
	return req, req.findCookie()
}

// checkConnection refuses an upgrade whose Connection header names more than the upgrade. Envoy passes that header on with an upgrade, and a
// proxy behind it would drop what it names (RFC 9110, section 7.6.1): our assertion, for example.
func (r *request) checkConnection() error {
	if _, upgrade := r.visible("upgrade"); !upgrade {
		return nil
	}
	connection, _ := r.visible("connection")
	for token := range strings.SplitSeq(connection, ",") {
		switch lower(strings.Trim(token, " \t")) {
		case "", "upgrade", "keep-alive", "close", "http2-settings":
		default:
			return fmt.Errorf("an upgrade whose Connection header names %q", clip(token))
		}
	}
	return nil
}

// findCookie sets the value of our cookie. A browser never sends two: they would be somebody's attempt to have one checked and the
// other used.
func (r *request) findCookie() error {
	for _, h := range r.headers {
		if h.name != "cookie" {
			continue
		}
		for name, value := range cookies(h.value) {
			if name != session.CookieName {
				continue
			}
			if r.cookie != "" && r.cookie != value {
				return errors.New("two different session cookies in one request")
			}
			r.cookie = value
		}
	}
	return nil
}

// bearerToken returns the token of a request that has an Authorization header with the scheme Bearer (RFC 6750, section 2.1), and takes the header
// out of everybody else's sight. The token is "" when it is not written as one must be, and when there are several such headers: one could be
// checked and the other used.
func (r *request) bearerToken() (token string, there bool) {
	lines := 0
	for _, h := range r.headers {
		if h.name != headerAuthorization {
			continue
		}
		lines++
		scheme := h.value
		if end := strings.IndexAny(scheme, " \t,"); end >= 0 {
			scheme = scheme[:end]
		}
		if strings.EqualFold(scheme, "bearer") {
			token, r.bearer = strings.Trim(h.value[len(scheme):], " "), true
		}
	}
	if lines > 1 || !tokenText(token) {
		token = ""
	}
	return token, r.bearer
}

// tokenText says whether a text has the form b64token (RFC 6750, section 2.1).
func tokenText(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-._~+/=", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// cookies yields name and value of each pair of a Cookie header (RFC 6265, section 4.2.1).
func cookies(value string) func(yield func(name, value string) bool) {
	return func(yield func(name, value string) bool) {
		for pair := range strings.SplitSeq(value, ";") {
			name, v, _ := strings.Cut(strings.Trim(pair, " \t"), "=")
			if !yield(name, v) {
				return
			}
		}
	}
}

// ours says whether a cookie is one that Doorward sets: the session's and those of sign-in.
func ours(cookie string) bool { return strings.HasPrefix(cookie, session.CookieName) }

// visible returns the value of a header as policies see it: repeated lines joined by ",", cookies without ours.
func (r *request) visible(name string) (string, bool) {
	var value string
	found := false
	for _, h := range r.headers {
		if h.name != name || r.bearer && name == headerAuthorization {
			continue
		}
		v := h.value
		if name == "cookie" {
			if v, _ = withoutOurs(v); v == "" {
				continue
			}
		}
		if found {
			value += separator(name) + v
		} else {
			value, found = v, true
		}
	}
	return strings.ToValidUTF8(value, "\uFFFD"), found
}

// separator joins repeated lines of a header: Cookie is the exception to the comma (RFC 9113, section 8.2.3).
func separator(name string) string {
	if name == "cookie" {
		return "; "
	}
	return ","
}

// names returns the names of all headers that policies see, each once.
func (r *request) names() []string {
	var names []string
	seen := make(map[string]bool, len(r.headers))
	for _, h := range r.headers {
		if seen[h.name] {
			continue
		}
		seen[h.name] = true
		if _, ok := r.visible(h.name); ok {
			names = append(names, h.name)
		}
	}
	return names
}

// first returns the value of a header that occurs exactly once; ok is false when it is absent or repeated.
func (r *request) first(name string) (value string, ok bool) {
	count := 0
	for _, h := range r.headers {
		if h.name == name {
			value = h.value
			count++
		}
	}
	return value, count == 1
}

// withoutOurs returns a Cookie header's value without our cookies, and whether there were any. What is not UTF-8 is left out too, since an
// answer cannot carry it.
func withoutOurs(value string) (rest string, lost bool) {
	kept := make([]string, 0, 8)
	for pair := range strings.SplitSeq(value, ";") {
		trimmed := strings.Trim(pair, " \t")
		name, _, _ := strings.Cut(trimmed, "=")
		switch {
		case ours(name):
			lost = true
		case trimmed != "" && utf8.ValidString(trimmed):
			kept = append(kept, trimmed)
		}
	}
	return strings.Join(kept, "; "), lost
}

// hostname returns the host of an authority in lower case, without port and trailing dot.
func hostname(authority string) string {
	host := authority
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	return lower(strings.TrimSuffix(host, "."))
}

func lower(s string) string { return strings.ToLower(s) }

// clip bounds what a client's text may take in a log line.
func clip(s string) string { return clipTo(s, 128) }

func clipTo(s string, most int) string {
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
