package authz

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"doorward/authz/policy"
	"doorward/authz/session"
	"doorward/authz/token"
)

// mint returns the identity JWT for a session on a route, made anew or reused while more than half of its life is left.
func (s *Server) mint(r *route, found *session.Session, d *policy.Decision) (*minted, error) {
	key := tokenKey{found.ID, found.Version, r.Name, r.revision, s.Tokens.KeyID(), d.ClaimsDigest}
	now := s.Now()
	if m, ok := s.minted.get(key, now); ok {
		return m, nil
	}
	jwt, expires, err := s.Tokens.Mint(identity(r, found.User, session.HashID(found.ID), found.Expires, d.Claims))
	if err != nil {
		return nil, fmt.Errorf("sign the identity JWT: %w", err)
	}
	m := newMinted(r.edge.header, jwt, now.Add(expires.Sub(now)/2))
	s.minted.put(key, m, now)
	return m, nil
}

// identity is the content of the JWT. The e-mail is there only when it is verified, because upstreams key accounts by it.
func identity(r *route, u session.User, sid string, end time.Time, extra map[string]any) token.Claims {
	c := token.Claims{
		Issuer: r.host, Audience: r.host, Subject: u.ID, Name: u.Name, Groups: u.Groups, SID: sid, NotAfter: end, Extra: extra,
	}
	if u.EmailVerified {
		c.Email = u.Email
	}
	if name, ok := u.Claims["preferred_username"].(string); ok {
		c.PreferredUsername = name
	}
	return c
}

// tokenKey has everything that a token's content depends on.
type tokenKey struct {
	session  string
	version  uint64
	route    string
	revision string
	key      string
	claims   string // digest of the policy's
}

// minted is a token as it goes into answers.
type minted struct {
	option []byte    // the header that carries it, as an encoded field of OkHttpResponse
	answer []byte    // the whole answer that sets this header, takes the Cookie header away, and does nothing else
	stop   time.Time // not given out from then on
}

func newMinted(header, jwt string, stop time.Time) *minted {
	m := &minted{option: option(nil, okHeaders, header, jwt), stop: stop}
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
