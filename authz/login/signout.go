package login

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"doorward/authz/session"
	"doorward/authz/web"
)

const (
	leaveWait = 3 * time.Second // for discovery, at a sign-out
	maxHint   = 6 << 10         // bytes of an ID token that goes into a URL
)

// leave is remembered through the provider's sign-out.
type leave struct {
	URL string `json:"u"` // absolute, at a host that we have
	Go  bool   `json:"g"` // go there at once
}

// signOut ends the session at once, unless another site or a mere part of a page asks for it: then it asks back.
func (h *Handler) signOut(v *visit) {
	dest := v.r.Header.Get("Sec-Fetch-Dest")
	site := v.r.Header.Get("Sec-Fetch-Site")
	mere := dest != "" && dest != "document" && !(dest == "empty" && site == "same-origin")
	if site == "cross-site" || prefetch(v.r) || mere {
		action := v.Prefix + "/sign_out"
		if to := v.afterwards(); to != "" {
			action += "?redirect_uri=" + url.QueryEscape(to)
		}
		v.show(h.Pages.SignOut(web.SignOut{Host: v.host, Action: action}))
		return
	}
	if next, ok := h.end(v); ok {
		v.redirect(next)
	}
}

// confirmedSignOut takes the form of the page that asks. The browser says that it comes from this origin: by Sec-Fetch-Site, since
// with our Referrer-Policy the Origin of a form is "null", or by Origin when it does not send the other.
func (h *Handler) confirmedSignOut(v *visit) {
	if !v.fromHere() {
		h.fail(v, errors.New("a sign-out was posted from another site"), web.Error{Status: http.StatusForbidden, Title: "Not signed out",
			Message: "Another site tried to sign you out.", Remedy: "If you want to sign out, do it here.", RetryURL: v.at("/sign_out")})
		return
	}
	if next, ok := h.end(v); ok {
		v.show(h.Pages.Continue(web.Continue{Host: v.host, Title: "Signing you out", Message: "Your session here has ended.", URL: next}))
	}
}

// fromHere says whether a form was posted from a page of this origin.
func (v *visit) fromHere() bool {
	site, origin := v.r.Header.Get("Sec-Fetch-Site"), v.r.Header.Get("Origin")
	return site == "same-origin" || site == "" && origin == v.Origin(v.host).Origin()
}

// end ends the browser's session on every host and takes our cookies from this one. It returns where to go next: to the provider, so that
// its own session ends too, or to a page of ours. It is false when it has answered itself.
func (h *Handler) end(v *visit) (next string, ok bool) {
	v.clearAll()
	to := v.afterwards()
	s, err := h.current(v)
	if err == nil && s != nil {
		if next = h.endSessionURL(v, s, to); next != "" {
			ok = true
		}
		err = h.revoke(v, s)
	}
	if err != nil {
		h.fail(v, err, web.Error{Status: http.StatusServiceUnavailable, Title: "Not signed out everywhere",
			Message: "This browser has forgotten your session here, but it could not be ended on other hosts at the moment.",
			Remedy:  "Sign out again on another host that you use, or close the browser.", RetryURL: v.at("/sign_out")})
		return "", false
	}
	switch {
	case ok:
	case to != "":
		next = to
	default:
		next = v.at("/signed_out")
	}
	return next, true
}

// revoke ends a session, and with it every other of the same session at the provider: those that this browser has lost the cookie of.
func (h *Handler) revoke(v *visit, s *session.Session) error {
	var err error
	if s.SID != "" {
		err = h.Sessions.RevokeSID(v.r.Context(), s.Issuer, s.SID)
	} else {
		err = h.Sessions.Revoke(v.r.Context(), s.ID)
	}
	if err == nil {
		err = h.revokeBrowser(v.r.Context(), s)
	}
	if err == nil {
		h.Log.Info("signed out", "session", session.HashID(s.ID), "subject", s.User.ID, "provider", s.Provider, "host", v.host, "request_id", v.id)
	}
	return err
}

// revokeBrowser ends the sessions that the same browser has with other providers.
func (h *Handler) revokeBrowser(ctx context.Context, s *session.Session) error {
	others, err := h.Sessions.OfBrowser(ctx, s.Browser)
	for _, other := range others {
		if other.ID != s.ID {
			err = errors.Join(err, h.Sessions.Revoke(ctx, other.ID))
		}
	}
	return err
}

// endSessionURL is the provider's sign-out (OpenID Connect RP-Initiated Logout 1.0, section 2), or "" when it has none, is not known
// well enough at the moment, or is no longer the one that is configured: then the sign-out is ours alone.
func (h *Handler) endSessionURL(v *visit, s *session.Session, to string) string {
	idp, ok := v.IDPs.Find(s.Provider)
	if !ok || s.Issuer != idp.Issuer.String() {
		return ""
	}
	ctx, cancel := context.WithTimeout(v.r.Context(), leaveWait)
	defer cancel()
	m, err := h.providers.get(ctx, idp)
	if err != nil {
		h.Log.Warn("the provider's own session is not ended", "session", session.HashID(s.ID), "cause", bounded(err.Error(), 500))
		return ""
	}
	u, err := url.Parse(m.endSession)
	if err != nil || m.endSession == "" {
		return ""
	}
	after := leave{URL: v.back("/")}
	if to != "" {
		after = leave{URL: to, Go: true}
	}
	q := u.Query()
	q.Set("client_id", idp.ClientID)
	q.Set("post_logout_redirect_uri", v.atAuth("/signed_out"))
	q.Set("state", h.seal(purposeLeave, after))
	if full, err := h.Sessions.Load(ctx, s.ID); err != nil {
		h.Log.Warn("the provider is not told whose session ends", "session", session.HashID(s.ID), "cause", err)
	} else if full.Tokens.ID != "" && len(full.Tokens.ID) <= maxHint {
		q.Set("id_token_hint", full.Tokens.ID)
	}
	u.RawQuery = q.Encode()
	return u.String()
}

// afterwards is where the person wants to go after the sign-out: an absolute URL at a host that we have, or "".
func (v *visit) afterwards() string {
	for _, name := range []string{"pomerium_redirect_uri", "redirect_uri"} {
		if to := v.target(v.query(name)); to != "" {
			return to
		}
	}
	return ""
}

// clearAll takes all our cookies from this host, also those of sign-ins under way.
func (v *visit) clearAll() {
	http.SetCookie(v.w, session.ClearCookie())
	cleared := map[string]bool{session.CookieName: true}
	for _, c := range v.r.Cookies() {
		if strings.HasPrefix(c.Name, session.CookieName+"-") && !cleared[c.Name] && len(cleared) < maxCleared {
			cleared[c.Name] = true
			v.clear(c.Name)
		}
	}
}

// signedOut says that it is done. The provider comes back here, on the auth host, with the state that it was given.
func (h *Handler) signedOut(v *visit) {
	if s, err := h.current(v); err == nil && s == nil && len(v.r.CookiesNamed(session.CookieName)) > 0 {
		http.SetCookie(v.w, session.ClearCookie())
	}
	after := leave{URL: v.back("/")}
	var given leave
	if _, err := h.open(purposeLeave, v.query("state"), attemptLife, &given); err == nil {
		after = given
	}
	if after.Go {
		v.redirect(after.URL)
		return
	}
	v.show(h.Pages.SignedOut(web.SignedOut{Host: v.host, HomeURL: after.URL}))
}
