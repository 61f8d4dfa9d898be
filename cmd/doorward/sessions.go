package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"doorward/authz/admin"
	"doorward/authz/bearer"
	"doorward/authz/session"
	"doorward/authz/token"
	"doorward/xds/node"
)

// maxSessionsListed bounds one answer of the admin API.
const maxSessionsListed = 10_000

// sessionHandlers are the sessions' part of the admin API: GET /v1/sessions?user=&limit=, and POST /v1/sessions/revoke with one of session (hashes),
// user and all.
func (p *planes) sessionHandlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET /v1/sessions":         http.HandlerFunc(p.listSessions),
		"POST /v1/sessions/revoke": http.HandlerFunc(p.revokeSessions),
	}
}

func (p *planes) listSessions(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
	if err != nil || limit < 1 || limit > maxSessionsListed {
		admin.WriteRefusal(w, http.StatusBadRequest, fmt.Errorf("limit must be a number from 1 to %d", maxSessionsListed))
		return
	}
	user := r.URL.Query().Get("user")
	list, more := []sessionInfo{}, false
	err = p.sessions.All(r.Context(), func(s *session.Session) bool {
		if user != "" && !isUser(s, user) {
			return true
		}
		if more = len(list) == limit; more {
			return false
		}
		list = append(list, sessionInfo{
			ID: session.HashID(s.ID), User: s.User.ID, Email: s.User.Email, Provider: s.Provider, Agent: s.Agent, Created: s.Created, Expires: s.Expires, Groups: s.User.Groups,
		})
		return true
	})
	if err != nil {
		writeFault(w, err)
		return
	}
	slices.SortFunc(list, func(a, b sessionInfo) int { return b.Created.Compare(a.Created) })
	writeAnswer(w, map[string]any{"sessions": list, "more": more})
}

// isUser says whether a session is of the user with that id or e-mail.
func isUser(s *session.Session, user string) bool {
	return s.User.ID == user || s.User.Email != "" && strings.EqualFold(s.User.Email, user)
}

func (p *planes) revokeSessions(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	n, err := 0, error(nil)
	switch hashes := q["session"]; {
	case q.Get("all") == "true":
		n, err = p.sessions.RevokeEverything(r.Context())
	case q.Get("user") != "":
		n, err = p.revokeUser(r.Context(), q.Get("user"))
	default:
		n, err = p.revokeHashes(r.Context(), hashes)
	}
	if err != nil {
		writeFault(w, err)
		return
	}
	p.log.Info("sessions ended by the operator", "by", admin.Caller(r.Context()), "count", n, "user", q.Get("user"), "all", q.Get("all") == "true")
	writeAnswer(w, map[string]any{"revoked": n})
}

// matching collects the sessions that match. They are ended when all have been found, since ending one changes what is looked through.
func (p *planes) matching(ctx context.Context, match func(*session.Session) bool) (found []*session.Session, err error) {
	err = p.sessions.All(ctx, func(s *session.Session) bool {
		if match(s) {
			found = append(found, s)
		}
		return true
	})
	return found, err
}

// revokeUser ends the sessions of a user by the provider's subject, so that a sign-in under way ends too.
func (p *planes) revokeUser(ctx context.Context, user string) (int, error) {
	found, err := p.matching(ctx, func(s *session.Session) bool { return isUser(s, user) })
	for _, s := range found {
		if err == nil {
			err = p.sessions.RevokeSubject(ctx, s.Issuer, s.Subject)
		}
	}
	return len(found), err
}

func (p *planes) revokeHashes(ctx context.Context, hashes []string) (int, error) {
	found, err := p.matching(ctx, func(s *session.Session) bool { return slices.Contains(hashes, session.HashID(s.ID)) })
	for _, s := range found {
		if err == nil {
			err = p.sessions.Revoke(ctx, s.ID)
		}
	}
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("there is no session %s; doorward session list shows those that there are", strings.Join(hashes, ", "))
	}
	return len(found), err
}

func writeAnswer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the client went away: nothing to do, nobody to tell
}

// writeFault answers with an error: 409 for what is refused and the operator can act on, 500 for what did not work.
func writeFault(w http.ResponseWriter, err error) {
	status := http.StatusInternalServerError
	if errors.As(err, new(token.Refusal)) || errors.As(err, new(bearer.Refusal)) || errors.Is(err, node.ErrRefused) {
		status = http.StatusConflict
	}
	admin.WriteRefusal(w, status, err)
}
