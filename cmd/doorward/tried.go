package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"doorward/authz"
	"doorward/authz/policy"
)

// tried is a decision as eval and explain show it.
type tried struct {
	ID       string    `json:"id,omitempty"`
	Time     time.Time `json:"time,omitzero"`
	Route    string    `json:"route,omitempty"`
	Match    string    `json:"match,omitempty"`  // what of a request makes Envoy choose the route
	Misfit   string    `json:"misfit,omitempty"` // why Envoy would choose another route for the request
	Revision string    `json:"revision,omitempty"`
	Current  bool      `json:"current"` // the route still has this revision
	Policy   string    `json:"policy,omitempty"`

	Source    string   `json:"source,omitempty"`     // of explain: what has decided, on whose session
	Notes     []string `json:"notes,omitempty"`      // what to know about the explanation
	NoSession bool     `json:"no_session,omitempty"` // nothing was decided: the user has no live session
	Reads     []string `json:"reads,omitempty"`      // what the decision depends on
	Kept      string   `json:"kept,omitempty"`       // how long the decision is kept

	Input   *policy.Document `json:"input,omitempty"`
	Outcome string           `json:"outcome"`
	Answer  int              `json:"answer,omitempty"` // the status of the answer, of what was decided
	Meaning string           `json:"meaning"`          // the outcome in words, with the remedy where there is one
	Cause   string           `json:"cause,omitempty"`
	Reasons []string         `json:"reasons,omitempty"`

	Claims          map[string]any    `json:"claims,omitempty"`
	Token           map[string]any    `json:"token,omitempty"` // of the identity JWT: who it names, beside the claims
	Headers         map[string]string `json:"headers,omitempty"`
	RemoveHeaders   []string          `json:"remove_headers,omitempty"`
	ResponseHeaders map[string]string `json:"response_headers,omitempty"`
	Metadata        map[string]any    `json:"metadata,omitempty"`
	Redirect        string            `json:"redirect,omitempty"`
	Status          int               `json:"status,omitempty"`
	Body            string            `json:"body,omitempty"`
	BodyType        string            `json:"body_type,omitempty"`

	Explanation *policy.Explanation `json:"explanation,omitempty"`
}

// newTried takes from a decision what is shown of it.
func newTried(r authz.Recent) tried {
	d := r.Decision
	t := tried{
		ID: r.ID, Time: r.Time, Revision: r.Revision, Current: r.Current, Outcome: r.Outcome, Answer: r.Status, Reasons: d.Reasons,
		ResponseHeaders: d.ResponseHeaders, Metadata: d.Metadata,
	}
	if r.Outcome == "allow" {
		t.Claims, t.Headers, t.RemoveHeaders = d.Claims, d.Headers, d.RemoveHeaders
	} else {
		t.Redirect, t.Status, t.Body, t.BodyType = d.Redirect, d.Status, d.Body, d.BodyType
	}
	if r.Cause != nil {
		t.Cause = r.Cause.Error()
	}
	if r.Route != nil && r.Input != nil {
		t.Route, t.Match, t.Policy = r.Route.Name, match(r), r.Route.Policy
		t.Misfit = misfit(r)
	}
	if r.Input != nil && r.Policy != nil {
		document := documentOf(r)
		t.Input = &document
	}
	if c := r.Token; c != nil {
		t.Token = map[string]any{"iss": c.Issuer, "aud": c.Audience, "sub": c.Subject, "groups": nonNil(c.Groups)}
		for name, value := range map[string]string{"email": c.Email, "name": c.Name, "preferred_username": c.PreferredUsername} {
			if value != "" {
				t.Token[name] = value
			}
		}
	}
	t.Meaning = meaning(r)
	return t
}

func nonNil(list []string) []string { return append([]string{}, list...) }

// match says which requests Envoy gives to the route.
func match(r authz.Recent) string {
	host := "https://" + r.Route.From.Host()
	switch {
	case r.Route.TCP():
		return r.Route.From.String() + ", CONNECT"
	case r.Route.Path != "":
		return host + ", path " + r.Route.Path
	case r.Route.Prefix != "":
		return host + ", prefix " + r.Route.Prefix
	case r.Route.Regex != "":
		return host + ", regex " + r.Route.Regex
	}
	return host + ", every path"
}

// misfit says why Envoy would not give the request to the route; "" when it could. Other routes of the host may still come first.
func misfit(r authz.Recent) string {
	path := r.Input.Request.Path
	plain, _, _ := strings.Cut(path, ";")
	prefix := strings.TrimSuffix(r.Route.Prefix, "/")
	fits := true
	switch {
	case r.Route.TCP():
		fits = r.Input.Request.Method == "CONNECT"
	case r.Route.Path != "":
		fits = plain == r.Route.Path
	case prefix != "":
		fits = plain == prefix || strings.HasPrefix(plain, prefix+"/")
	case r.Route.Regex != "":
		re, err := regexp.Compile("^(?:" + r.Route.Regex + ")$")
		fits = err != nil || re.MatchString(plain)
	}
	if fits {
		return ""
	}
	return fmt.Sprintf("Envoy would not choose this route for %s: it is for %s", path, match(r))
}

// meaning is an outcome in words.
func meaning(r authz.Recent) string {
	switch {
	case r.Outcome == "allow":
		return "the policy lets the request pass"
	case r.Outcome == "deny" && r.Cause != nil:
		return "the policy does not work, and whatever does not work denies: mend what the cause names"
	case r.Outcome == "deny" && len(r.Decision.Reasons) > 0:
		return "the policy denies the request, for the reasons given"
	case r.Outcome == "deny":
		return "no rule `allow` of the policy lets the request pass"
	case r.Outcome == "unauthenticated" && r.Cause != nil:
		return "the session is not good enough for this route, so it counts as none: the person is asked to sign in again"
	case r.Outcome == "unauthenticated" && r.Route != nil && !r.Route.Anonymous():
		return "there is no session, so no rule has run: the person has to sign in (or set allow_anonymous on the route, and the policy decides on strangers)"
	case r.Outcome == "unauthenticated":
		return "there is no session, and the policy does not let strangers in: the person has to sign in"
	case r.Outcome == "misdirected":
		return "the request's host is not the one that this route, or the TLS handshake, is for: a connection was used again for another host, or something in front of Envoy changes the Host header or the server name"
	case r.Outcome == "malformed":
		return "the request cannot be decided on as it is: the cause says what of it is not as a browser sends it"
	case r.NotSent():
		return "Envoy did not send all that the policy reads, so what is missing could not be told from what the client left out: " +
			"Envoy has not taken the present configuration yet (doorward status says why), or it is configured by somebody else"
	case r.RevisionUnknown():
		return "Envoy has routed by a configuration that the running doorward does not have: it was restarted with another one, or Envoy is " +
			"configured by somebody else; doorward status says what each Envoy has"
	default:
		return "something needed for the decision was not there: the cause says what; the policy was not asked"
	}
}

// show prints a decision.
func (t tried) show(w io.Writer, format string) error {
	if format == "json" {
		return writeJSON(w, t)
	}
	p := &printer{}
	p.tried(t)
	_, err := io.WriteString(w, onScreen(p.String()))
	return err
}

// onScreen replaces what a terminal would not show but obey: parts of requests and names are chosen by others.
func onScreen(text string) string { return shown(text, "\n\t") }

// shown replaces what does not print, but for the characters that are kept.
func shown(text, kept string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) && !strings.ContainsRune(kept, r) {
			return unicode.ReplacementChar
		}
		return r
	}, text)
}

// printer writes aligned lines of label and text.
type printer struct{ strings.Builder }

func (p *printer) line(label, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if text != "" {
		fmt.Fprintf(p, "%-9s  %s\n", label, strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n"+strings.Repeat(" ", 11)))
	}
}

func (p *printer) json(label string, m map[string]any) {
	if len(m) == 0 {
		return
	}
	text, err := json.Marshal(m)
	if err != nil {
		text = []byte(err.Error())
	}
	p.line(label, "%s", text)
}

func (p *printer) headers(label string, m map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(m)) {
		p.line(label, "%s: %s", name, m[name])
	}
}

func (p *printer) tried(t tried) {
	p.line("by", "%s", t.Source)
	if t.ID != "" {
		p.line("decision", "%s, %s", t.ID, t.Time.UTC().Format(time.RFC3339))
	}
	if t.Route != "" {
		p.line("route", "%s (%s)", t.Route, t.Match)
		p.line("revision", "%s", t.Revision)
		p.line("policy", "%s", t.Policy)
	}
	p.input(t.Input)
	if t.Source != "" && t.Input != nil && t.Input.Session != nil && t.Input.Session.ID != noSession {
		s := t.Input.Session
		p.line("session", "%s, from %s until %s", s.ID, unixText(s.Created), unixText(s.Expires))
	}
	p.line("note", "%s", t.Misfit)
	for _, note := range t.Notes {
		p.line("note", "%s", note)
	}
	p.line("outcome", "%s: %s", t.Outcome, t.Meaning)
	if t.Answer != 0 {
		p.line("answer", "%d", t.Answer)
	}
	p.line("cause", "%s", t.Cause)
	for _, reason := range t.Reasons {
		p.line("reason", "%s", reason)
	}
	p.json("claims", t.Claims)
	p.json("token", t.Token)
	p.headers("header", t.Headers)
	for _, name := range t.RemoveHeaders {
		p.line("removed", "%s", name)
	}
	p.headers("response", t.ResponseHeaders)
	p.json("metadata", t.Metadata)
	p.line("redirect", "%s", t.Redirect)
	if t.Status != 0 {
		p.line("status", "%d", t.Status)
	}
	p.line("body", "%s", t.Body)
	if t.Kept != "" {
		p.line("reads", "%s", cmp.Or(strings.Join(t.Reads, ", "), "nothing"))
		p.line("kept", "%s", t.Kept)
	}
	if t.Explanation != nil {
		p.WriteString("\n" + t.Explanation.String())
	}
}

func unixText(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// input says who asks for what.
func (p *printer) input(d *policy.Document) {
	if d == nil {
		return
	}
	if u := d.User; u != nil {
		p.line("user", "%s", strings.Join(slices.Compact([]string{cmp.Or(u.Email, u.ID), u.ID}), ", id "))
		p.line("groups", "%s", strings.Join(u.Groups, ", "))
	} else {
		p.line("user", "nobody: there is no session")
	}
	query := ""
	if d.Request.Query != nil || d.Request.RawQuery != "" {
		query = "?" + cmp.Or(d.Request.RawQuery, encoded(d.Request.Query))
	}
	p.line("request", "%s %s://%s%s%s", d.Request.Method, cmp.Or(d.Request.Scheme, "https"), d.Route.Host, d.Request.Path, query)
}
