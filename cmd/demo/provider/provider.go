// Package provider is a small OpenID Connect provider with a real login form, for the demo and for tests.
//
// It speaks the authorization code flow with PKCE, refresh tokens, userinfo and RP-initiated logout, and keeps a single-sign-on session of
// its own, so that a second sign-in does not ask again. Everything is in memory. Its users and their passwords are made up and it limits no
// attempts: it is to be reachable on loopback only, and refuses to be anybody's provider in earnest.
package provider

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// User is somebody who can sign in. The username is also the subject, so it is stable and holds no colon.
type User struct {
	Username string
	Password string
	Name     string
	Email    string // always said to be verified
	Groups   []string
}

// Client is the one relying party.
type Client struct {
	ID                     string
	Secret                 string
	RedirectURIs           []string
	PostLogoutRedirectURIs []string // may hold globs as of path.Match, whose * stops at a slash
}

// Config is what a Provider needs.
type Config struct {
	Issuer string // http://localhost:PORT, without a path
	Client Client
	Users  []User
	Hint   string           // shown below the login form
	Key    *rsa.PrivateKey  // signs ID tokens; a new one when nil
	Now    func() time.Time // of sessions; time.Now when nil. Tokens are always made by the real clock
}

// Provider is an http.Handler for everything below the issuer. Safe for concurrent use.
type Provider struct {
	storage  *storage
	protocol *op.Provider
	mux      *http.ServeMux
	page     *template.Template
	issuer   string
	hint     string
}

// New returns a Provider without sessions.
func New(c Config) (*Provider, error) {
	if err := c.validate(); err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Key == nil {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			return nil, fmt.Errorf("provider: signing key: %w", err)
		}
		c.Key = key
	}
	p := &Provider{storage: newStorage(c), issuer: c.Issuer, hint: c.Hint, mux: http.NewServeMux()}
	settings := &op.Config{
		CodeMethodS256:           true,
		AuthMethodPost:           true,
		GrantTypeRefreshToken:    true,
		DefaultLogoutRedirectURI: "/signed_out",
		SupportedScopes:          []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail, scopeGroups, oidc.ScopeOfflineAccess},
		SupportedClaims:          append([]string{"sid", "groups"}, op.DefaultSupportedClaims...),
	}
	if _, err := rand.Read(settings.CryptoKey[:]); err != nil {
		return nil, fmt.Errorf("provider: token key: %w", err)
	}
	var err error
	if p.page, err = template.New("page").Parse(pageSource); err != nil {
		return nil, fmt.Errorf("provider: page: %w", err)
	}
	if p.protocol, err = op.NewProvider(settings, p.storage, op.StaticIssuer(c.Issuer), op.WithAllowInsecure()); err != nil {
		return nil, fmt.Errorf("provider: %w", err)
	}
	p.mux.HandleFunc("GET /login", p.showLogin)
	p.mux.HandleFunc("POST /login", p.takeLogin)
	p.mux.HandleFunc("GET /signed_out", p.signedOut)
	p.mux.HandleFunc("GET /{$}", p.home)
	p.mux.Handle("/", p.protocol)
	return p, nil
}

// validate reports every problem.
func (c Config) validate() error {
	var errs []error
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" {
		errs = append(errs, fmt.Errorf("provider: issuer %q must be a URL without a path", c.Issuer))
	}
	if c.Client.ID == "" || c.Client.Secret == "" || len(c.Client.RedirectURIs) == 0 {
		errs = append(errs, errors.New("provider: the client needs an id, a secret and a redirect URI"))
	}
	for _, user := range c.Users {
		if user.Username == "" || user.Password == "" || strings.Contains(user.Username, ":") {
			errs = append(errs, fmt.Errorf("provider: user %q needs a name without a colon and a password", user.Username))
		}
	}
	return errors.Join(errs...)
}

// ServeHTTP implements http.Handler. The browser's session, if it has one, goes along in the request's context, where the end_session
// endpoint finds it.
func (p *Provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if cookie, err := r.Cookie(sessionCookie); err == nil {
		r = r.WithContext(withCookie(r.Context(), cookie.Value))
	}
	p.mux.ServeHTTP(w, r)
}

// Sessions is how many single-sign-on sessions there are.
func (p *Provider) Sessions() int {
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	return len(p.storage.sessions)
}
