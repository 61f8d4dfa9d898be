package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"doorward/authz/config"
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

func (p *planes) listRoutes(w http.ResponseWriter, _ *http.Request) {
	writeAnswer(w, map[string]any{"routes": p.routeStates()})
}

func (p *planes) getRoute(w http.ResponseWriter, r *http.Request) {
	s, ok := p.routeState(p.authz.Current(), r.PathValue("name"))
	if !ok {
		writeRefusal(w, http.StatusNotFound, fmt.Errorf("there is no route %q", r.PathValue("name")))
		return
	}
	if s.ETag != "" {
		w.Header().Set("ETag", strconv.Quote(s.ETag))
	}
	writeAnswer(w, s)
}

func (p *planes) putRoute(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	text, err := body(w, r)
	if err != nil {
		writeRefusal(w, http.StatusBadRequest, err)
		return
	}
	p.changeOne(w, r, name, push{Put: []routeDocument{{Name: name, Text: text}}})
}

func (p *planes) deleteRoute(w http.ResponseWriter, r *http.Request) {
	p.changeOne(w, r, r.PathValue("name"), push{Delete: []string{r.PathValue("name")}})
}

// changeOne changes one route, as it is expected to be by If-Match and If-None-Match (RFC 9110, section 13.1).
func (p *planes) changeOne(w http.ResponseWriter, r *http.Request, name string, change push) {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match != "" && none != "", none != "" && none != "*":
		writeRefusal(w, http.StatusBadRequest, errors.New(`give If-Match with an ETag, or If-None-Match: *`))
		return
	case none == "*":
		change.Expect = map[string]string{name: ""}
	case match == "*":
		if _, ok := p.routeState(p.authz.Current(), name); !ok {
			writeRefusal(w, http.StatusPreconditionFailed, &conflict{Name: name})
			return
		}
	case match != "":
		tag, err := strconv.Unquote(match)
		if err != nil || tag == "" || match[0] != '"' {
			writeRefusal(w, http.StatusBadRequest, fmt.Errorf("If-Match: %s is not an ETag; it is in quotes, as it came", match))
			return
		}
		change.Expect = map[string]string{name: tag}
	}
	p.answerPush(w, r, change)
}

// applied is the request of POST /v1/routes/apply in JSON, beside a document with `routes` itself.
type applied struct {
	Documents []appliedDocument `json:"documents"`
	Delete    []string          `json:"delete,omitempty"`
	Expect    map[string]string `json:"expect,omitempty"` // name -> ETag that the pushed route must have, "" for one that must not exist
}

type appliedDocument struct {
	File string `json:"file"`          // for messages
	Dir  string `json:"dir,omitempty"` // absolute: where relative paths start; at the configuration when left out
	Text string `json:"text"`          // YAML or JSON with `routes`
}

func (p *planes) applyRoutes(w http.ResponseWriter, r *http.Request) {
	text, err := body(w, r)
	if err != nil {
		writeRefusal(w, http.StatusBadRequest, err)
		return
	}
	var change push
	if change.Prune, err = flagOf(r, "prune"); err != nil {
		writeRefusal(w, http.StatusBadRequest, err)
		return
	}
	var many applied
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.DisallowUnknownFields()
	if decoder.Decode(&many) == nil {
		for _, d := range many.Documents {
			if d.Dir != "" && !filepath.IsAbs(d.Dir) {
				writeRefusal(w, http.StatusBadRequest, fmt.Errorf("dir %q is not an absolute path", d.Dir))
				return
			}
			change.Put = append(change.Put, routeDocument{File: d.File, Dir: d.Dir, Text: []byte(d.Text)})
		}
		change.Delete, change.Expect = many.Delete, many.Expect
	} else {
		change.Put = []routeDocument{{File: "request", Text: text}}
	}
	p.answerPush(w, r, change)
}

// pushAnswer is what a change of routes is answered with.
type pushAnswer struct {
	Applied bool          `json:"applied"` // false after a dry run
	Changes []routeChange `json:"changes"`
	Envoys  []xds.Answer  `json:"envoys,omitempty"` // what each said within the time given by wait
}

func (p *planes) answerPush(w http.ResponseWriter, r *http.Request, change push) {
	wait, err := waitOf(r)
	if err == nil {
		change.DryRun, err = flagOf(r, "dry_run")
	}
	if err == nil {
		change.Validate, err = validateOf(r)
	}
	if err != nil {
		writeRefusal(w, http.StatusBadRequest, err)
		return
	}
	result, err := p.push(r.Context(), change)
	if err != nil {
		writeRefusal(w, statusOf(err), err)
		return
	}
	answer := pushAnswer{Applied: !change.DryRun, Changes: result.Changes}
	if answer.Applied && wait > 0 {
		ctx, cancel := context.WithTimeoutCause(r.Context(), wait, fmt.Errorf("not within %s", wait))
		defer cancel()
		answer.Envoys = result.Answers(ctx)
	}
	if len(change.Put) == 1 && change.Put[0].Name != "" && len(result.Changes) == 1 {
		w.Header().Set("ETag", strconv.Quote(result.Changes[0].ETag))
	}
	writeAnswer(w, answer)
}

// statusOf is the status of a refused change.
func statusOf(err error) int {
	var bad config.Problems
	switch {
	case errors.As(err, new(*conflict)):
		return http.StatusPreconditionFailed
	case errors.Is(err, errNoSuchRoute):
		return http.StatusNotFound
	case errors.As(err, &bad):
		return http.StatusUnprocessableEntity
	}
	return http.StatusUnprocessableEntity
}

// refused is the JSON of an endpoint that refuses.
type refused struct {
	Error    string           `json:"error"`
	Problems []config.Problem `json:"problems,omitempty"`
}

func writeRefusal(w http.ResponseWriter, status int, err error) {
	answer := refused{Error: err.Error()}
	if status == http.StatusUnprocessableEntity {
		answer.Problems = problems(err)
	}
	if c := new(conflict); errors.As(err, &c) && c.ETag != "" {
		w.Header().Set("ETag", strconv.Quote(c.ETag))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(answer) // the client went away: nothing to do, nobody to tell
}

// body reads the body of a change: YAML or JSON.
func body(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || kind != "application/json" && kind != "application/yaml" {
		return nil, errors.New("the Content-Type must be application/json or application/yaml")
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRoutesDoc))
	if err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	return text, nil
}

func flagOf(r *http.Request, name string) (bool, error) {
	switch s := r.URL.Query().Get(name); s {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, fmt.Errorf("%s=%q: it is true or false", name, s)
	}
}

// waitOf is how long the Envoys are waited for; not at all when it is not said.
func waitOf(r *http.Request) (time.Duration, error) {
	s := r.URL.Query().Get("wait")
	if s == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > maxWait {
		return 0, fmt.Errorf("wait=%q: it is a time as 10s, at most %s", s, maxWait)
	}
	return d, nil
}

// validateOf says whether a change is to be validated by an Envoy before it is made.
func validateOf(r *http.Request) (bool, error) {
	switch s := r.URL.Query().Get("validate"); s {
	case "":
		return false, nil
	case "envoy":
		return true, nil
	default:
		return false, fmt.Errorf("validate=%q: it is envoy, or left out", s)
	}
}

func (p *planes) listEnvoys(w http.ResponseWriter, _ *http.Request) {
	writeAnswer(w, map[string]any{"envoys": p.xds.Envoys()})
}

func (p *planes) listCertificates(w http.ResponseWriter, _ *http.Request) {
	writeAnswer(w, map[string]any{"certificates": p.certificateStates()})
}
