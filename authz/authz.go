// Package authz is the ext_authz server: for each request that Envoy asks about it finds the session, lets the route's policy
// decide, and answers with header mutations that carry a signed identity JWT, or with a denial.
//
// Check is read from top to bottom: check.go decides, request.go reads what Envoy sent, response.go writes the answer,
// generation.go holds the routes that it decides by. The package never matches a URL (Envoy says which route it chose), never asks an
// identity provider, and never allows a request because something went wrong.
package authz

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"doorward/authz/bearer"
	"doorward/authz/policy"
	"doorward/authz/session"
	"doorward/authz/token"
	"doorward/authz/web"
)

// SessionFinder finds the live session of a cookie on a host. session.ErrNone means that there is none; any other error
// that it cannot be known. Ticket names a session to who ends its open streams; nobody else can read or make one.
type SessionFinder interface {
	Find(ctx context.Context, cookie, host string) (*session.Session, error)
	Ticket(found *session.Session) string
}

// BearerFinder finds whose a bearer token is on a route that takes some: bearer.Finder is one. An error that wraps bearer.ErrInvalid says that the
// token is good for nothing there; any other error that it cannot be known.
type BearerFinder interface {
	Find(ctx context.Context, token string, a *bearer.Allowed) (*session.Session, error)
}

// Minter signs identity JWTs. KeyID names the key that the next Mint uses.
type Minter interface {
	Mint(c token.Claims) (jwt string, expires time.Time, err error)
	KeyID() string
}

// What the decisions that are kept may take: about half a KiB each.
const (
	decisionEntries = 1 << 16
	decisionBytes   = 64 << 20
)

// Config is what a Server needs. All fields but Bearer, Decisions, Caller and Now are required.
type Config struct {
	Sessions  SessionFinder
	Bearer    BearerFinder // routes that take bearer tokens answer 503 when nil
	Tokens    Minter
	Pages     *web.Pages
	Log       *slog.Logger     // has what does not work
	Decisions Recorder         // has every decision; none when nil
	Now       func() time.Time // time.Now when nil
	// Caller says whether a Check comes from an Envoy on another machine, and of which group that is. It is asked only about routes that are for some
	// groups of Envoys; when nil, every Envoy may ask about them.
	Caller func(ctx context.Context) (group string, remote bool)
}

// Server implements Envoy's authorization service. It is safe for concurrent use. Until the first Adopt it answers 503.
type Server struct {
	Config
	current   atomic.Pointer[Generation]
	decisions *policy.Cache
	minted    *tokenCache
	recent    *recent
	shadows   shadows
	latency   latency
	unrouted  tally // of requests whose route is not known, as what follows
	faults    gate
}

// New returns a Server that knows no route yet.
func New(c Config) (*Server, error) {
	if c.Sessions == nil || c.Tokens == nil || c.Pages == nil || c.Log == nil {
		return nil, errors.New("authz: Sessions, Tokens, Pages and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	s := &Server{Config: c, decisions: policy.NewCache(decisionEntries, decisionBytes), minted: newTokenCache(), recent: newRecent()}
	s.shadows.queue = make(chan shadowed, shadowQueue)
	s.current.Store(&Generation{routes: new(table), sets: map[string]headerSet{}})
	return s, nil
}

// Adopt makes g what is decided by, and keeps the revisions that it replaces, because Envoy may still route by them. Calls must
// not overlap.
func (s *Server) Adopt(g *Generation) { s.current.Store(g.after(s.current.Load())) }

// Current is the generation that is decided by.
func (s *Server) Current() *Generation { return s.current.Load() }

// Settle forgets retired revisions, which every Envoy has acknowledged the successors of. Calls must not overlap with each other or with Adopt.
func (s *Server) Settle(done ...Revision) { s.current.Store(s.current.Load().without(done)) }
