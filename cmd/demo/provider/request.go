package provider

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// authRequest is an authorization request that waits for its user, or for its code to be redeemed. It implements op.AuthRequest.
type authRequest struct {
	oidc.AuthRequest
	id      string
	created time.Time
	session *session // nil until the user has signed in
}

func (a *authRequest) GetID() string                      { return a.id }
func (a *authRequest) GetACR() string                     { return "" }
func (a *authRequest) GetAudience() []string              { return []string{a.ClientID} }
func (a *authRequest) GetClientID() string                { return a.ClientID }
func (a *authRequest) GetNonce() string                   { return a.Nonce }
func (a *authRequest) GetRedirectURI() string             { return a.RedirectURI }
func (a *authRequest) GetResponseType() oidc.ResponseType { return a.ResponseType }
func (a *authRequest) GetResponseMode() oidc.ResponseMode { return a.ResponseMode }
func (a *authRequest) GetScopes() []string                { return a.Scopes }
func (a *authRequest) GetState() string                   { return a.State }
func (a *authRequest) Done() bool                         { return a.session != nil }

func (a *authRequest) GetAMR() []string {
	if a.session == nil {
		return nil
	}
	return []string{"pwd"}
}

func (a *authRequest) GetAuthTime() time.Time {
	if a.session == nil {
		return time.Time{}
	}
	return a.session.started
}

func (a *authRequest) GetSubject() string {
	if a.session == nil {
		return ""
	}
	return a.session.user
}

// GetCodeChallenge is nil when the client sent none (RFC 7636).
func (a *authRequest) GetCodeChallenge() *oidc.CodeChallenge {
	if a.CodeChallenge == "" {
		return nil
	}
	return &oidc.CodeChallenge{Challenge: a.CodeChallenge, Method: a.CodeChallengeMethod}
}

// servedBy says whether a session is good enough: prompt=login and max_age may ask for a fresh one (OpenID Connect Core 1.0,
// section 3.1.2.1).
func (a *authRequest) servedBy(one *session, now time.Time) bool {
	if one == nil || slices.Contains(a.Prompt, oidc.PromptLogin) || slices.Contains(a.Prompt, oidc.PromptSelectAccount) {
		return false
	}
	return a.MaxAge == nil || now.Sub(one.started) <= time.Duration(*a.MaxAge)*time.Second
}

// refreshRequest implements op.RefreshTokenRequest.
type refreshRequest struct {
	grant
	client string
}

func (r *refreshRequest) GetAMR() []string                 { return []string{"pwd"} }
func (r *refreshRequest) GetAudience() []string            { return []string{r.client} }
func (r *refreshRequest) GetAuthTime() time.Time           { return r.authTime }
func (r *refreshRequest) GetClientID() string              { return r.client }
func (r *refreshRequest) GetScopes() []string              { return r.scopes }
func (r *refreshRequest) GetSubject() string               { return r.user }
func (r *refreshRequest) SetCurrentScopes(scopes []string) { r.scopes = scopes }

// grantOf says what a request of either kind stands for.
func grantOf(request any) (grant, error) {
	switch r := request.(type) {
	case *authRequest:
		if r.session != nil {
			return grant{user: r.session.user, sid: r.session.sid, scopes: r.Scopes, authTime: r.session.started}, nil
		}
	case *refreshRequest:
		return r.grant, nil
	}
	return grant{}, fmt.Errorf("no tokens for a %T that nobody has answered", request)
}

// client implements op.Client and op.HasRedirectGlobs.
type client struct{ Client }

func (c *client) GetID() string                        { return c.ID }
func (c *client) RedirectURIs() []string               { return c.Client.RedirectURIs }
func (c *client) PostLogoutRedirectURIs() []string     { return c.Client.PostLogoutRedirectURIs }
func (c *client) RedirectURIGlobs() []string           { return nil }
func (c *client) PostLogoutRedirectURIGlobs() []string { return c.Client.PostLogoutRedirectURIs }
func (c *client) ApplicationType() op.ApplicationType  { return op.ApplicationTypeWeb }
func (c *client) AuthMethod() oidc.AuthMethod          { return oidc.AuthMethodBasic }
func (c *client) ResponseTypes() []oidc.ResponseType {
	return []oidc.ResponseType{oidc.ResponseTypeCode}
}
func (c *client) GrantTypes() []oidc.GrantType {
	return []oidc.GrantType{oidc.GrantTypeCode, oidc.GrantTypeRefreshToken}
}
func (c *client) LoginURL(id string) string            { return "/login?id=" + url.QueryEscape(id) }
func (c *client) AccessTokenType() op.AccessTokenType  { return op.AccessTokenTypeBearer }
func (c *client) IDTokenLifetime() time.Duration       { return accessLifetime }
func (c *client) DevMode() bool                        { return false }
func (c *client) IsScopeAllowed(scope string) bool     { return scope == scopeGroups }
func (c *client) IDTokenUserinfoClaimsAssertion() bool { return true } // claims are in the ID token too, as with most providers
func (c *client) ClockSkew() time.Duration             { return 0 }

func (c *client) RestrictAdditionalIdTokenScopes() func([]string) []string     { return unchanged }
func (c *client) RestrictAdditionalAccessTokenScopes() func([]string) []string { return unchanged }

func unchanged(scopes []string) []string { return scopes }

// signingKey implements op.SigningKey.
type signingKey struct{ key *rsa.PrivateKey }

func (k signingKey) SignatureAlgorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k signingKey) Key() any                                    { return k.key }

// ID names the key by its content, so that it is the same after a restart with the same key.
func (k signingKey) ID() string {
	sum := sha256.Sum256(k.key.N.Bytes())
	return hex.EncodeToString(sum[:8])
}

// publicKey implements op.Key.
type publicKey struct{ signingKey }

func (k publicKey) Algorithm() jose.SignatureAlgorithm { return jose.RS256 }
func (k publicKey) Use() string                        { return "sig" }
func (k publicKey) Key() any                           { return &k.key.PublicKey }

type cookieKey struct{}

// withCookie carries the session cookie's value to where only a context arrives.
func withCookie(ctx context.Context, value string) context.Context {
	return context.WithValue(ctx, cookieKey{}, value)
}

// cookieOf is "" without a cookie.
func cookieOf(ctx context.Context) string {
	value, _ := ctx.Value(cookieKey{}).(string)
	return value
}
