// Package login signs people in and out: OpenID Connect authorization code with PKCE, the hand-off of a session to other hosts, the user
// page and sign-out. Its handlers stand behind Envoy routes that have ext_authz off. It is the only importer of go-oidc.
package login

import (
	"log/slog"
	"net/http"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/store"
	"doorward/authz/web"
)

// Settings is what the handlers need of the loaded configuration. Immutable.
type Settings struct {
	Prefix   string     // of all our paths, "/.pomerium"
	AuthURL  config.URL // the host that signs in with the provider
	IDP      config.IDP
	Lifetime time.Duration         // of a session
	Hosts    map[string]config.URL // every host that has a route, by its name without port; AuthURL's host too
}

// Config is what a Handler needs.
type Config struct {
	Settings func() Settings // the current ones; called once per request
	Sessions *session.Sessions
	Store    store.Store
	Sealer   *session.Sealer
	Pages    *web.Pages
	Log      *slog.Logger
	Now      func() time.Time // time.Now when nil
}

// Handler serves everything below the prefix.
type Handler struct{}

// New returns a Handler. It does not ask the provider: discovery is lazy.
func New(c Config) (*Handler, error) { panic("unwritten") }

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { panic("unwritten") }
