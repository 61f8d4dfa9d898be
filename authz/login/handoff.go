package login

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"

	"doorward/authz/session"
	"doorward/authz/store"
	"doorward/authz/web"
)

// grant is what a code stands for, in the store under the hash of the code and sealed for that key.
type grant struct {
	Session string `json:"s"`
	Host    string `json:"h"` // for which Issue makes a value of it
	Nonce   []byte `json:"n"` // SHA-256 of what else has to be shown: the flow's nonce, or a program's verifier
}

// give makes a code for the host that asked, and sends the browser there with it.
func (h *Handler) give(v *visit, id string, ask request) {
	target := v.Origin(ask.Host)
	if target.IsZero() { // its last route is gone meanwhile
		v.redirect(v.at("/"))
		return
	}
	code, err := h.code(v.r.Context(), grant{Session: id, Host: ask.Host, Nonce: ask.Nonce})
	if err != nil {
		h.unavailable(v, err)
		return
	}
	v.redirect(target.Origin() + v.Prefix + "/redeem?code=" + code + "&flow=" + ask.Flow)
}

// code makes a code for a grant, which take gives for it once within codeLife.
func (h *Handler) code(ctx context.Context, g grant) (string, error) {
	code := random(32)
	key := codeKey(code)
	_, err := h.Store.Apply(ctx, store.Op{
		Key: key, Value: []byte(h.seal(key, g)), Expires: h.Now().Add(codeLife), Expect: store.Absent,
	})
	if err != nil {
		return "", fmt.Errorf("store a code: %w", err)
	}
	return encoded(code), nil
}

func codeKey(code []byte) string { return "code/" + hex.EncodeToString(hash(code)) }

// errNoCode says that a code is unknown, used or expired.
var errNoCode = errors.New("the code is unknown, used or expired")

// take reads a code's grant and deletes it: of several who present it, one gets the grant. Any error but errNoCode means that the
// store could not be asked.
func (h *Handler) take(ctx context.Context, code string) (grant, error) {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(code)
	if err != nil || len(raw) != 32 {
		return grant{}, errNoCode
	}
	item, err := h.Store.Get(ctx, codeKey(raw))
	if errors.Is(err, store.ErrNotFound) {
		return grant{}, errNoCode
	}
	if err != nil {
		return grant{}, fmt.Errorf("read a hand-off code: %w", err)
	}
	_, err = h.Store.Apply(ctx, store.Op{Key: item.Key, Expect: item.Version})
	if errors.Is(err, store.ErrConflict) {
		return grant{}, errNoCode
	}
	if err != nil {
		return grant{}, fmt.Errorf("delete a hand-off code: %w", err)
	}
	var g grant
	if _, err := h.open(item.Key, string(item.Value), codeLife, &g); err != nil {
		return grant{}, errNoCode
	}
	return g, nil
}

// redeem turns a code into this host's cookie. The code is gone whatever comes out.
func (h *Handler) redeem(v *visit) {
	g, err := h.take(v.r.Context(), v.query("code"))
	if err != nil && !errors.Is(err, errNoCode) {
		h.unavailable(v, err)
		return
	}
	var f flow
	id := v.query("flow")
	if err == nil {
		_, err = h.recall(v, flowCookie, purposeFlow, id, &f)
	}
	if err == nil && (g.Host != v.host || f.Host != v.host || !hashes(g.Nonce, f.Nonce)) {
		err = errors.New("the code was made for another host or another browser")
	}
	if err != nil {
		h.notRedeemed(v, err)
		return
	}
	v.clear(flowCookie + id)
	value, err := h.Sessions.Issue(v.r.Context(), g.Session, v.host)
	if errors.Is(err, session.ErrNone) {
		h.fail(v, err, web.Error{Status: http.StatusForbidden, Title: "You were signed out",
			Message: "The session ended while you were on the way here.", RetryURL: v.signInURL(f.Return)})
		return
	}
	if err == nil {
		err = h.enter(v, g.Session, value)
	}
	if err != nil {
		h.unavailable(v, err)
		return
	}
	h.land(v, f.Return)
}

// enter sets the session's cookie at this host and logs it.
func (h *Handler) enter(v *visit, id, value string) error {
	s, err := h.Sessions.Find(v.r.Context(), value, v.host)
	if err != nil {
		return fmt.Errorf("find the session of a new cookie: %w", err)
	}
	http.SetCookie(v.w, session.Cookie(value, s.Expires))
	h.Log.Info("signed in", "session", session.HashID(id), "subject", s.User.ID, "provider", s.Provider, "host", v.host, "request_id", v.id)
	return nil
}

// notRedeemed is what a code gets that is presented for a second time, too late, or by a browser that did not ask for it.
func (h *Handler) notRedeemed(v *visit, cause error) {
	h.over(v, cause, web.Error{Title: "The sign-in was not completed here",
		Message: "It was begun in another browser or more than a few minutes ago, or this browser does not keep this site's cookies."})
}
