package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"doorward/authz/admin"
	"doorward/xds"
)

const (
	routesPath   = "/v1/routes"
	envoysPath   = "/v1/envoys"
	certsPath    = "/v1/certificates"
	maxRoutesDoc = 64 << 20 // bytes of the body of a change: some 100,000 routes
	maxWait      = time.Minute
)

// routeHandlers are the routes' part of the admin API, with what becomes of them at the Envoys. openapi.json describes it.
func (p *planes) routeHandlers() map[string]http.Handler {
	return map[string]http.Handler{
		"GET " + routesPath:                http.HandlerFunc(p.listRoutes),
		"GET " + routesPath + "/{name}":    http.HandlerFunc(p.getRoute),
		"PUT " + routesPath + "/{name}":    http.HandlerFunc(p.putRoute),
		"DELETE " + routesPath + "/{name}": http.HandlerFunc(p.deleteRoute),
		"POST " + routesPath + "/apply":    http.HandlerFunc(p.applyRoutes),
		"GET " + envoysPath:                http.HandlerFunc(p.listEnvoys),
		"GET " + certsPath:                 http.HandlerFunc(p.listCertificates),
	}
}

func (p *planes) listRoutes(w http.ResponseWriter, r *http.Request) {
	writeTagged(w, r, map[string]any{"routes": p.routeStates()})
}

// writeTagged answers with an ETag of the whole answer, and with 304 to who has it already (RFC 9110, section 13.1.2).
func writeTagged(w http.ResponseWriter, r *http.Request, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		writeFault(w, err)
		return
	}
	tag := strconv.Quote(etag(text))
	w.Header().Set("ETag", tag)
	if r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // the client went away: nothing to do, nobody to tell
}

func (p *planes) getRoute(w http.ResponseWriter, r *http.Request) {
	s, ok := p.routeState(p.authz.Current(), r.PathValue("name"))
	if !ok {
		admin.WriteRefusal(w, http.StatusNotFound, fmt.Errorf("there is no route %q", r.PathValue("name")))
		return
	}
	if s.ETag != "" {
		w.Header().Set("ETag", strconv.Quote(s.ETag))
	}
	writeAnswer(w, s)
}

func (p *planes) putRoute(w http.ResponseWriter, r *http.Request) {
	text, _, err := body(w, r)
	if err != nil {
		p.refuse(w, err)
		return
	}
	p.changeOne(w, r, push{Put: []routeDocument{{Name: r.PathValue("name"), Text: inYAML(text)}}})
}

func (p *planes) deleteRoute(w http.ResponseWriter, r *http.Request) {
	p.changeOne(w, r, push{Delete: []string{r.PathValue("name")}})
}

// changeOne changes the route that the path names, as it is expected to be.
func (p *planes) changeOne(w http.ResponseWriter, r *http.Request, change push) {
	name := r.PathValue("name")
	s, there := p.routeState(p.authz.Current(), name)
	if there && s.ETag == "" {
		p.refuse(w, &fixedRoute{name, s.Source})
		return
	}
	err := change.expect(r, name, s.ETag)
	var result *pushResult
	if err == nil {
		result, err = p.pushAsked(r, change)
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	for _, c := range result.Changes {
		if c.ETag != "" {
			w.Header().Set("ETag", strconv.Quote(c.ETag))
		}
	}
	p.answerPush(w, r, result)
}

func (p *planes) applyRoutes(w http.ResponseWriter, r *http.Request) {
	change, err := changeOf(w, r)
	var result *pushResult
	if err == nil {
		result, err = p.pushAsked(r, change)
	}
	if err != nil {
		p.refuse(w, err)
		return
	}
	p.answerPush(w, r, result)
}

// pushAnswer is what a change of routes is answered with.
type pushAnswer struct {
	Applied bool          `json:"applied"` // false after a dry run
	Changes []routeChange `json:"changes"`
	Envoys  []xds.Answer  `json:"envoys,omitzero"` // what each said within the time given by wait; nil when none were waited for
}

// pushAsked pushes as the query asks for.
func (p *planes) pushAsked(r *http.Request, change push) (*pushResult, error) {
	_, err := waitOf(r) // before anything is changed
	if err == nil {
		change.DryRun, err = flagOf(r, "dry_run")
	}
	if err == nil {
		change.Validate, err = validateOf(r)
	}
	if err != nil {
		return nil, err
	}
	result, err := p.push(r.Context(), change)
	if err == nil && !change.DryRun {
		p.log.Info("routes changed by the operator", "by", admin.Caller(r.Context()), "changes", result.summary())
	}
	return result, err
}

// summary says in a line what was done to which routes.
func (r *pushResult) summary() string {
	names := make(map[string][]string)
	for _, c := range r.Changes {
		names[c.Action] = append(names[c.Action], c.Name)
	}
	var did []string
	for _, action := range []string{actionCreate, actionUpdate, actionDelete} {
		if len(names[action]) > 0 {
			did = append(did, action+" "+few(names[action]))
		}
	}
	return cmp.Or(strings.Join(did, "; "), "none")
}

// answerPush answers with what was changed and, where that is asked for, with what the Envoys say of it.
func (p *planes) answerPush(w http.ResponseWriter, r *http.Request, result *pushResult) {
	answer := pushAnswer{Applied: result.Answers != nil, Changes: result.Changes}
	if wait, _ := waitOf(r); answer.Applied && wait > 0 {
		ctx, cancel := context.WithTimeoutCause(r.Context(), wait, fmt.Errorf("not within %s", wait))
		defer cancel()
		answer.Envoys = append([]xds.Answer{}, result.Answers(ctx)...)
	}
	writeAnswer(w, answer)
}

// refusedChange is the JSON of a change that is refused.
type refusedChange struct {
	admin.Fault
	Route *routeState `json:"route,omitempty"` // what there is in place of what was expected
}

// refuse answers that nothing is changed, and why.
func (p *planes) refuse(w http.ResponseWriter, err error) {
	answer := refusedChange{Fault: admin.Fault{Error: err.Error()}}
	status := http.StatusUnprocessableEntity
	var not *badRequest
	var other *conflict
	switch {
	case errors.As(err, &not):
		status = not.status
	case errors.As(err, &other):
		status = http.StatusPreconditionFailed
		if s, ok := p.routeState(p.authz.Current(), other.Name); ok {
			answer.Route = &s
		}
		if other.ETag != "" {
			w.Header().Set("ETag", strconv.Quote(other.ETag))
		}
	case errors.Is(err, errNoSuchRoute):
		status = http.StatusNotFound
	case errors.Is(err, errNotKept):
		status = http.StatusInternalServerError
	case errors.As(err, new(*fixedRoute)):
		status = http.StatusConflict
	default:
		answer.Problems = problems(err)
	}
	admin.WriteFault(w, status, answer)
}

func (p *planes) listEnvoys(w http.ResponseWriter, _ *http.Request) {
	writeAnswer(w, map[string]any{"envoys": p.xds.Envoys()})
}

func (p *planes) listCertificates(w http.ResponseWriter, _ *http.Request) {
	writeAnswer(w, map[string]any{"certificates": p.certificateStates()})
}
