package login

import (
	"doorward/authz/session"
	"doorward/authz/web"
)

// user shows who is signed in, or begins a sign-in.
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
	v.show(h.Pages.User(web.User{
		Host:    v.host,
		Person:  web.Person{Name: s.User.Name, Email: s.User.Email, Groups: s.User.Groups},
		Subject: s.User.ID, Session: session.HashID(s.ID), Created: s.Created, Expires: s.Expires,
		SignOutURL: v.Prefix + "/sign_out",
	}))
}

// userURL is the user page, by way of a sign-in for a stranger.
func (v *visit) userURL(stranger bool) string {
	if stranger {
		return v.signInURL(v.Prefix + "/")
	}
	return v.at("/")
}
