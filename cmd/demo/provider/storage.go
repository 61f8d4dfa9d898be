package provider

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const (
	scopeGroups     = "groups"
	requestLifetime = 10 * time.Minute
	accessLifetime  = 5 * time.Minute
	refreshLifetime = 12 * time.Hour
	sessionLifetime = 12 * time.Hour
)

// session is a browser that has signed in.
type session struct {
	sid     string
	user    string
	started time.Time
}

// grant is what a token stands for.
type grant struct {
	user, sid string
	scopes    []string
	authTime  time.Time
	expires   time.Time
}

// storage implements op.Storage in memory. Values in its maps are replaced, never changed.
type storage struct {
	client *client
	users  map[string]User
	key    signingKey
	now    func() time.Time

	mu       sync.Mutex
	requests map[string]*authRequest
	codes    map[string]string   // -> id of a request
	sessions map[string]*session // by the cookie's value
	access   map[string]grant    // by the token's id
	refresh  map[string]grant    // by the token
}

func newStorage(c Config) *storage {
	s := &storage{
		client: &client{Client: c.Client}, key: signingKey{c.Key}, now: c.Now, users: map[string]User{},
		requests: map[string]*authRequest{}, codes: map[string]string{}, sessions: map[string]*session{},
		access: map[string]grant{}, refresh: map[string]grant{},
	}
	for _, u := range c.Users {
		s.users[u.Username] = u
	}
	return s
}

// signIn checks a password and starts a session. The cookie is its value; ok is false for a wrong name or password.
func (s *storage) signIn(username, password string) (cookie string, started *session, ok bool) {
	user, known := s.users[username]
	if subtle.ConstantTimeCompare([]byte(password), []byte(user.Password)) != 1 || !known {
		return "", nil, false
	}
	cookie, started = random(32), &session{sid: random(16), user: username, started: s.now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	s.sessions[cookie] = started
	return cookie, started, true
}

// sessionOf returns the live session of a cookie, or nil.
func (s *storage) sessionOf(cookie string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	return s.sessions[cookie]
}

// complete notes who answered an authorization request. It is false when the request is gone.
func (s *storage) complete(id string, by *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	request, ok := s.requests[id]
	if !ok {
		return false
	}
	done := *request
	done.session = by
	s.requests[id] = &done
	return true
}

// sweep drops what has expired. The caller holds the lock.
func (s *storage) sweep() {
	now := s.now()
	for id, r := range s.requests {
		if now.Sub(r.created) > requestLifetime {
			delete(s.requests, id)
		}
	}
	for code, id := range s.codes {
		if s.requests[id] == nil {
			delete(s.codes, code)
		}
	}
	for cookie, one := range s.sessions {
		if now.Sub(one.started) > sessionLifetime {
			delete(s.sessions, cookie)
		}
	}
	for _, tokens := range []map[string]grant{s.access, s.refresh} {
		for token, g := range tokens {
			if now.After(g.expires) {
				delete(tokens, token)
			}
		}
	}
}

func (s *storage) CreateAuthRequest(_ context.Context, in *oidc.AuthRequest, _ string) (op.AuthRequest, error) {
	request := &authRequest{AuthRequest: *in, id: random(16), created: s.now()}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	s.requests[request.id] = request
	return request, nil
}

func (s *storage) AuthRequestByID(_ context.Context, id string) (op.AuthRequest, error) {
	if request := s.request(id); request != nil {
		return request, nil
	}
	return nil, errors.New("this sign-in is unknown or has expired")
}

// request returns a pending authorization request, or nil.
func (s *storage) request(id string) *authRequest {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	return s.requests[id]
}

// AuthRequestByCode takes the code: it is good for one presentation.
func (s *storage) AuthRequestByCode(_ context.Context, code string) (op.AuthRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	request, ok := s.requests[s.codes[code]]
	delete(s.codes, code)
	if !ok {
		return nil, errors.New("the code is unknown, used or expired")
	}
	return request, nil
}

func (s *storage) SaveAuthCode(_ context.Context, id, code string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[code] = id
	return nil
}

func (s *storage) DeleteAuthRequest(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.requests, id)
	return nil
}

func (s *storage) CreateAccessToken(_ context.Context, request op.TokenRequest) (string, time.Time, error) {
	g, err := grantOf(request)
	if err != nil {
		return "", time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	id, expires := s.addAccess(g)
	return id, expires, nil
}

// CreateAccessAndRefreshTokens replaces the refresh token that was presented, if one was.
func (s *storage) CreateAccessAndRefreshTokens(_ context.Context, request op.TokenRequest, presented string) (string, string, time.Time, error) {
	g, err := grantOf(request)
	if err != nil {
		return "", "", time.Time{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if presented != "" {
		if _, ok := s.refresh[presented]; !ok {
			return "", "", time.Time{}, op.ErrInvalidRefreshToken
		}
		delete(s.refresh, presented)
	}
	id, expires := s.addAccess(g)
	token := random(32)
	g.expires = s.now().Add(refreshLifetime)
	s.refresh[token] = g
	return id, token, expires, nil
}

// addAccess stores an access token. The caller holds the lock.
func (s *storage) addAccess(g grant) (id string, expires time.Time) {
	s.sweep()
	id = random(16)
	g.expires = s.now().Add(accessLifetime)
	s.access[id] = g
	return id, g.expires
}

func (s *storage) TokenRequestByRefreshToken(_ context.Context, token string) (op.RefreshTokenRequest, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	g, ok := s.refresh[token]
	if !ok {
		return nil, op.ErrInvalidRefreshToken
	}
	return &refreshRequest{grant: g, client: s.client.ID}, nil
}

// TerminateSession is not called: TerminateSessionFromRequest is.
func (s *storage) TerminateSession(_ context.Context, userID, _ string) error {
	s.end(func(one *session) bool { return one.user == userID })
	return nil
}

// TerminateSessionFromRequest ends the browser's session and the one that the id_token_hint names, with all their tokens.
func (s *storage) TerminateSessionFromRequest(ctx context.Context, request *op.EndSessionRequest) (string, error) {
	sids := map[string]bool{}
	if one := s.sessionOf(cookieOf(ctx)); one != nil {
		sids[one.sid] = true
	}
	if hint := request.IDTokenHintClaims; hint != nil && hint.SessionID != "" {
		sids[hint.SessionID] = true
	}
	s.end(func(one *session) bool { return sids[one.sid] })
	return request.RedirectURI, nil
}

// end deletes sessions and what was granted in them.
func (s *storage) end(which func(*session) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for cookie, one := range s.sessions {
		if !which(one) {
			continue
		}
		delete(s.sessions, cookie)
		for _, tokens := range []map[string]grant{s.access, s.refresh} {
			for token, g := range tokens {
				if g.sid == one.sid {
					delete(tokens, token)
				}
			}
		}
	}
}

func (s *storage) RevokeToken(_ context.Context, tokenOrID, _, _ string) *oidc.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.access, tokenOrID)
	delete(s.refresh, tokenOrID)
	return nil
}

func (s *storage) GetRefreshTokenInfo(_ context.Context, _, token string) (string, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.refresh[token]
	if !ok {
		return "", "", op.ErrInvalidRefreshToken
	}
	return g.user, token, nil
}

func (s *storage) SigningKey(context.Context) (op.SigningKey, error) { return s.key, nil }

func (s *storage) SignatureAlgorithms(context.Context) ([]jose.SignatureAlgorithm, error) {
	return []jose.SignatureAlgorithm{jose.RS256}, nil
}

func (s *storage) KeySet(context.Context) ([]op.Key, error) { return []op.Key{publicKey{s.key}}, nil }

func (s *storage) GetClientByClientID(_ context.Context, id string) (op.Client, error) {
	if id != s.client.ID {
		return nil, errors.New("unknown client")
	}
	return s.client, nil
}

func (s *storage) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id != s.client.ID || subtle.ConstantTimeCompare([]byte(secret), []byte(s.client.Secret)) != 1 {
		return errors.New("unknown client or wrong secret")
	}
	return nil
}

// SetUserinfoFromScopes does nothing: SetUserinfoFromRequest does it.
func (s *storage) SetUserinfoFromScopes(context.Context, *oidc.UserInfo, string, string, []string) error {
	return nil
}

// SetUserinfoFromRequest fills an ID token.
func (s *storage) SetUserinfoFromRequest(_ context.Context, info *oidc.UserInfo, request op.IDTokenRequest, scopes []string) error {
	g, err := grantOf(request)
	if err != nil {
		return err
	}
	info.AppendClaims("sid", g.sid)
	return s.describe(info, g.user, scopes)
}

// SetUserinfoFromToken fills an answer of the userinfo endpoint.
func (s *storage) SetUserinfoFromToken(_ context.Context, info *oidc.UserInfo, tokenID, subject, _ string) error {
	s.mu.Lock()
	s.sweep()
	g, ok := s.access[tokenID]
	s.mu.Unlock()
	if !ok || g.user != subject {
		return errors.New("the access token is unknown or has expired")
	}
	return s.describe(info, g.user, g.scopes)
}

// describe sets the claims of OpenID Connect Core 1.0, section 5.4, that the scopes ask for. Groups come with profile too.
func (s *storage) describe(info *oidc.UserInfo, username string, scopes []string) error {
	user, ok := s.users[username]
	if !ok {
		return errors.New("unknown user")
	}
	info.Subject = user.Username
	if slices.Contains(scopes, oidc.ScopeProfile) {
		info.Name, info.PreferredUsername = user.Name, user.Username
	}
	if slices.Contains(scopes, oidc.ScopeEmail) {
		info.Email, info.EmailVerified = user.Email, true
	}
	if slices.Contains(scopes, oidc.ScopeProfile) || slices.Contains(scopes, scopeGroups) {
		info.AppendClaims("groups", append([]string{}, user.Groups...))
	}
	return nil
}

func (s *storage) SetIntrospectionFromToken(context.Context, *oidc.IntrospectionResponse, string, string, string) error {
	return errors.New("introspection is not offered")
}

func (s *storage) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	return nil, nil
}

func (s *storage) GetKeyByIDAndClientID(context.Context, string, string) (*jose.JSONWebKey, error) {
	return nil, errors.New("clients have no keys here")
}

func (s *storage) ValidateJWTProfileScopes(context.Context, string, []string) ([]string, error) {
	return nil, errors.New("the JWT profile is not offered")
}

func (s *storage) Health(context.Context) error { return nil }

// random is n random bytes in hex.
func random(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails: crypto/rand
	return hex.EncodeToString(b)
}
