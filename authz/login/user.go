package login

import (
	"errors"
	"net/http"
	"slices"
	"strings"

	"doorward/authz/session"
	"doorward/authz/web"
)

// user shows who is signed in and what other sessions there are of the same person, or begins a sign-in.
func (h *Handler) user(v *visit) {
	s, err := h.current(v)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	if s == nil || v.r.URL.Path == v.Prefix {
		v.redirect(v.userURL(s == nil))
		return
	}
	all, err := h.Sessions.List(v.r.Context(), s.Issuer, s.Subject)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	page := web.User{
		Host:    v.host,
		Person:  web.Person{Name: s.User.Name, Email: s.User.Email, Groups: s.User.Groups},
		Subject: s.User.ID, Session: session.HashID(s.ID), Created: s.Created, Expires: s.Expires,
		SignOutURL: v.Prefix + "/sign_out", EndURL: v.Prefix + "/",
	}
	slices.SortFunc(all, func(a, b *session.Session) int { return b.Created.Compare(a.Created) })
	for _, other := range all {
		if other.ID != s.ID {
			page.Others = append(page.Others, web.Session{ID: session.HashID(other.ID), Agent: other.Agent, Created: other.Created})
		}
	}
	v.show(h.Pages.User(page))
}

// userURL is the user page, by way of a sign-in for a stranger.
func (v *visit) userURL(stranger bool) string {
	if stranger {
		return v.signInURL(v.Prefix + "/")
	}
	return v.at("/")
}

// maxForm bounds a form that a person posts.
const maxForm = 4 << 10

// endOther ends another session of the same person, whose hash the form names.
func (h *Handler) endOther(v *visit) {
	if !v.fromHere() {
		h.fail(v, errors.New("the end of a session was asked for by another site"), web.Error{Status: http.StatusForbidden, Title: "Nothing was ended",
			Message: "Another site tried to end a session of yours.", Remedy: "If you want to end it, do it here.", RetryURL: v.at("/")})
		return
	}
	s, err := h.current(v)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	if s == nil {
		v.redirect(v.userURL(true))
		return
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
	wanted := v.r.PostFormValue("session")
	all, err := h.Sessions.List(v.r.Context(), s.Issuer, s.Subject)
	for _, other := range all {
		if err == nil && session.HashID(other.ID) == wanted {
			if err = h.Sessions.Revoke(v.r.Context(), other.ID); err == nil {
				h.Log.Info("signed out by the person in another browser", "session", wanted, "subject", s.User.ID, "host", v.host, "request_id", v.id)
			}
		}
	}
	if err != nil {
		h.unavailable(v, err)
		return
	}
	v.redirect(v.at("/"))
}

// agents are the browsers and systems that are told apart, the ones that name others behind them.
var agents = struct{ browsers, systems [][2]string }{
	[][2]string{{"Edg", "Edge"}, {"OPR/", "Opera"}, {"SamsungBrowser", "Samsung Internet"}, {"Firefox/", "Firefox"}, {"FxiOS", "Firefox"}, {"CriOS", "Chrome"}, {"Chrome/", "Chrome"}, {"Safari/", "Safari"}},
	[][2]string{{"Android", "Android"}, {"iPhone", "iPhone"}, {"iPad", "iPad"}, {"Windows", "Windows"}, {"Mac OS X", "macOS"}, {"CrOS", "ChromeOS"}, {"Linux", "Linux"}},
}

// agent is a browser in words for its owner, who has to tell it from others; "" for one that is not known.
func agent(userAgent string) string {
	find := func(names [][2]string) string {
		for _, n := range names {
			if strings.Contains(userAgent, n[0]) {
				return n[1]
			}
		}
		return ""
	}
	browser, system := find(agents.browsers), find(agents.systems)
	if browser != "" && system != "" {
		return browser + " on " + system
	}
	return browser + system
}
