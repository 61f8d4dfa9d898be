package authz

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"doorward/authz/config"
	"doorward/authz/decision"
	"doorward/authz/policy"
	"doorward/authz/session"
	"doorward/authz/token"
)

// What is kept of the last decisions, so that they can be explained. Those that did not allow have places of their own, because it is them
// that people ask about, and because allowed ones are many.
const (
	recentAllowed = 512
	recentOthers  = 1024
	recentBytes   = 16 << 10 // of one request; longer ones are not kept
)

// recent keeps the last decisions with what they were made from. Adding one takes neither a lock nor a copy of the request.
type recent struct {
	allowed, others ring
}

// ring holds the last decisions of its size.
type ring struct {
	next  atomic.Uint64
	slots []atomic.Pointer[kept]
}

// kept is a request with what came out. Both are never changed.
type kept struct {
	at      time.Time
	took    time.Duration
	request *request
	verdict verdict
	status  int
}

func newRecent() *recent {
	return &recent{
		allowed: ring{slots: make([]atomic.Pointer[kept], recentAllowed)},
		others:  ring{slots: make([]atomic.Pointer[kept], recentOthers)},
	}
}

func (r *recent) add(k *kept) {
	if len(k.request.question) > recentBytes {
		return
	}
	to := &r.others
	if k.verdict.outcome == allowed {
		to = &r.allowed
	}
	to.slots[(to.next.Add(1)-1)%uint64(len(to.slots))].Store(k)
}

// find returns the newest decision of that id, or nil.
func (r *recent) find(id string) (found *kept) {
	for _, from := range [...]*ring{&r.allowed, &r.others} {
		for i := range from.slots {
			if k := from.slots[i].Load(); k != nil && k.request.id == id && (found == nil || k.at.After(found.at)) {
				found = k
			}
		}
	}
	return found
}

// Recent is a decision with what it was made from. It is for the operator: its Input is the whole request as policies could read it.
type Recent struct {
	ID       string
	Time     time.Time
	Took     time.Duration
	Outcome  string // allow, deny, unauthenticated, misdirected, malformed or unavailable
	Status   int    // of the answer; 200 for one that was let through to the upstream
	Cause    error  // what did not work; nil when the policy's word was all
	Route    *config.Route
	Revision string
	Current  bool           // the route still has this revision
	Policy   *policy.Policy // nil, as Route and Input are, when Envoy named a route or revision that is not known
	Input    *policy.Input
	Decision policy.Decision
	Token    *token.Claims // of the identity JWT, nil when the upstream got none
}

// Recent returns one of the last decisions by its id; false when it is not, or no longer, kept.
func (s *Server) Recent(id string) (Recent, bool) {
	k := s.recent.find(id)
	if k == nil {
		return Recent{}, false
	}
	return s.describe(k), true
}

// Behind returns what a record was made from; false for a record of a request that was too large to be kept, or of a shadow policy.
func (s *Server) Behind(r decision.Record) (Recent, bool) {
	k, ok := r.Of.(*kept)
	if !ok {
		return Recent{}, false
	}
	return s.describe(k), true
}

// Last returns the newest records that match chooses of the decisions that are kept, at most n, oldest first.
func (s *Server) Last(n int, match func(*decision.Record) bool) []decision.Record {
	var all []decision.Record
	for _, from := range [...]*ring{&s.recent.allowed, &s.recent.others} {
		for i := range from.slots {
			if k := from.slots[i].Load(); k != nil {
				if r := k.Record(); match(&r) {
					all = append(all, r)
				}
			}
		}
	}
	slices.SortStableFunc(all, func(a, b decision.Record) int { return a.Time.Compare(b.Time) })
	return all[max(0, len(all)-n):]
}

func (s *Server) describe(k *kept) Recent {
	v := k.verdict
	r := Recent{
		ID: k.request.id, Time: k.at, Took: k.took, Outcome: string(v.outcome), Status: k.status, Cause: v.cause,
		Revision: k.request.revision, Decision: v.decision,
	}
	if v.route == nil {
		return r
	}
	r.Route, r.Policy = &v.route.Route, v.route.policy
	r.Current = s.current.Load().Revision(v.route.Name) == v.route.revision
	r.Input = input(v.route, k.request, v.session, v.hash)
	if v.jwt != nil {
		claims := identity(v.route, k.request.host, v.session.User, v.hash, v.session.Expires, v.decision.Claims)
		r.Token = &claims
	}
	return r
}

// ErrNoRoute says that the current configuration has no route of that name.
var ErrNoRoute = errors.New("there is no such route")

// Try decides an input as the current revision of a route would, without a request, a log record or a token. Of in, the route's part is
// replaced. The error is ErrNoRoute.
func (s *Server) Try(ctx context.Context, name string, in policy.Input) (Recent, error) {
	start := s.Now()
	r, err := s.current.Load().Try(ctx, name, in)
	r.Time, r.Took = start, s.Now().Sub(start)
	return r, err
}

// Try decides an input as Server.Try does, by a generation that need not be adopted. Time and Took of the result are zero. A request
// without a host is for the route's.
func (g *Generation) Try(ctx context.Context, name string, in policy.Input) (Recent, error) {
	found := g.routes.find(name)
	if found == nil {
		return Recent{}, fmt.Errorf("%w: %q", ErrNoRoute, name)
	}
	in.Route = found.input
	if in.Request.Host == "" {
		in.Request.Host, in.Request.Authority = found.host, found.host
	}
	r := Recent{Route: &found.Route, Revision: found.revision, Current: true, Policy: found.policy, Input: &in}
	v := verdict{route: found}.judge(ctx, nil, &in)
	r.Outcome, r.Decision, r.Cause = string(v.outcome), v.decision, v.cause
	if v.outcome == allowed && in.User != nil && in.Session != nil && found.PassIdentity() {
		claims := identity(found, in.Request.Host, session.User(*in.User), in.Session.ID, time.Unix(in.Session.Expires, 0), r.Decision.Claims)
		r.Token = &claims
	}
	return r, nil
}

// NotSent says that the request was denied because Envoy did not send every header, or the body, that the policy reads.
func (r *Recent) NotSent() bool { return errors.Is(r.Cause, errHeaders) || errors.Is(r.Cause, errBody) }

// RevisionUnknown says that the request was denied because Envoy named a route, or a revision of it, that is not known.
func (r *Recent) RevisionUnknown() bool { return errors.Is(r.Cause, errUnknownRevision) }

// Lacks says why the current revision of a route does not take a session, and has the person sign in again; "" when it takes it.
func (s *Server) Lacks(route string, found *session.Session) string {
	r := s.current.Load().routes.find(route)
	if r == nil {
		return ""
	}
	return r.unmet(found, s.Now(), false)
}

// Subject is who a session stands for, as policies see it.
func Subject(s *session.Session) (*policy.User, *policy.Session) {
	user, seen := policy.User(s.User), visible(s, session.HashID(s.ID))
	return &user, &seen
}
