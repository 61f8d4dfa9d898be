package login

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

// maxSubject is the longest subject (OpenID Connect Core 1.0, section 2).
const maxSubject = 255

// protocolClaims are about the token, not about the person.
func protocolClaims() []string {
	return []string{
		"iss", "aud", "exp", "iat", "nbf", "jti", "azp", "nonce", "at_hash", "c_hash", "s_hash", "sid", "auth_time", "acr", "amr", "typ",
		"session_state", "_claim_names", "_claim_sources",
	}
}

// identify exchanges a code and returns the session that it gives a right to, not yet stored. Everything that OpenID Connect Core 1.0,
// section 3.1.3.7, asks for is checked: signature by a key of the provider, algorithm among those that it announced and never none or
// HMAC, issuer, audience, authorized party, expiry, nonce, and the access token's hash when there is one.
func (h *Handler) identify(ctx context.Context, c *Settings, idp config.IDP, m *metadata, a attempt, code string) (session.Session, error) {
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, m.client), 2*providerTimeout)
	defer cancel()
	token, err := m.oauth(c, idp).Exchange(ctx, code, oauth2.VerifierOption(a.Verifier))
	if err != nil {
		return session.Session{}, fmt.Errorf("exchange the code: %w", tokenError(err))
	}
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return session.Session{}, errors.New("the token endpoint sent no ID token: is the scope openid allowed for this client?")
	}
	id, err := m.oidc.Verifier(&oidc.Config{ClientID: idp.ClientID, Now: h.Now}).Verify(ctx, raw)
	if err != nil {
		return session.Session{}, fmt.Errorf("verify the ID token: %w", err)
	}
	claims, err := claimsOf(id)
	if err != nil {
		return session.Session{}, fmt.Errorf("read the ID token: %w", err)
	}
	if err := checkToken(id, claims, idp.ClientID, a.Nonce, token.AccessToken); err != nil {
		return session.Session{}, err
	}
	if err := c.ambiguous(idp, id.Subject); err != nil {
		return session.Session{}, err
	}
	if err := m.addUserinfo(ctx, idp, token, id.Subject, claims); err != nil {
		return session.Session{}, err
	}
	if err := h.overage(idp, id.Subject, claims); err != nil {
		return session.Session{}, err
	}
	s := h.newSession(c, idp, claims)
	s.Tokens = session.Tokens{ID: raw, Access: token.AccessToken, Refresh: token.RefreshToken, Expiry: token.Expiry}
	if token.RefreshToken != "" && c.Refresh > 0 {
		s.RefreshAt = h.Now().Add(c.Refresh)
	}
	return s, nil
}

// overage is what a provider does that sends a link in place of the groups of a person who is in many (OpenID Connect Core 1.0, section 5.6.2:
// distributed claims). Taken as none, a policy that denies by group would let the person in.
func (h *Handler) overage(idp config.IDP, subject string, claims map[string]any) error {
	names, _ := claims["_claim_names"].(map[string]any)
	if names[groupsClaim(idp)] == nil && claims["hasgroups"] != true {
		return nil
	}
	if idp.GroupsOverage != "ignore" {
		return errOverage
	}
	h.Log.Warn("the provider sent a link in place of the groups: they are taken as none", "subject", subject, "provider", idp.Name)
	return nil
}

var errOverage = errors.New("the provider sent a link in place of the groups, because the person is in too many: have it send only the groups assigned to " +
	"this application, or set groups_overage: ignore on the provider")

// tokenError keeps the body of an answer that is no OAuth error out of the log.
func tokenError(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.ErrorCode == "" && refused.Response != nil {
		return fmt.Errorf("the token endpoint answered %s", refused.Response.Status)
	}
	return err
}

// checkToken checks what the verifier leaves to us.
func checkToken(id *oidc.IDToken, claims map[string]any, client, nonce, access string) error {
	azp, has := claims["azp"]
	switch {
	case id.Nonce != nonce:
		return errors.New("the ID token has another nonce: it was made for another sign-in")
	case has && azp != client, !has && len(id.Audience) > 1:
		return fmt.Errorf("the ID token was made for %v", azp)
	case id.Subject == "" || len(id.Subject) > maxSubject:
		return fmt.Errorf("the ID token has a subject of %d bytes, it must have 1 to %d", len(id.Subject), maxSubject)
	case id.AccessTokenHash != "":
		if err := id.VerifyAccessToken(access); err != nil {
			return fmt.Errorf("access token: %w", err)
		}
	}
	return nil
}

// claimsOf decodes the claims of a token or an answer, with numbers as they are.
func claimsOf(c interface{ Claims(any) error }) (map[string]any, error) {
	var raw json.RawMessage
	if err := c.Claims(&raw); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	claims := map[string]any{}
	return claims, d.Decode(&claims)
}

// addUserinfo adds what the ID token lacks, when it lacks name, e-mail or groups and the provider has a userinfo endpoint. What the ID token
// says is never replaced. A provider that has the endpoint but does not answer there ends the sign-in: without the missing claims
// a policy might decide otherwise.
func (m *metadata) addUserinfo(ctx context.Context, idp config.IDP, token *oauth2.Token, subject string, claims map[string]any) error {
	complete := claims["email"] != nil && claims["name"] != nil && groupsGiven(idp, claims)
	if complete || m.oidc.UserInfoEndpoint() == "" {
		return nil
	}
	info, err := m.oidc.UserInfo(ctx, oauth2.StaticTokenSource(token))
	if err != nil {
		return fmt.Errorf("userinfo: %w", err)
	}
	if info.Subject != subject {
		return errors.New("userinfo: it is about another subject than the ID token") // OpenID Connect Core 1.0, section 5.3.4
	}
	more, err := claimsOf(info)
	if err != nil {
		return fmt.Errorf("userinfo: %w", err)
	}
	merge(claims, more)
	return nil
}

// merge adds claims that are absent. Whether an e-mail is verified is only taken together with the same e-mail.
func merge(claims, more map[string]any) {
	email, has := claims["email"]
	if !has {
		delete(claims, "email_verified")
	}
	for name, value := range more {
		if _, has := claims[name]; !has && name != "email_verified" {
			claims[name] = value
		}
	}
	verified, says := more["email_verified"]
	if _, said := claims["email_verified"]; says && !said && (!has || sameText(email, more["email"])) {
		claims["email_verified"] = verified
	}
}

// sameText says whether two claims are one text. What is no text is the same as nothing.
func sameText(a, b any) bool {
	one, isText := a.(string)
	other, isToo := b.(string)
	return isText && isToo && one == other
}

// newSession reads the claims. The subject becomes the user's id: as it is for the first provider, behind the provider's name for every other, since
// two providers may use one subject for two people.
func (h *Handler) newSession(c *Settings, idp config.IDP, claims map[string]any) session.Session {
	text := func(name string) string {
		s, _ := claims[name].(string)
		return s
	}
	s := session.Session{
		Provider: idp.Name, Issuer: idp.Issuer.String(), Subject: text("sub"), SID: text("sid"),
		Expires: h.Now().Add(c.Lifetime), AuthTime: unixTime(claims["auth_time"]), AMR: config.ClaimTexts(claims["amr"]), ACR: text("acr"),
	}
	s.User = session.User{
		ID: c.userID(idp, s.Subject), Email: text("email"), Name: text("name"), Groups: groups(idp, claims), Claims: maps.Clone(claims),
	}
	verified, said := claims["email_verified"]
	s.User.EmailVerified = s.User.Email != "" && (verified == true || verified == "true" || !said && idp.TrustEmail)
	if s.User.Name == "" {
		s.User.Name = text("preferred_username")
	}
	for _, name := range protocolClaims() {
		delete(s.User.Claims, name)
	}
	return s
}

func (s *Settings) userID(idp config.IDP, subject string) string {
	if idp.Name == s.IDPs[0].Name {
		return subject
	}
	return idp.Name + ":" + subject
}

// ambiguous is an error for a subject of the first provider that reads as the id of somebody else: only its own have nothing before them.
func (s *Settings) ambiguous(idp config.IDP, subject string) error {
	name, _, found := strings.Cut(subject, ":")
	if !found || idp.Name != s.IDPs[0].Name {
		return nil
	}
	if _, provider := s.IDPs[1:].Find(name); provider || slices.Contains(s.Programs, name) {
		return fmt.Errorf("the subject reads as the id of a user of %s: rename that provider or issuer", name)
	}
	return nil
}

func groupsClaim(idp config.IDP) string {
	if idp.GroupsClaim == "" {
		return "groups"
	}
	return idp.GroupsClaim
}

// groups are at a name or a path.
func groups(idp config.IDP, claims map[string]any) []string {
	claim, _ := config.Claim(claims, groupsClaim(idp))
	return config.ClaimTexts(claim)
}

func groupsGiven(idp config.IDP, claims map[string]any) bool {
	claim, _ := config.Claim(claims, groupsClaim(idp))
	return claim != nil
}

// unixTime reads a NumericDate (RFC 7519, section 2), or returns the zero time.
func unixTime(claim any) time.Time {
	n, ok := claim.(json.Number)
	if !ok {
		return time.Time{}
	}
	seconds, err := n.Float64()
	if err != nil || seconds <= 0 || seconds > 1<<40 {
		return time.Time{}
	}
	return time.Unix(int64(seconds), 0)
}
