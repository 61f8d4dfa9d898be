package login

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/store"

	"github.com/coreos/go-oidc/v3/oidc"
)

const (
	maxLogoutBody = 64 << 10
	// logoutSkew is by how much the provider's clock may be ahead of ours.
	logoutSkew = time.Minute
	// maxLogoutLife bounds how long a logout token is remembered, and so how long it may be good. Providers give them two minutes.
	maxLogoutLife = time.Hour
)

// backChannel takes a logout token from a provider (OpenID Connect Back-Channel Logout 1.0, section 2.5). The request comes from the provider's
// own machine, has no cookie, and is believed for nothing but the token's signature.
func (h *Handler) backChannel(v *visit) {
	w := v.w
	w.Header().Set("Cache-Control", "no-store")
	raw, err := logoutToken(v)
	if err == nil {
		err = h.backChannelLogout(v, raw)
	}
	var refused *logoutError
	switch {
	case err == nil:
		w.WriteHeader(http.StatusOK)
		return
	case errors.As(err, &refused):
		h.Log.Info("a logout token was refused", "request_id", v.id, "cause", bounded(err.Error(), 500))
		answerLogout(w, http.StatusBadRequest, "invalid_request", refused.shown)
	default:
		h.Log.Error("a logout token could not be acted upon", "request_id", v.id, "cause", bounded(err.Error(), 500))
		answerLogout(w, http.StatusServiceUnavailable, "temporarily_unavailable", "the sign-out could not be carried out now; send it again")
	}
}

// logoutError is a fault of the request. What is shown says no more than which check failed.
type logoutError struct {
	shown string
	cause error
}

func (e *logoutError) Error() string { return fmt.Sprintf("%s: %v", e.shown, e.cause) }
func (e *logoutError) Unwrap() error { return e.cause }

// answerLogout is the answer to a request that failed (section 2.8 there).
func answerLogout(w http.ResponseWriter, status int, code, description string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": code, "error_description": description}) // the provider is gone if it fails
}

// logoutToken reads the one parameter of the form.
func logoutToken(v *visit) (string, error) {
	kind, _, err := mime.ParseMediaType(v.r.Header.Get("Content-Type"))
	if err != nil || kind != "application/x-www-form-urlencoded" {
		return "", &logoutError{"the body must be a form", errors.New("another content type")}
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxLogoutBody)
	if err := v.r.ParseForm(); err != nil {
		return "", &logoutError{"the form cannot be read", err}
	}
	if tokens := v.r.PostForm["logout_token"]; len(tokens) == 1 && tokens[0] != "" {
		return tokens[0], nil
	}
	return "", &logoutError{"logout_token must be there once", fmt.Errorf("%d of them", len(v.r.PostForm["logout_token"]))}
}

// backChannelLogout verifies a token with the provider that it names, and ends what it says.
func (h *Handler) backChannelLogout(v *visit, raw string) error {
	ctx, cancel := context.WithTimeout(v.r.Context(), providerTimeout)
	defer cancel()
	header, issuer, err := peek(raw)
	if err != nil {
		return &logoutError{"logout_token is not a signed token", err}
	}
	if t := strings.ToLower(strings.TrimPrefix(header.Type, "application/")); t != "" && t != "jwt" && t != "logout+jwt" {
		return &logoutError{"logout_token has the wrong type", fmt.Errorf("typ %q", bounded(header.Type, 50))}
	}
	var token *oidc.LogoutToken
	err = fmt.Errorf("the issuer %q is none of those configured", bounded(issuer, 200))
	for _, idp := range v.IDPs {
		if idp.Issuer.String() != issuer {
			continue
		}
		if token, err = h.verifyLogout(ctx, idp, raw); err == nil {
			break
		}
	}
	if unanswered := (*unansweredError)(nil); errors.As(err, &unanswered) {
		return err
	}
	if err != nil {
		return &logoutError{"logout_token cannot be verified", err}
	}
	key := "logout-token/" + hex.EncodeToString(hash([]byte(issuer+"\x00"+token.TokenID)))
	if _, err := h.Store.Get(ctx, key); err == nil {
		return &logoutError{"logout_token was used before", errors.New("its jti is known")}
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if token.SessionID != "" {
		err = h.Sessions.RevokeSID(ctx, issuer, token.SessionID)
	} else {
		err = h.Sessions.RevokeSubject(ctx, issuer, token.Subject)
	}
	if err != nil {
		return err
	}
	h.Log.Info("signed out by the provider", "issuer", issuer, "whole_subject", token.SessionID == "", "request_id", v.id)
	// Afterwards, so that a provider may send it again whose first try failed. Two at once end the same sessions.
	_, err = h.Store.Apply(ctx, store.Op{Key: key, Value: []byte{}, Expires: token.Expiry.Add(logoutSkew), Expect: store.Any})
	return err
}

// unansweredError is the provider's silence, which says nothing against a token.
type unansweredError struct{ cause error }

func (e *unansweredError) Error() string { return e.cause.Error() }
func (e *unansweredError) Unwrap() error { return e.cause }

// jwtHeader is the part of a JOSE header that is looked at before the signature is.
type jwtHeader struct {
	Type string `json:"typ"`
}

// peek reads what says who can verify a token. Nothing of it is believed.
func peek(raw string) (header jwtHeader, issuer string, err error) {
	parts := strings.Split(raw, ".")
	if len(parts) != 3 {
		return header, "", fmt.Errorf("it has %d parts", len(parts))
	}
	var payload struct {
		Issuer string `json:"iss"`
	}
	for i, to := range []any{&header, &payload} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil {
			return header, "", err
		}
	}
	return header, payload.Issuer, nil
}

// verifyLogout makes every check of section 2.6 there.
func (h *Handler) verifyLogout(ctx context.Context, idp config.IDP, raw string) (*oidc.LogoutToken, error) {
	m, err := h.providers.get(ctx, idp)
	if err != nil {
		return nil, &unansweredError{err}
	}
	token, err := m.oidc.Verifier(&oidc.Config{ClientID: idp.ClientID, Now: h.Now}).VerifyLogout(oidc.ClientContext(ctx, m.client), raw)
	if err != nil {
		return nil, err
	}
	var more struct {
		Events map[string]json.RawMessage `json:"events"`
	}
	if err := token.Claims(&more); err != nil {
		return nil, err
	}
	now := h.Now()
	event := string(more.Events["http://schemas.openid.net/event/backchannel-logout"])
	switch {
	case !strings.HasPrefix(event, "{"):
		return nil, errors.New("the event is not an object")
	case token.IssuedAt.IsZero() || token.IssuedAt.After(now.Add(logoutSkew)):
		return nil, fmt.Errorf("it was issued at %s, which is not past", token.IssuedAt)
	case token.Expiry.After(now.Add(maxLogoutLife)):
		return nil, fmt.Errorf("it is good until %s, longer than the %s for which it can be remembered", token.Expiry, maxLogoutLife)
	}
	return token, nil
}

// frontChannel ends a provider's session when the provider loads this address in a frame (OpenID Connect Front-Channel Logout 1.0, section 3).
// Browsers send no cookie of ours there, so the session is the one that the parameters name: nobody but the provider and the session's browser
// know its id. A session that is not known leaves nothing behind, unless a sign-in may be under way.
func (h *Handler) frontChannel(v *visit) {
	iss, sid := v.query("iss"), v.query("sid")
	header := v.w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Type", "text/plain; charset=utf-8")
	var of *config.IDP
	for _, idp := range v.IDPs {
		if idp.Issuer.String() == iss {
			of = &idp
		}
	}
	if of == nil || sid == "" || len(sid) > maxSubject {
		header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		http.Error(v.w, "iss and sid must name a session of a provider that signs in here", http.StatusBadRequest)
		return
	}
	header.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors "+of.Issuer.Origin())
	known, err := h.Sessions.KnowsSID(v.r.Context(), iss, sid)
	if err == nil && (known || h.strangeLogouts.take(h.Now())) {
		err = h.Sessions.RevokeSID(v.r.Context(), iss, sid)
	}
	if err != nil {
		h.Log.Error("a front-channel sign-out could not be carried out", "request_id", v.id, "cause", err)
		http.Error(v.w, "not signed out", http.StatusServiceUnavailable)
		return
	}
	if known {
		h.Log.Info("signed out by the provider", "issuer", iss, "whole_subject", false, "request_id", v.id)
	}
	if s, err := h.current(v); err == nil && s == nil && len(v.r.CookiesNamed(session.CookieName)) > 0 {
		http.SetCookie(v.w, session.ClearCookie())
	}
	v.w.WriteHeader(http.StatusOK)
}
