package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
)

// Grafana is an application that has accounts and takes them from the JWT. Safe for concurrent use.
//
//	/, /profile        the profile, or the login form with the reason why the JWT was not taken
//	/api/user          the same as JSON, or 401
//	/logout            goes to SignOutURL, as Grafana's signout_redirect_url does
//	/headers           what arrived, as JSON; also below /public/
//	/public/           a page for everybody
type Grafana struct {
	verifier *Verifier
	signOut  string
	pages    *pages
	mux      *http.ServeMux

	mu       sync.Mutex
	accounts map[string]int // sub -> number
}

// NewGrafana returns an application without accounts. signOutURL is where /logout goes.
func NewGrafana(s Settings, signOutURL string) (*Grafana, error) {
	verifier, err := NewVerifier(s)
	if err != nil {
		return nil, fmt.Errorf("grafana: %w", err)
	}
	pages, err := newPages()
	if err != nil {
		return nil, err
	}
	g := &Grafana{verifier: verifier, signOut: signOutURL, pages: pages, mux: http.NewServeMux(), accounts: map[string]int{}}
	g.mux.HandleFunc("GET /{$}", g.profile)
	g.mux.HandleFunc("GET /profile", g.profile)
	g.mux.HandleFunc("GET /api/user", g.apiUser)
	g.mux.HandleFunc("GET /logout", g.logout)
	g.mux.HandleFunc("/headers", headers)
	g.mux.HandleFunc("/public/headers", headers)
	g.mux.HandleFunc("/public/", g.public)
	return g, nil
}

// ServeHTTP implements http.Handler.
func (g *Grafana) ServeHTTP(w http.ResponseWriter, r *http.Request) { g.mux.ServeHTTP(w, r) }

// account is an identity with the account that it has here.
type account struct {
	*Identity
	ID int
}

// signIn finds the account of a request's identity, or makes it.
func (g *Grafana) signIn(r *http.Request) (*account, error) {
	identity, err := g.verifier.Identify(r)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	id, known := g.accounts[identity.Subject]
	if !known {
		if !g.verifier.settings.AutoSignUp {
			return nil, errors.New("user not found, and auto_sign_up is off")
		}
		id = len(g.accounts) + 1
		g.accounts[identity.Subject] = id
	}
	return &account{Identity: identity, ID: id}, nil
}

func (g *Grafana) profile(w http.ResponseWriter, r *http.Request) {
	who, err := g.signIn(r)
	if err != nil {
		g.pages.write(w, http.StatusUnauthorized, "login", err.Error())
		return
	}
	g.pages.write(w, http.StatusOK, "profile", who)
}

func (g *Grafana) apiUser(w http.ResponseWriter, r *http.Request) {
	who, err := g.signIn(r)
	if err != nil {
		writeJSON(w, http.StatusUnauthorized, map[string]string{"message": err.Error()})
		return
	}
	writeJSON(w, http.StatusOK, map[string]any{
		"id": who.ID, "login": who.Login, "email": who.Email, "name": who.Name, "orgRole": who.Role, "authLabels": []string{"JWT"},
		"isExternal": true, "claims": who.Claims,
	})
}

func (g *Grafana) logout(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, g.signOut, http.StatusFound)
}

func (g *Grafana) public(w http.ResponseWriter, r *http.Request) {
	g.pages.write(w, http.StatusOK, "public", r.URL.Path)
}

// headers shows what arrived.
func headers(w http.ResponseWriter, r *http.Request) { writeJSON(w, http.StatusOK, seen(r)) }
