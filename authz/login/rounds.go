package login

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"time"

	"doorward/authz/session"
	"doorward/authz/web"
)

// A sign-in that ends well and is asked for again at once goes in a circle: the browser does not keep the session's cookie, or the
// application takes it away. rounds counts the arrivals at one return URL.
type rounds struct {
	Return []byte `json:"r"` // a hash
	Count  int    `json:"n"`
	Since  int64  `json:"s"` // Unix microseconds of the first
}

const (
	roundsCookie    = session.CookieName + "-rounds"
	roundsLife      = time.Minute
	maxRounds       = 2 // arrivals; the third sign-in within roundsLife gets a page
	maxRoundsSigned = 5 // arrivals of somebody whose session we find: tabs that come back together
)

// round returns what the browser remembers of arrivals at a return URL.
func (h *Handler) round(v *visit, to string) rounds {
	if p, _, _ := strings.Cut(to, "?"); p == v.Prefix+"/return" {
		to = p // the name of what is restored differs each time
	}
	fresh := rounds{Return: hash([]byte(to))[:8], Since: h.Now().UnixMicro()}
	c, err := v.r.Cookie(roundsCookie)
	if err != nil {
		return fresh
	}
	var seen rounds
	if _, err := h.open(purposeRounds, c.Value, roundsLife, &seen); err != nil || !bytes.Equal(seen.Return, fresh.Return) ||
		h.Now().Sub(time.UnixMicro(seen.Since)) >= roundsLife {
		return fresh
	}
	return seen
}

// land ends a sign-in: it goes to the return URL and counts the arrival.
func (h *Handler) land(v *visit, to string) {
	r := h.round(v, to)
	r.Count++
	http.SetCookie(v.w, cookie(roundsCookie, h.seal(purposeRounds, r), roundsLife))
	v.redirect(v.back(to))
}

// circle shows what may be wrong, and lets the next try begin from nothing.
func (h *Handler) circle(v *visit, to string) {
	v.clear(roundsCookie)
	h.fail(v, errors.New("several sign-ins within a minute, each without the cookie of the one before"), web.Error{
		Status: http.StatusBadRequest, Title: "Sign-in goes in a circle",
		Message: "You have signed in several times within a minute, and each time your browser came back without the session's cookie.",
		Remedy: "Allow cookies for this site, or leave private browsing; check that the clock of this device is right; and if the application clears " +
			"this site's cookies, tell whoever runs it.",
		RetryURL: v.signInURL(to),
	})
}
