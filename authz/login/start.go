package login

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/web"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// signIn begins a sign-in, or goes straight on when there is a session. With the parameter "request" it is a hand-off that another
// host asks for.
func (h *Handler) signIn(v *visit) {
	if !navigation(v.r) {
		h.fail(v, nil, web.Error{Status: http.StatusUnauthorized, Title: "Sign in", Message: "You are not signed in.",
			Remedy: "Open this address in a window of its own to sign in."})
		return
	}
	if v.r.URL.Query().Has("request") {
		h.handOff(v)
		return
	}
	to := returnURL(v.query("return"), v.Prefix)
	want := session.DemandOf(v.r.URL.Query())
	s, err := h.current(v)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	if s != nil && want.Unmet(s, h.Now()) != "" {
		s = nil // it goes on until a better one takes its place
	}
	arrivals := h.round(v, to).Count
	switch {
	case s == nil && arrivals >= maxRounds, arrivals >= maxRoundsSigned:
		h.circle(v, to)
	case s != nil:
		h.land(v, to)
	case scripts(v.r) && !v.r.URL.Query().Has("continue"):
		h.keepFragment(v, to, want)
	case v.atAuthHost():
		h.choose(v, attempt{Return: to, Demand: want})
	default:
		h.ask(v, to, want)
	}
}

// navigation says whether a browser opens a page of its own, by the Fetch Metadata headers where they exist: not a frame, not a
// script's request, and not something prepared for later (Sec-Purpose).
func navigation(r *http.Request) bool {
	mode, dest := r.Header.Values("Sec-Fetch-Mode"), r.Header.Values("Sec-Fetch-Dest")
	if len(mode)+len(dest) > 0 && !(slices.Equal(mode, []string{"navigate"}) && slices.Equal(dest, []string{"document"})) {
		return false
	}
	return !prefetch(r)
}

func prefetch(r *http.Request) bool {
	return strings.HasPrefix(r.Header.Get("Sec-Purpose"), "prefetch")
}

// scripts says whether the browser is one that can run the page which keeps the fragment: all those do that send Fetch Metadata.
func scripts(r *http.Request) bool { return r.Header.Get("Sec-Fetch-Mode") != "" }

// keepFragment shows the page whose script keeps what a redirect would lose, and comes back with the parameter "continue".
func (h *Handler) keepFragment(v *visit, to string, want session.Demand) {
	next := func(to string) string {
		q := url.Values{"continue": {"1"}, "return": {to}}
		want.AddTo(q)
		return v.Prefix + "/sign_in?" + q.Encode()
	}
	v.show(h.Pages.SignIn(web.SignIn{
		Host: v.host, Return: to, Limit: maxReturn,
		ContinueURL: next(to),
		KeepURL:     next(v.Prefix + "/return?attempt="),
	}))
}

// restore shows the page whose script goes to what keepFragment's kept.
func (h *Handler) restore(v *visit) {
	v.show(h.Pages.Return(web.Return{Host: v.host, HomeURL: v.back("/")}))
}

// start sends the browser to a provider.
func (h *Handler) start(v *visit, idp config.IDP, a attempt) {
	p, err := h.providers.answering(v.r.Context(), idp)
	if err != nil {
		h.providerDown(v, idp, err, &a)
		return
	}
	id := newID()
	state := id + "." + randomText()
	a.State, a.Verifier, a.Nonce = hash([]byte(state)), oauth2.GenerateVerifier(), randomText()
	a.Provider, a.Issuer = idp.Name, idp.Issuer.String()
	err = h.keep(v, stateCookie, purposeState, id, a)
	if err != nil && a.Return != "" {
		a.Return = "/" // it was too long
		err = h.keep(v, stateCookie, purposeState, id, a)
	}
	if err != nil {
		h.fail(v, err, web.Error{Status: http.StatusInternalServerError, Title: "Sign-in is not possible",
			Message: "The state of the sign-in does not fit into a cookie.", Remedy: "Tell whoever runs this site."})
		return
	}
	options := append(a.parameters(), oidc.Nonce(a.Nonce), oauth2.S256ChallengeOption(a.Verifier))
	v.redirect(p.oauth(&v.Settings, idp).AuthCodeURL(state, options...))
}

// ask sends the browser to the auth host with a sealed request for a hand-off.
func (h *Handler) ask(v *visit, to string, want session.Demand) {
	id, nonce := newID(), random(16)
	f := flow{Host: v.host, Nonce: nonce, Return: to}
	err := h.keep(v, flowCookie, purposeFlow, id, f)
	if err != nil {
		f.Return = "/" // it was too long
		err = h.keep(v, flowCookie, purposeFlow, id, f)
	}
	if err != nil {
		h.unavailable(v, err)
		return
	}
	v.redirect(v.atAuth("/sign_in?request=" + h.seal(purposeRequest, request{Host: v.host, Nonce: hash(nonce), Flow: id, Demand: want})))
}

// handOff is asked for by another host: with a session the auth host answers with a code, without one it signs in first.
func (h *Handler) handOff(v *visit) {
	var ask request
	_, err := h.open(purposeRequest, v.query("request"), attemptLife, &ask)
	switch {
	case !v.atAuthHost():
		err = errors.New("a hand-off was asked for at another host than the auth host")
	case err == nil && (v.Origin(ask.Host).IsZero() || ask.Host == v.host || !isID(ask.Flow)):
		err = errors.New("a hand-off was asked for by a host that has no route")
	}
	if err != nil {
		h.fail(v, err, web.Error{Status: http.StatusBadRequest, Title: "This sign-in cannot go on",
			Message: "The address is incomplete, or more than five minutes old.", Remedy: "Open the application again.", RetryURL: v.at("/")})
		return
	}
	s, err := h.current(v)
	switch {
	case err != nil:
		h.unavailable(v, err)
	case s == nil, ask.Demand.Unmet(s, h.Now()) != "":
		h.choose(v, attempt{Handoff: &ask, Demand: ask.Demand})
	default:
		h.give(v, s.ID, ask)
	}
}

// providerDown says that nobody can sign in now. Who is signed in stays so.
func (h *Handler) providerDown(v *visit, idp config.IDP, cause error, a *attempt) {
	h.fail(v, cause, web.Error{
		Status: http.StatusServiceUnavailable, Title: "Sign-in is not available",
		Message:  "The sign-in service at " + idp.Issuer.Hostname() + " does not answer as it should at the moment.",
		Remedy:   "Where you are signed in, you stay signed in. Try again in a minute; if it goes on, tell whoever runs this site.",
		RetryURL: v.again(a),
	})
}

// again is where an attempt begins anew, on the host that it was for.
func (v *visit) again(a *attempt) string {
	switch {
	case a.Handoff == nil:
		return v.signInURL(a.Return)
	case v.Origin(a.Handoff.Host).IsZero(): // its last route is gone meanwhile
		return ""
	}
	return v.Origin(a.Handoff.Host).Origin() + "/"
}
