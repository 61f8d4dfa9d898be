package login

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	refreshLook    = time.Second      // between two looks for sessions that are due
	refreshLease   = time.Minute      // longer than a refresh can take
	refreshAtOnce  = 8                // refreshes under way in this process
	refreshBackoff = 30 * time.Second // until a refresh is tried again that the provider did not answer
)

// Run refreshes the sessions of providers that gave a refresh token, each by one owner at a time, until ctx ends. A refresh brings new tokens
// and the claims as they are now; one that the provider refuses ends the session; one that it does not answer leaves the session as it is.
func (h *Handler) Run(ctx context.Context) error {
	var group sync.WaitGroup
	defer group.Wait()
	free := make(chan struct{}, refreshAtOnce)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(refreshLook):
		}
		due, err := h.Sessions.Due(ctx, refreshLease, refreshAtOnce-len(free))
		if err != nil && ctx.Err() == nil {
			h.Log.Error("the sessions that are to be refreshed could not be found", "cause", err)
		}
		for _, r := range due {
			free <- struct{}{}
			group.Go(func() {
				defer func() { <-free }()
				h.refreshOwned(ctx, r)
			})
		}
	}
}

// refreshOwned refreshes a session and says when to do it again.
func (h *Handler) refreshOwned(ctx context.Context, r session.Refresh) {
	settings := h.Settings()
	next := h.Now().Add(settings.Refresh)
	switch err := h.refresh(ctx, &settings, r.ID); {
	case errors.Is(err, session.ErrNone), errors.Is(err, errNoRefresh):
		next = time.Time{}
	case errors.Is(err, errRefused):
		next = time.Time{}
		h.Log.Info("the provider no longer knows the session: it is ended", "session", session.HashID(r.ID), "cause", bounded(err.Error(), 500))
		if err := h.Sessions.Revoke(ctx, r.ID); err != nil {
			h.Log.Error("a session that the provider has ended could not be ended", "session", session.HashID(r.ID), "cause", err)
			next = h.Now().Add(refreshBackoff)
		}
	case err != nil && ctx.Err() == nil:
		next = h.Now().Add(min(refreshBackoff, max(settings.Refresh, time.Second)))
		h.Log.Warn("a session could not be refreshed: it goes on as it is", "session", session.HashID(r.ID), "cause", bounded(err.Error(), 500))
	}
	if err := h.Sessions.Again(ctx, r, next); err != nil && ctx.Err() == nil {
		h.Log.Error("the next refresh of a session could not be noted", "session", session.HashID(r.ID), "cause", err)
	}
}

var (
	errNoRefresh = errors.New("the session is not refreshed: there is no refresh token, or refreshing is turned off")
	errRefused   = errors.New("the provider refused the refresh")
)

// refresh asks the provider for new tokens (OpenID Connect Core 1.0, section 12) and stores what they say.
func (h *Handler) refresh(ctx context.Context, c *Settings, id string) error {
	s, err := h.Sessions.Load(ctx, id)
	if err != nil {
		return err
	}
	idp, ok := c.IDPs.Find(s.Provider)
	if !ok || idp.Issuer.String() != s.Issuer || s.Tokens.Refresh == "" || c.Refresh <= 0 {
		return errNoRefresh
	}
	m, err := h.providers.get(ctx, idp)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, m.client), 2*providerTimeout)
	defer cancel()
	token, err := m.oauth(c, idp).TokenSource(ctx, &oauth2.Token{RefreshToken: s.Tokens.Refresh}).Token()
	if err != nil {
		return refreshError(err)
	}
	fresh, err := h.refreshed(ctx, c, idp, m, s, token)
	if err != nil {
		// The old refresh token may be used up: the new one is kept, so that the next refresh can set this right.
		_, kept := h.Sessions.Update(context.WithoutCancel(ctx), id, func(stored *session.Session) error {
			stored.Tokens.Refresh = token.RefreshToken
			return nil
		})
		return errors.Join(err, kept)
	}
	_, err = h.Sessions.Update(context.WithoutCancel(ctx), id, func(stored *session.Session) error {
		stored.User, stored.AMR, stored.ACR, stored.AuthTime, stored.Tokens = fresh.User, fresh.AMR, fresh.ACR, fresh.AuthTime, fresh.Tokens
		return nil
	})
	return err
}

// refreshError tells a refusal from an answer that says nothing of the session (RFC 6749, section 5.2).
func refreshError(err error) error {
	var answer *oauth2.RetrieveError
	if errors.As(err, &answer) && answer.ErrorCode == "invalid_grant" {
		return fmt.Errorf("%w: %s", errRefused, bounded(answer.ErrorDescription, 300))
	}
	if errors.As(err, &answer) && answer.Response != nil && answer.Response.StatusCode == http.StatusUnauthorized {
		return fmt.Errorf("refresh: the provider does not accept the client's credentials: %w", tokenError(err))
	}
	return fmt.Errorf("refresh: %w", tokenError(err))
}

// refreshed is the session as the new tokens have it. An ID token is believed as at the sign-in, but for the nonce, and only for the same
// subject and the same sign-in (OpenID Connect Core 1.0, section 12.2). A provider that sends none is asked at its userinfo endpoint.
func (h *Handler) refreshed(ctx context.Context, c *Settings, idp config.IDP, m *metadata, s *session.Session, token *oauth2.Token) (session.Session, error) {
	claims := map[string]any{}
	raw, hasID := token.Extra("id_token").(string)
	if hasID {
		id, err := m.oidc.Verifier(&oidc.Config{ClientID: idp.ClientID, Now: h.Now}).Verify(ctx, raw)
		if err != nil {
			return session.Session{}, fmt.Errorf("verify the refreshed ID token: %w", err)
		}
		if claims, err = claimsOf(id); err != nil {
			return session.Session{}, fmt.Errorf("read the refreshed ID token: %w", err)
		}
		if err := checkRefreshed(id, claims, idp.ClientID, s, token.AccessToken); err != nil {
			return session.Session{}, err
		}
	}
	if err := m.addUserinfo(ctx, idp, token, s.Subject, claims); err != nil {
		return session.Session{}, err
	}
	if !hasID {
		claims = renewed(s.User.Claims, claims)
	}
	if err := h.overage(idp, s.Subject, claims); err != nil {
		return session.Session{}, err
	}
	claims["sub"] = s.Subject
	fresh := h.newSession(c, idp, claims)
	fresh.AuthTime = s.AuthTime // a refresh asks nobody for credentials
	if fresh.ACR == "" {
		fresh.ACR = s.ACR
	}
	if len(fresh.AMR) == 0 {
		fresh.AMR = slices.Clone(s.AMR)
	}
	fresh.Tokens = session.Tokens{ID: s.Tokens.ID, Access: token.AccessToken, Refresh: token.RefreshToken, Expiry: token.Expiry}
	if hasID {
		fresh.Tokens.ID = raw
	}
	return fresh, nil
}

// renewed are the claims of before with the fresh ones in their places. Whether an e-mail is verified was said of that e-mail alone.
func renewed(before, fresh map[string]any) map[string]any {
	all := maps.Clone(before)
	if _, given := fresh["email"]; given && !sameText(fresh["email"], before["email"]) {
		delete(all, "email_verified")
	}
	maps.Copy(all, fresh)
	return all
}

func checkRefreshed(id *oidc.IDToken, claims map[string]any, client string, s *session.Session, access string) error {
	sid, _ := claims["sid"].(string)
	at := unixTime(claims["auth_time"])
	switch {
	case id.Subject != s.Subject:
		return errors.New("the refreshed ID token is about another subject")
	case sid != "" && s.SID != "" && sid != s.SID:
		return errors.New("the refreshed ID token is of another session at the provider")
	case !at.IsZero() && !s.AuthTime.IsZero() && at.After(s.AuthTime) && sid != s.SID:
		return errors.New("the refreshed ID token is of another sign-in")
	}
	return checkToken(id, claims, client, id.Nonce, access)
}
