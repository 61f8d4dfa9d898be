package authz

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"doorward/authz/bearer"
	"doorward/authz/policy"
	"doorward/authz/session"
)

// Check answers one ext_authz query: in is an encoded CheckRequest, the result an encoded CheckResponse. Every failure becomes an
// explicit denial, never a gRPC error, so that no setting of Envoy's can turn a fault of ours into an allowed request.
func (s *Server) Check(ctx context.Context, in string) []byte {
	start := s.Now()
	req, err := parseRequest(in)
	if err != nil {
		return s.answer(req, verdict{outcome: malformed, cause: err}, start)
	}
	return s.answer(req, s.decide(ctx, s.current.Load(), req), start)
}

// verdict is what came out of one check, before it is put into Envoy's terms.
type verdict struct {
	outcome   outcome
	route     *route           // nil when the route is not known
	session   *session.Session // nil without a session
	hash      string           // of the session's id
	lacks     string           // what a session lacks that the client has, and that is as none for this route; "" for nothing
	decision  policy.Decision
	preflight bool    // the request asks whether another may be made, and is answered here
	metadata  []byte  // the policy's, for Envoy's access log
	jwt       *minted // nil when the upstream gets none
	cause     error   // for the log, never for the client
}

// outcome is the kind of a verdict; its text is the one in the log.
type outcome string

const (
	allowed         outcome = "allow"
	denied          outcome = "deny"            // the policy said no, or did not work
	unauthenticated outcome = "unauthenticated" // no session, and the policy does not decide on strangers
	misdirected     outcome = "misdirected"     // the host is not the route's, or not the TLS handshake's
	malformed       outcome = "malformed"       // the request cannot be decided on as it is
	unavailable     outcome = "unavailable"     // something of ours failed
)

// decide is the way of a request: route, host, session, policy, token.
func (s *Server) decide(ctx context.Context, g *Generation, req *request) (v verdict) {
	v.route = g.find(req.route, req.revision)
	if v.route == nil {
		return v.because(unavailable, errUnknownRevision)
	}
	if len(v.route.Groups) > 0 && !s.serves(ctx, v.route.Groups) {
		return v.because(unavailable, errGroup)
	}
	sent, known := g.sent(ctx)
	if !known || !sent.has(v.route.reads) {
		return v.because(unavailable, errHeaders)
	}
	if v.route.body && req.bodyLimit == "" {
		return v.because(unavailable, errBody)
	}
	if req.sni != req.host || !v.route.serves(req.host) {
		return v.because(misdirected, errMisdirected)
	}
	if v.route.TCP() != (req.method == methodConnect) {
		return v.because(misdirected, errMethod)
	}
	if v.preflight = v.route.cors.answers(req); v.preflight {
		return v.because(allowed, nil)
	}
	if err := v.route.policy.Waiting(); err != nil {
		return v.because(unavailable, err)
	}
	if v.route.edge.proxied && req.clientIP == req.peer {
		req.clientIP = "" // the nearest proxy's own: it did not say whom it speaks for
	}
	if v.session, v.cause = s.find(ctx, req, v.route); errors.Is(v.cause, bearer.ErrInvalid) {
		return v.because(unauthenticated, v.cause)
	} else if v.cause != nil {
		return v.because(unavailable, v.cause)
	}
	if v.session != nil {
		v.hash = session.HashID(v.session.ID)
		if v.lacks = v.route.unmet(v.session, s.Now(), req.bearer); v.lacks != "" {
			v.session = nil
		}
	}
	if v.lacks != "" && req.bearer {
		return v.stranger() // a program that says who it is is never taken for a stranger whom the policy might let in
	}
	in := input(v.route, req, v.session, v.hash)
	if v = v.judge(ctx, s.decisions, in); v.route.shadow != nil {
		s.shadows.offer(req, in, v, sent)
	}
	if v.outcome == allowed && v.session != nil && (v.route.PassIdentity() || v.route.plain != nil) {
		if v.jwt, v.cause = s.mint(v.route, req.host, v.session, &v.decision); v.cause != nil {
			return v.because(unavailable, v.cause)
		}
	}
	return v
}

// serves says whether the Envoy that asks is of one of the groups, as its certificate says. One on this machine is trusted.
func (s *Server) serves(ctx context.Context, groups []string) bool {
	if s.Caller == nil {
		return true
	}
	group, remote := s.Caller(ctx)
	return !remote || slices.Contains(groups, group)
}

// judge has the route's policy decide. Without a session it is asked only where the route says so.
func (v verdict) judge(ctx context.Context, decisions *policy.Cache, in *policy.Input) verdict {
	if in.User == nil && !v.route.Anonymous() {
		return v.stranger()
	}
	v.decision = decisions.Decide(ctx, v.route.policy, in)
	if v.cause = v.decision.Err; v.cause == nil {
		v.metadata, v.cause = policyMetadata(v.decision.Metadata)
	}
	if v.cause == nil {
		v.cause = v.route.edge.permit(&v.decision)
	}
	switch {
	case v.cause != nil:
		return v.because(denied, v.cause)
	case v.decision.Allow:
		return v.because(allowed, nil)
	case in.User == nil && !v.decision.OwnDenial():
		return v.stranger()
	default:
		return v.because(denied, nil)
	}
}

func (v verdict) stranger() verdict {
	if v.lacks != "" {
		return v.because(unauthenticated, errors.New(v.lacks))
	}
	return v.because(unauthenticated, nil)
}

var (
	errUnknownRevision = errors.New("the route's revision is not known here: Envoy has a configuration that this program does not have")
	errGroup           = errors.New("the route is for other groups of Envoys than the one that asks")
	errHeaders         = errors.New("not every header that the policy reads was sent by Envoy: its ext_authz filter is not the one of this configuration")
	errBody            = errors.New("the policy reads the request's body and Envoy's route does not send it: the route is not the one of this configuration")
	errMethod          = errors.New("the route is for CONNECT and the request is not, or the other way round")
	errMisdirected     = errors.New("the host differs from the route's or from the TLS server name")
)

func (v verdict) because(o outcome, cause error) verdict {
	v.outcome, v.cause = o, cause
	return v
}

// lastMoment of a session is too short for a JWT that an upstream would still accept.
const lastMoment = time.Second

// find returns the request's session, or nil when it has none. Where the route takes bearer tokens, one counts alone: a cookie beside it, which
// browsers add by themselves, is not looked at, whatever the token turns out to be.
func (s *Server) find(ctx context.Context, req *request, r *route) (*session.Session, error) {
	if r.bearer != nil {
		if token, there := req.bearerToken(); there {
			return s.findBearer(ctx, token, r)
		}
	}
	if req.cookie == "" {
		return nil, nil
	}
	found, err := s.Sessions.Find(ctx, req.cookie, cmp.Or(r.scope, req.host))
	if errors.Is(err, session.ErrNone) {
		return nil, nil
	}
	if err == nil && found.Expires.Sub(s.Now()) < lastMoment {
		return nil, nil
	}
	return found, err
}

// findBearer returns the session that a bearer token stands for.
func (s *Server) findBearer(ctx context.Context, token string, r *route) (*session.Session, error) {
	switch {
	case s.Bearer == nil:
		return nil, errNoBearer
	case token == "":
		return nil, errBearerForm
	}
	found, err := s.Bearer.Find(ctx, token, r.bearer)
	if err == nil && found.Expires.Sub(s.Now()) < lastMoment {
		return nil, errBearerOver
	}
	return found, err
}

var (
	errNoBearer   = errors.New("bearer tokens cannot be looked up here")
	errBearerForm = fmt.Errorf("%w: there are several Authorization headers, or what is in it is not written as a token is", bearer.ErrInvalid)
	errBearerOver = fmt.Errorf("%w: it expires at this moment", bearer.ErrInvalid)
)

// input is what the policy may read. It holds references, no copies: policies cannot change it.
func input(r *route, req *request, s *session.Session, hash string) *policy.Input {
	var one struct { // allocated at once
		in      policy.Input
		user    policy.User
		session policy.Session
	}
	in := &one.in
	*in = policy.Input{
		Route: r.input,
		Request: policy.Request{
			Method: req.method, Scheme: req.scheme, Host: req.host, Path: req.path, Query: req.query,
			Headers: req.visible, Names: req.names, ClientIP: req.clientIP, Target: req.target, Authority: req.authority,
		},
	}
	if r.asks {
		in.Request.Attribute = req.attribute
	}
	if s != nil {
		one.user = policy.User(s.User)
		one.session = visible(s, hash)
		in.User, in.Session = &one.user, &one.session
	}
	return in
}

// visible is what policies see of a session.
func visible(s *session.Session, hash string) policy.Session {
	return policy.Session{
		ID: hash, Created: unix(s.Created), Expires: unix(s.Expires), AuthTime: unix(s.AuthTime),
		AMR: s.AMR, ACR: s.ACR, Version: s.Version,
	}
}

func unix(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}
