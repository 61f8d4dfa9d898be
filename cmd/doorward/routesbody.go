package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
)

// badRequest is a request that cannot be understood, with the status that says so.
type badRequest struct {
	status int
	error
}

// bad is a badRequest with status 400.
func bad(format string, args ...any) error {
	return &badRequest{http.StatusBadRequest, fmt.Errorf(format, args...)}
}

// applied is the request of POST /v1/routes/apply in JSON.
type applied struct {
	Routes    json.RawMessage   `json:"routes,omitempty"`    // as in a file of routes
	Documents []appliedDocument `json:"documents,omitempty"` // files of routes
	Delete    []string          `json:"delete,omitempty"`
	Prune     bool              `json:"prune,omitempty"`  // delete every other pushed route
	Expect    map[string]string `json:"expect,omitempty"` // name -> ETag that the pushed route must have, "" for one that must not exist
}

type appliedDocument struct {
	File string `json:"file"`          // for messages
	Dir  string `json:"dir,omitempty"` // absolute: where relative paths start; at the configuration when left out
	Text string `json:"text"`          // YAML or JSON with `routes`
}

// changeOf reads the request of POST /v1/routes/apply: JSON, or in YAML a file of routes itself.
func changeOf(w http.ResponseWriter, r *http.Request) (change push, err error) {
	text, isJSON, err := body(w, r)
	if err != nil {
		return change, err
	}
	if change.Prune, err = flagOf(r, "prune"); err != nil {
		return change, err
	}
	if !isJSON {
		change.Put = []routeDocument{{File: "request", Text: text}}
		return change, nil
	}
	var many applied
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&many); err != nil {
		return change, bad("the body: %s", strings.TrimPrefix(err.Error(), "json: "))
	}
	if many.Routes != nil {
		change.Put = append(change.Put, routeDocument{File: "request", Text: inYAML(around(text, many.Routes))})
	}
	for _, d := range many.Documents {
		if d.Dir != "" && !filepath.IsAbs(d.Dir) {
			return change, bad("dir %q is not an absolute path", d.Dir)
		}
		change.Put = append(change.Put, routeDocument{File: d.File, Dir: d.Dir, Text: inYAML([]byte(d.Text))})
	}
	change.Delete, change.Expect, change.Prune = many.Delete, many.Expect, change.Prune || many.Prune
	return change, nil
}

// body reads the body of a change: YAML or JSON.
func body(w http.ResponseWriter, r *http.Request) (text []byte, isJSON bool, err error) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if isJSON = kind == "application/json"; err != nil || !isJSON && kind != "application/yaml" {
		return nil, false, &badRequest{http.StatusUnsupportedMediaType, errors.New("the Content-Type must be application/json or application/yaml")}
	}
	text, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxRoutesDoc))
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, false, &badRequest{http.StatusRequestEntityTooLarge, fmt.Errorf("the body has more than %d bytes; push routes in several parts", large.Limit)}
	case err != nil:
		return nil, false, bad("read the body: %w", err)
	case isJSON && !json.Valid(text):
		return nil, false, bad("the body is not JSON")
	}
	return text, isJSON, nil
}

// around is a document of the routes alone that are a part of a text, at the place where they stand in it, for messages.
func around(text, routes []byte) []byte {
	const head = `{"routes":`
	before := text[:max(0, bytes.Index(text, routes))]
	lines, column := bytes.Count(before, []byte("\n")), len(before)-bytes.LastIndexByte(before, '\n')-1
	var out []byte
	if lines > 0 {
		out = append(bytes.Repeat([]byte("\n"), lines-1), head+"\n"...)
	} else {
		out, column = []byte(head), column-len(head)
	}
	return slices.Concat(out, bytes.Repeat([]byte(" "), max(0, column)), routes, []byte("}"))
}

// inYAML has a text that is JSON say what YAML says otherwise: characters beyond the first plane are two escapes in JSON (RFC 8259, section 7).
func inYAML(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u`)) || !json.Valid(text) {
		return text
	}
	out := make([]byte, 0, len(text))
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			out = append(out, text[i])
			continue
		}
		if high := escaped(text[i:]); utf16.IsSurrogate(high) {
			pair := utf16.DecodeRune(high, escaped(text[i+6:])) // U+FFFD for half of one
			out = append(out, string(pair)...)
			if i += 5; pair != '\uFFFD' {
				i += 6
			}
			continue
		}
		out = append(out, text[i], text[i+1])
		i++
	}
	return out
}

// escaped is the character of an escape as \u00e9 that a text begins with, 0 for none.
func escaped(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return 0
	}
	return rune(n)
}

func flagOf(r *http.Request, name string) (bool, error) {
	switch s := r.URL.Query().Get(name); s {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	default:
		return false, bad("%s=%q: it is true or false", name, s)
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
		return 0, bad("wait=%q: it is a time as 10s, at most %s", s, maxWait)
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
		return false, bad("validate=%q: it is envoy, or left out", s)
	}
}

// expect notes what If-Match and If-None-Match (RFC 9110, section 13.1) want of a pushed route, which has an ETag, or "" when it does not exist.
func (c *push) expect(r *http.Request, name, has string) error {
	match, none := r.Header.Get("If-Match"), r.Header.Get("If-None-Match")
	switch {
	case match == "" && none == "", match == "*" && none == "" && has != "":
		return nil
	case match != "" && none != "", none != "" && none != "*":
		return bad("give If-Match with an ETag, or If-None-Match: *")
	case match == "*":
		return &conflict{Name: name}
	case none == "*":
		c.Expect = map[string]string{name: ""}
		return nil
	}
	var tags []string
	for given := range strings.SplitSeq(match, ",") {
		given = strings.TrimSpace(given)
		tag, err := strconv.Unquote(given)
		if err != nil || tag == "" || given[0] != '"' {
			return bad("If-Match: %s is not an ETag; it is in quotes, as it came", match)
		}
		tags = append(tags, tag)
	}
	if !slices.Contains(tags, has) {
		has = tags[0] // which it does not have
	}
	c.Expect = map[string]string{name: has}
	return nil
}
