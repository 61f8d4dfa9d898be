package authz

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"doorward/authz/bearer"
	"doorward/authz/config"
	"doorward/authz/policy"
	"doorward/authz/web"
)

// answer puts a verdict into Envoy's terms and writes the decision record.
func (s *Server) answer(req *request, v verdict, start time.Time) []byte {
	if v.preflight {
		d := v.route.cors.toPreflight(req)
		s.record(req, v, d.status, start)
		return d.encode()
	}
	if v.outcome == allowed {
		v.metadata = s.withTicket(req, v)
		s.record(req, v, 200, start)
		return allow(req, v).encode()
	}
	d := s.denial(req, v)
	if v.route != nil && v.route.cors != nil {
		d.header = v.route.cors.addTo(d.header, req)
	}
	d.metadata = v.metadata
	s.record(req, v, d.status, start)
	return d.encode()
}

// allow carries the identity and the policy's headers to the upstream, and takes our cookies away. Identity headers that a client sent are
// gone before Envoy asks: xds has them removed from every request, on routes without a check too.
func allow(req *request, v verdict) permission {
	p := permission{
		jwt: v.jwt, set: v.decision.Headers, remove: slices.Clip(v.decision.RemoveHeaders), responseSet: v.decision.ResponseHeaders, metadata: v.metadata,
		setQuery: v.decision.SetQuery, removeQuery: v.decision.RemoveQuery,
	}
	if v.jwt == nil {
		p.remove = append(p.remove, v.route.withoutIdentity(v.decision.Headers)...)
	}
	if c := v.route.cors; c != nil {
		p.responseSet = c.addTo(p.responseSet, req)
	}
	if req.bearer && !v.forwards() && !v.setsAuthorization() {
		p.remove = append(p.remove, headerAuthorization)
	}
	switch cookie, change := req.upstreamCookie(); {
	case change && cookie == "":
		p.remove = append(p.remove, "cookie")
	case change:
		p.cookie = cookie
	}
	return p
}

// forwards says whether the upstream is to see the bearer token: an issuer's, on a route that says so.
func (v *verdict) forwards() bool {
	return v.route.Bearer.ForwardToken && v.session.Provider != bearer.Provider
}

// setsAuthorization says whether the policy or the route puts something else into the place of the client's Authorization. Envoy takes headers away
// after it has set others.
func (v *verdict) setsAuthorization() bool {
	if _, set := v.decision.Headers[headerAuthorization]; set {
		return true
	}
	return v.jwt != nil && slices.ContainsFunc(v.route.plain, func(h plainHeader) bool { return h.name == headerAuthorization })
}

// upstreamCookie returns the Cookie header without our cookies, and whether it differs from what the client sent.
func (r *request) upstreamCookie() (value string, change bool) {
	var kept []string
	for _, h := range r.headers {
		if h.name != "cookie" {
			continue
		}
		rest, lost := withoutOurs(h.value)
		change = change || lost
		if rest != "" {
			kept = append(kept, rest)
		}
	}
	return strings.Join(kept, "; "), change
}

// permit refuses what only Doorward may do with the header of the identity JWT. What no policy at all may set, package policy has refused.
func (e *edge) permit(d *policy.Decision) error {
	for name := range d.Headers {
		if e.identity(name) {
			return fmt.Errorf("the policy sets the header %s, which carries the identity JWT: put what the upstream needs into claims", name)
		}
	}
	for _, name := range d.RemoveHeaders {
		if e.identity(name) {
			return fmt.Errorf("the policy removes the header %s, which carries the identity JWT: pass_identity_headers: false on the route does that", name)
		}
	}
	return nil
}

func (e *edge) identity(name string) bool {
	return strings.ReplaceAll(lower(name), "_", "-") == e.header
}

// denial chooses what a client gets: a page for a person, JSON for a program, a redirect to sign-in for a stranger's navigation.
func (s *Server) denial(req *request, v verdict) denial {
	switch v.outcome {
	case unauthenticated:
		return s.stranger(req, v)
	case denied:
		d := s.refusal(req, v)
		if v.cause == nil {
			maps.Copy(d.header, v.decision.ResponseHeaders)
		}
		return d
	case misdirected:
		return s.fault(req, 421, "Wrong host", "This connection was made for another host.", "Open the address again.")
	case malformed:
		return s.fault(req, 400, "Bad request", "The request cannot be understood.", "Open the address again, or remove this site's cookies.")
	default:
		return s.fault(req, 503, "Not available", "Whether you may see this cannot be decided at the moment.", "Try again in a few seconds.")
	}
}

// stranger answers a request without a session on a route that asks for one, or with one that is not good enough for it.
func (s *Server) stranger(req *request, v verdict) denial {
	r, message := v.route, "sign in to use this"
	if v.lacks != "" {
		message = "sign in again to use this"
	}
	if req.bearer {
		message = "the bearer token is not good here"
	}
	switch {
	case req.bearer: // a program, whatever its other headers say
	case r.Unauthenticated == config.Forbidden:
		return s.fault(req, 403, "Forbidden", "This is not open to you without a session.", "Sign in first.")
	case r.Unauthenticated != config.Unauthorized && req.navigation():
		return denial{status: 302, header: map[string]string{
			"location":        r.edge.prefix + "/sign_in?" + r.signIn(req.comeBack()),
			"cache-control":   "no-store",
			"referrer-policy": "no-referrer",
		}}
	case req.frame():
		d := s.fault(req, 401, "Sign in", "You are not signed in.", "Open this address in a window of its own to sign in.")
		d.header["www-authenticate"] = challenge(req, v)
		return d
	}
	d := problem(req, 401, "unauthenticated", message)
	if r.TCP() && r.Unauthenticated == config.Login && !req.bearer {
		d = complaint{Error: "unauthenticated", Message: message, Decision: req.id, SignIn: r.programSignIn()}.denial(401)
	}
	d.header["www-authenticate"] = challenge(req, v)
	return d
}

// programSignIn is where a person lets a program connect to the route's service (package login).
func (r *route) programSignIn() string {
	q := url.Values{}
	r.demand.AddTo(q)
	at := r.From.Origin() + r.edge.prefix + "/cli"
	if len(q) > 0 {
		at += "?" + q.Encode()
	}
	return at
}

// maxReturn keeps the redirect to sign-in well below the 60 KiB that Envoy takes as a request's headers.
const maxReturn = 8 << 10

// comeBack is the path and query to return to after sign-in.
func (r *request) comeBack() string {
	if len(r.target) > maxReturn {
		return "/"
	}
	return r.target
}

// signIn is the query of the sign-in page.
func (r *route) signIn(back string) string {
	q := url.Values{"return": {back}}
	r.demand.AddTo(q)
	return q.Encode()
}

// challenge is required with a 401 (RFC 9110, section 15.5.2). Browsers show no dialog for it. To a session that is not good enough it says
// what the route asks for (RFC 9470, section 3), and of a token that is not good that it is not (RFC 6750, section 3.1).
func challenge(req *request, v verdict) string {
	text := fmt.Sprintf("Bearer realm=%q", req.host)
	switch {
	case v.lacks == "" && req.bearer:
		return text + `, error="invalid_token"`
	case v.lacks == "":
		return text
	}
	text += `, error="insufficient_user_authentication"`
	if d := v.route.demand; d.MaxAge > 0 {
		text += fmt.Sprintf(`, max_age="%d"`, int(d.MaxAge.Seconds()))
	}
	if d := v.route.demand; len(d.ACR) > 0 {
		text += fmt.Sprintf(", acr_values=%q", strings.Join(d.ACR, " "))
	}
	return text
}

// refusal answers a person or program that the policy denies.
func (s *Server) refusal(req *request, v verdict) denial {
	reasons := v.decision.Reasons
	if v.cause != nil {
		reasons = []string{"The policy of this address does not work. Its operator finds the cause under the decision id."}
	}
	if v.cause == nil && v.decision.OwnDenial() {
		return s.ownDenial(req, v)
	}
	return s.ordinary(req, v, reasons)
}

// ownDenial is a denial in the form that the policy gave it. Only a navigation is redirected: for anything else, a form or a script that
// follows the redirect would take the other page for its answer.
func (s *Server) ownDenial(req *request, v verdict) denial {
	var d denial
	switch {
	case v.decision.Redirect != "" && req.navigation():
		d = denial{status: 302, header: map[string]string{"location": v.decision.Redirect, "cache-control": "no-store", "referrer-policy": "no-referrer"}}
	case v.decision.Body != "":
		d = denial{status: cmp.Or(v.decision.Status, 403), body: []byte(v.decision.Body), header: map[string]string{
			"content-type": v.decision.BodyType, "cache-control": "no-store", "x-content-type-options": "nosniff",
			"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
		}}
	case v.decision.Status != 0 && v.decision.Status < 400: // a redirect, or the answer to a preflight
		d = denial{status: v.decision.Status, header: map[string]string{"cache-control": "no-store"}}
	default:
		d = s.ordinary(req, v, v.decision.Reasons)
		d.status = cmp.Or(v.decision.Status, d.status)
	}
	if d.status == 204 || d.status == 304 {
		d.body = nil // such an answer ends with its headers (RFC 9112, section 6.3)
	}
	return d
}

// ordinary is the page for a person and the JSON for a program.
func (s *Server) ordinary(req *request, v verdict, reasons []string) denial {
	if !req.person() {
		return problem(req, 403, "denied", strings.Join(reasons, "; "))
	}
	page := web.Denied{
		Host: req.host, Reasons: reasons, DecisionID: req.id, SignOutURL: v.route.edge.prefix + "/sign_out",
	}
	if v.session != nil {
		page.Person = web.Person{Name: cmp.Or(v.session.User.Name, v.session.User.Email, v.session.User.ID), Email: v.session.User.Email, Groups: v.session.User.Groups}
	}
	return shown(s.Pages.Denied(page))
}

// fault answers with an error page or its JSON.
func (s *Server) fault(req *request, status int, title, message, remedy string) denial {
	if !req.person() {
		return problem(req, status, lower(strings.ReplaceAll(title, " ", "_")), message)
	}
	return shown(s.Pages.Error(web.Error{Status: status, Title: title, Message: message, Remedy: remedy, RequestID: req.id}))
}

func shown(p web.Page) denial {
	d := denial{status: p.Status, header: make(map[string]string, len(p.Header)), body: p.Body}
	for name, value := range p.Header {
		d.header[lower(name)] = value
	}
	return d
}

// person says whether somebody will read the answer's body as a page.
func (r *request) person() bool { return r.navigation() || r.frame() }

// problem is the JSON body for programs. Of an answer to gRPC Envoy makes a status of gRPC, with the body as its message, which people read.
func problem(req *request, status int, code, message string) denial {
	if req.grpc() {
		return denial{status: status, body: []byte(cmp.Or(message, code) + " (decision " + req.id + ")"), header: make(map[string]string)}
	}
	return complaint{Error: code, Message: message, Decision: req.id}.denial(status)
}

// complaint is what a program is told.
type complaint struct {
	Error    string `json:"error"`
	Message  string `json:"message,omitempty"`
	Decision string `json:"decision_id"`
	SignIn   string `json:"sign_in,omitempty"` // of a TCP service: where a person lets the program connect
}

func (c complaint) denial(status int) denial {
	body, err := json.Marshal(c)
	if err != nil {
		body = []byte(`{"error":"denied"}`)
	}
	return denial{status: status, body: append(body, '\n'), header: map[string]string{
		"content-type": "application/json", "cache-control": "no-store", "x-content-type-options": "nosniff",
	}}
}

// plainID says whether an id is safe to show and log as it is: Envoy's is a UUID.
func plainID(id string) bool {
	return len(id) >= 16 && len(id) <= 64 && strings.Trim(id, "0123456789abcdefABCDEF-") == ""
}

func newID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
