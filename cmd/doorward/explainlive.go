package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"doorward/authz"
	"doorward/authz/admin"
	"doorward/authz/session"
)

// explainAPI answers `doorward explain`: with id, why that decision was made; with route, method, path, header (several), client_ip and user
// (an id or an e-mail address; absent for nobody), why that request would be.
func (p *planes) explainAPI(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	t, err := p.explainDecision(r.Context(), q.Get("id"))
	if q.Get("id") == "" {
		t, err = p.explainRequest(r.Context(), q)
	}
	if err != nil {
		admin.WriteRefusal(w, http.StatusNotFound, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, t) // the client went away: nothing to do, nobody to tell
}

func (p *planes) explainDecision(ctx context.Context, id string) (tried, error) {
	if len(id) > 128 {
		return tried{}, errors.New("that is no decision's id")
	}
	r, ok := p.authz.Recent(id)
	if !ok {
		return tried{}, fmt.Errorf("the decision %s is not, or no longer, kept: the running doorward keeps its last decisions only, "+
			"the allowed and the other ones apart; decide the request again, or by --route and --user", id)
	}
	t := explained(ctx, r)
	t.Source = "the running doorward's decision"
	if r.Route != nil && !r.Current {
		t.Notes = append(t.Notes, "the route has changed since: what is explained is the revision that has decided")
	}
	return t, nil
}

func (p *planes) explainRequest(ctx context.Context, q url.Values) (tried, error) {
	user := q.Get("user")
	a := asked{
		route: q.Get("route"), user: user, anonymous: user == "",
		method: q.Get("method"), path: q.Get("path"), headers: q["header"], clientIP: q.Get("client_ip"),
	}
	in, err := a.input(time.Now())
	if err != nil {
		return tried{}, err
	}
	source, lacks := "the running doorward", ""
	if user != "" {
		found, err := p.newestSession(ctx, user)
		if err != nil || found == nil {
			return tried{NoSession: err == nil}, err
		}
		if lacks = p.authz.Lacks(a.route, found); lacks == "" {
			in.User, in.Session = authz.Subject(found)
		}
		source = "the running doorward, with the newest live session of " + user
	}
	r, err := p.authz.Try(ctx, a.route, *in)
	if err != nil {
		p.mu.Lock()
		c := p.index.Config()
		p.mu.Unlock()
		return tried{}, noRoute(c, a.route)
	}
	if r.Outcome == "unauthenticated" && lacks != "" {
		r.Cause = errors.New(lacks)
	}
	t := explained(ctx, r)
	t.Source = source
	if lacks != "" {
		t.Notes = append(t.Notes, "the session counts as none here: "+lacks)
	}
	return t, nil
}

// newestSession is that of a user, by id or e-mail address; nil without one.
func (p *planes) newestSession(ctx context.Context, user string) (newest *session.Session, err error) {
	err = p.sessions.All(ctx, func(s *session.Session) bool {
		if isUser(s, user) && (newest == nil || s.Created.After(newest.Created)) {
			newest = s
		}
		return true
	})
	return newest, err
}

// explained is a decision with the reasons why, as far as a policy has made it.
func explained(ctx context.Context, r authz.Recent) tried {
	t := newTried(r)
	if r.Policy == nil || r.Input == nil {
		return t
	}
	d := depsOf(r.Policy)
	t.Reads, t.Kept = d.Reads, "for as long as all of that stays the same"
	if !d.Cached {
		t.Kept = "not: " + d.Why
	}
	if !judged(r) {
		return t
	}
	x := r.Policy.Explain(ctx, r.Input)
	t.Explanation = &x
	if !x.Decision.Same(&r.Decision) {
		now := authz.Recent{Outcome: "deny", Decision: x.Decision, Cause: x.Decision.Err}
		if x.Decision.Allow {
			now.Outcome = "allow"
		}
		t.Notes = append(t.Notes, "decided again now it comes to something else, which is what is explained: "+shortJSON(verdictOf(now)))
	}
	return t
}

// judged says whether rules have run.
func judged(r authz.Recent) bool {
	switch r.Outcome {
	case "allow", "deny":
		return true
	case "unauthenticated":
		return r.Route.Anonymous()
	}
	return false
}
