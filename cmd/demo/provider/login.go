package provider

import (
	"bytes"
	_ "embed"
	"net/http"
	"slices"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// sessionCookie is host-only and, because the issuer is plain http on loopback, not Secure.
const sessionCookie = "demo_idp_session"

//go:embed page.html
var pageSource string

// content is what the template shows: a login form when ID is set, else a message.
type content struct {
	Title   string
	Message string
	ID      string // of the authorization request
	User    string
	Error   string
	Hint    string
}

// showLogin answers at once when the browser has a session that will do, and shows the form otherwise.
func (p *Provider) showLogin(w http.ResponseWriter, r *http.Request) {
	request := p.storage.request(r.URL.Query().Get("id"))
	if request == nil {
		p.expired(w)
		return
	}
	one := p.storage.sessionOf(cookieOf(r.Context()))
	switch {
	case request.servedBy(one, p.storage.now()):
		p.proceed(w, r, request.id, one)
	case slices.Contains(request.Prompt, oidc.PromptNone):
		op.AuthRequestError(w, r, request, oidc.ErrLoginRequired(), p.protocol)
	default:
		p.render(w, http.StatusOK, content{Title: "Sign in", ID: request.id, User: request.LoginHint, Hint: p.hint})
	}
}

// takeLogin checks the form.
func (p *Provider) takeLogin(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 16<<10)
	if err := r.ParseForm(); err != nil {
		p.render(w, http.StatusBadRequest, content{Title: "Sign in", Message: "The form could not be read. Go back and try again."})
		return
	}
	id, username := r.PostForm.Get("id"), r.PostForm.Get("username")
	if p.storage.request(id) == nil {
		p.expired(w)
		return
	}
	cookie, one, ok := p.storage.signIn(username, r.PostForm.Get("password"))
	if !ok {
		p.render(w, http.StatusUnauthorized, content{Title: "Sign in", ID: id, User: username, Hint: p.hint,
			Error: "That name and password do not belong together."})
		return
	}
	http.SetCookie(w, &http.Cookie{Name: sessionCookie, Value: cookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode})
	p.proceed(w, r, id, one)
}

// proceed sends the browser on to where it gets its code.
func (p *Provider) proceed(w http.ResponseWriter, r *http.Request, id string, by *session) {
	if !p.storage.complete(id, by) {
		p.expired(w)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, op.AuthCallbackURL(p.protocol)(op.ContextWithIssuer(r.Context(), p.issuer), id), http.StatusFound)
}

func (p *Provider) expired(w http.ResponseWriter) {
	p.render(w, http.StatusBadRequest, content{Title: "Sign-in expired",
		Message: "This sign-in is over: it has led to the application already, or it is older than ten minutes. Open the application again."})
}

func (p *Provider) signedOut(w http.ResponseWriter, _ *http.Request) {
	p.render(w, http.StatusOK, content{Title: "Signed out", Message: "You are signed out of the demo's identity provider."})
}

func (p *Provider) home(w http.ResponseWriter, _ *http.Request) {
	p.render(w, http.StatusOK, content{Title: "Demo identity provider", Message: "This is where the demo's users sign in. Start at the application."})
}

// render writes a page that loads nothing and cannot be framed. form-action allows any https target, because browsers hold the whole chain
// of redirects after a form against it, and that chain ends at the application.
func (p *Provider) render(w http.ResponseWriter, status int, content content) {
	var body bytes.Buffer
	if err := p.page.Execute(&body, content); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self' https:; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}
