package login

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"doorward/authz/session"
	"doorward/authz/web"
)

// callback takes the provider's answer (OpenID Connect Core 1.0, section 3.1.2.5). It is believed only with the state cookie that start
// gave to this browser.
func (h *Handler) callback(v *visit) {
	a, id, started, err := h.attempt(v)
	if err != nil {
		h.stray(v, err)
		return
	}
	v.clear(stateCookie + id)
	if iss := v.query("iss"); v.r.URL.Query().Has("iss") && iss != a.Issuer {
		h.broken(v, fmt.Errorf("the answer is from the issuer %q, not from %s", bounded(iss, 200), a.Issuer), &a)
		return
	}
	if h.refused(v, &a) {
		return
	}
	idp, ok := v.IDPs.Find(a.Provider)
	if !ok || idp.Issuer.String() != a.Issuer {
		h.broken(v, fmt.Errorf("the sign-in began with the provider %s, which is no longer configured", a.Issuer), &a)
		return
	}
	m, err := h.providers.get(v.r.Context(), idp)
	if err != nil {
		h.providerDown(v, idp, err, &a)
		return
	}
	if err := checkAnswer(v, m); err != nil {
		h.broken(v, err, &a)
		return
	}
	if !h.exchanges.take(h.Now()) {
		h.providerDown(v, idp, errors.New("more sign-ins at once than are let through to the provider"), &a)
		return
	}
	s, err := h.identify(v.r.Context(), &v.Settings, idp, m, a, v.query("code"))
	if errors.Is(err, errOverage) {
		h.fail(v, err, web.Error{Status: http.StatusForbidden, Title: "Your groups are not known",
			Message: "Your account is in more groups than the sign-in service tells, so what you may see cannot be decided.",
			Remedy:  "Give the request id below to whoever runs this site."})
		return
	}
	if err != nil {
		h.broken(v, err, &a)
		return
	}
	if lacks := a.Demand.Unmet(&s, h.Now()); lacks != "" {
		h.insufficient(v, lacks, &a)
		return
	}
	s.Started, s.Agent = started, agent(v.r.UserAgent())
	h.admit(v, &a, s)
}

// attempt finds the attempt that the state parameter names.
func (h *Handler) attempt(v *visit) (a attempt, id string, started time.Time, err error) {
	state := v.query("state")
	if len(state) < 8 {
		return a, "", started, errors.New("no state")
	}
	id = state[:8]
	if started, err = h.recall(v, stateCookie, purposeState, id, &a); err != nil {
		return a, "", started, err
	}
	if !hashes(a.State, []byte(state)) {
		return a, "", started, errors.New("the state is not that of the attempt")
	}
	return a, id, started, nil
}

// stray is an answer of the provider that this browser did not ask for, or no longer waits for.
func (h *Handler) stray(v *visit, cause error) {
	h.over(v, cause, web.Error{Title: "This sign-in cannot go on",
		Message: "It was begun in another browser or more than five minutes ago, it is over, or this browser does not keep this site's cookies."})
}

// over is shown for an answer or a code that is no longer good, or not for this browser. Who is signed in has used the back button, most
// likely, and needs no explanation.
func (h *Handler) over(v *visit, cause error, page web.Error) {
	if s, err := h.current(v); err == nil && s != nil {
		h.Log.Info("sign-in failed, but there is a session", "session", session.HashID(s.ID), "host", v.host, "request_id", v.id,
			"cause", bounded(cause.Error(), 500))
		v.redirect(v.back("/"))
		return
	}
	page.Status, page.Remedy, page.RetryURL = http.StatusBadRequest, "Try again, and allow cookies for this site.", v.signInURL("/")
	h.fail(v, cause, page)
}

// refused shows an error answer (OpenID Connect Core 1.0, section 3.1.2.6), and says whether it was one.
func (h *Handler) refused(v *visit, a *attempt) bool {
	code := v.query("error")
	if !v.r.URL.Query().Has("error") {
		return false
	}
	page := web.Error{Status: http.StatusBadGateway, Title: "The sign-in failed", RetryURL: v.again(a),
		Message: "The sign-in service answered: " + bounded(code, 100)}
	switch code {
	case "access_denied":
		page.Status, page.Title, page.Message = http.StatusForbidden, "The sign-in was refused", "The sign-in was cancelled or is not allowed for you."
	case "temporarily_unavailable":
		page.Status = http.StatusServiceUnavailable
	}
	description := bounded(v.query("error_description"), 300)
	if description != "" {
		page.Remedy = "It says: " + description
	}
	h.fail(v, fmt.Errorf("the provider answered %q: %q", bounded(code, 100), description), page)
	return true
}

// checkAnswer holds the answer against the provider that was asked, so that no other can give it (RFC 9207, section 2.4).
func checkAnswer(v *visit, m *metadata) error {
	switch {
	case m.sendsIss && !v.r.URL.Query().Has("iss"):
		return fmt.Errorf("the answer lacks the parameter iss, which %s announces to send", m.issuer)
	case v.query("code") == "":
		return errors.New("the answer has no code, or several")
	}
	return nil
}

// insufficient says that the provider signed the person in, but not in the way that the route asks for. Going on would go in a circle.
func (h *Handler) insufficient(v *visit, lacks string, a *attempt) {
	h.fail(v, errors.New(lacks), web.Error{Status: http.StatusForbidden, Title: "A stronger sign-in is needed",
		Message:  "The sign-in service did not confirm what this address asks for: a recent sign-in, or another way to sign in, as with a second factor.",
		Remedy:   "Try again. If it goes on, give the request id below to whoever runs this site.",
		RetryURL: v.again(a)})
}

// broken is an answer that does not hold what it should.
func (h *Handler) broken(v *visit, cause error, a *attempt) {
	h.fail(v, cause, web.Error{Status: http.StatusBadGateway, Title: "The sign-in failed",
		Message:  "The answer of the sign-in service could not be verified.",
		Remedy:   "Try again. If it goes on, give the request id below to whoever runs this site.",
		RetryURL: v.again(a)})
}

// admit stores the session, gives the browser its cookie and goes where the attempt was for. The cookie is always a new one.
func (h *Handler) admit(v *visit, a *attempt, s session.Session) {
	ctx := v.r.Context()
	before, err := h.current(v)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	admitted, err := h.create(ctx, v, s, before)
	if errors.Is(err, session.ErrRevoked) {
		h.fail(v, err, web.Error{Status: http.StatusForbidden, Title: "You were signed out",
			Message: "The sign-in service ended your session while you were signing in.", RetryURL: v.again(a)})
		return
	}
	var value string
	if err == nil {
		value, err = h.Sessions.Issue(ctx, admitted.ID, v.host)
	}
	if err == nil {
		err = h.enter(v, admitted.ID, value)
	}
	if err != nil {
		h.unavailable(v, err)
		return
	}
	if before != nil && before.ID != admitted.ID {
		h.replace(ctx, before, admitted)
	}
	if a.Handoff != nil {
		h.give(v, admitted.ID, *a.Handoff)
		return
	}
	h.land(v, a.Return)
}

// create stores a new session, unless another tab of this browser has completed the same sign-in since this one began: ending that
// one's session would take away cookies that other hosts were given a moment ago, and keeping both would leave one behind at sign-out. A sign-in
// again for a route that asks for a recent one is a new session too: whoever had the old cookie does not have what the person has now proved.
func (h *Handler) create(ctx context.Context, v *visit, s session.Session, before *session.Session) (*session.Session, error) {
	if before != nil && before.Issuer == s.Issuer && before.Subject == s.Subject && before.SID == s.SID && before.Provider == s.Provider &&
		before.AuthTime.Equal(s.AuthTime) && before.ACR == s.ACR && !before.Created.Before(s.Started) {
		return before, nil
	}
	if len(v.IDPs) > 1 {
		s.Browser = encoded(random(16))
		if before != nil && before.Browser != "" {
			s.Browser = before.Browser
		}
	}
	return h.Sessions.Create(ctx, s)
}

// replace ends what a new sign-in takes the place of: the browser's session with the same provider, of somebody else or of another session of
// the provider's, since this browser's other hosts must not go on with it. A session with another provider goes on, for the routes that ask for
// that one, and ends at the same sign-out.
func (h *Handler) replace(ctx context.Context, before, admitted *session.Session) {
	ends := []*session.Session{before}
	if before.Browser != "" {
		all, err := h.Sessions.OfBrowser(ctx, before.Browser)
		if err != nil {
			h.Log.Error("the sessions that a new sign-in replaces could not be found", "session", session.HashID(before.ID), "cause", err)
		}
		ends = append(ends, all...)
	}
	for _, s := range ends {
		kept := s.Issuer != admitted.Issuer && s.Browser != "" && s.Browser == admitted.Browser
		if s.ID == admitted.ID || kept {
			continue
		}
		if err := h.Sessions.Revoke(ctx, s.ID); err != nil {
			h.Log.Error("the session that a new sign-in replaces could not be ended", "session", session.HashID(s.ID), "cause", err)
		}
	}
}
