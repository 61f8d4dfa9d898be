package authz

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"doorward/authz/policy"
	"doorward/authz/session"
)

// mint returns the identity JWT for a session on a route at a host, made anew or reused while more than half of its life is left.
func (s *Server) mint(r *route, host string, found *session.Session, d *policy.Decision) (*minted, error) {
	key := tokenKey{found.ID, found.Version, r.Name, r.token, s.Tokens.KeyID(), d.ClaimsDigest, ""}
	if r.wild {
		key.host = host
	}
	now := s.Now()
	if m, ok := s.minted.get(key, now); ok {
		return m, nil
	}
	claims := identity(r, host, found.User, session.HashID(found.ID), found.Expires, d.Claims)
	jwt, expires, err := s.Tokens.Mint(claims)
	if err != nil {
		return nil, fmt.Errorf("sign the identity JWT: %w", err)
	}
	s.weigh(r, jwt)
	var fields []byte
	if r.PassIdentity() {
		fields = option(fields, okHeaders, r.edge.header, jwt)
	}
	value := claimValues(&claims, found.User, jwt)
	if fields, err = render(fields, r.plain, value); err != nil {
		return nil, err
	}
	metadata, err := encodeMetadata(repeated(r.plain, value))
	if err != nil {
		return nil, err
	}
	m := newMinted(fields, metadata, now.Add(expires.Sub(now)/2))
	s.minted.put(key, m, now)
	return m, nil
}

// weigh warns of a token so large that upstreams may refuse the request (400 or 431), not more often than faults are told.
func (s *Server) weigh(r *route, jwt string) {
	if r.edge.budget == 0 || len(jwt) <= r.edge.budget {
		return
	}
	if held, ok := r.heavy.pass(s.Now()); ok {
		s.Log.Warn("an identity JWT is larger than jwt.size_budget: list the claims that the upstream needs in the route's claims, or the groups in its policy",
			"route", r.Name, "bytes", len(jwt), "budget", r.edge.budget, "others", held)
	}
}

// tokenKey has everything that a token and the headers that carry it depend on.
type tokenKey struct {
	session string
	version uint64
	route   string
	made    string // route.token
	key     string
	claims  string // digest of the policy's
	host    string // of a route that serves several
}

// minted is a token as it goes into answers.
type minted struct {
	option   []byte    // the headers that carry it, as encoded fields of OkHttpResponse
	metadata []byte    // of which the route makes headers with a line for each value, as an encoded Struct; nil for none
	answer   []byte    // the whole answer that sets these headers, takes the Cookie header away, and does nothing else
	stop     time.Time // not given out from then on
}

func newMinted(fields, metadata []byte, stop time.Time) *minted {
	m := &minted{option: fields, metadata: metadata, stop: stop}
	m.answer = permission{jwt: m, remove: []string{"cookie"}}.build()
	at := bytes.Index(m.answer, m.option)
	m.option = m.answer[at : at+len(m.option)] // one copy for both
	return m
}

// tokenCacheSize bounds the tokens kept: about 1 KiB each.
const tokenCacheSize = 1 << 15

// tokenCache keeps minted tokens in two halves: when the young one is full it becomes the old one, so what is used stays and the
// rest goes, at no cost per use.
type tokenCache struct {
	mu         sync.Mutex // guards what follows
	young, old map[tokenKey]*minted
	uses       TokenUse
}

// TokenUse counts identity JWTs since the start.
type TokenUse struct {
	Reused uint64
	Minted uint64
}

// TokenUse returns how often identity JWTs were reused. It may be called at any time.
func (s *Server) TokenUse() TokenUse {
	s.minted.mu.Lock()
	defer s.minted.mu.Unlock()
	return s.minted.uses
}

func newTokenCache() *tokenCache { return &tokenCache{young: make(map[tokenKey]*minted)} }

func (c *tokenCache) get(key tokenKey, now time.Time) (*minted, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.young[key]
	if !ok {
		if m, ok = c.old[key]; ok {
			c.store(key, m)
		}
	}
	if ok = ok && now.Before(m.stop); ok {
		c.uses.Reused++
	} else {
		c.uses.Minted++
	}
	return m, ok
}

func (c *tokenCache) put(key tokenKey, m *minted, now time.Time) {
	if !now.Before(m.stop) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.store(key, m)
}

func (c *tokenCache) store(key tokenKey, m *minted) {
	if len(c.young) >= tokenCacheSize/2 {
		c.young, c.old = make(map[tokenKey]*minted, len(c.young)), c.young
	}
	c.young[key] = m
}
