package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"regexp"
	"sync/atomic"
	"time"
	"unicode/utf8"
)

//go:embed page
var files embed.FS

// Bounds of what a page shows of text that others wrote.
const (
	maxText   = 500 // characters of one value
	maxGroups = 100
)

// Pages renders. It is safe for concurrent use.
type Pages struct {
	current atomic.Pointer[map[string]layout] // by the name of the page's file
}

// layout is one page's templates with the policy that fits them.
type layout struct {
	template *template.Template
	policy   string // Content-Security-Policy
}

// logoURL is all that a logo may be. In the form that it has here it can stand in an attribute as it is.
var logoURL = regexp.MustCompile(`^data:image/(png|jpeg|svg\+xml);base64,[A-Za-z0-9+/]+=*$`)

// New parses the templates for a brand.
func New(b Brand) (*Pages, error) {
	if b.Logo != "" && !logoURL.MatchString(b.Logo) {
		return nil, errors.New("the logo of the pages is no data URL of a PNG, a JPEG or an SVG in base64")
	}
	style, err := files.ReadFile("page/style.css")
	if err != nil {
		return nil, fmt.Errorf("read the style of the pages: %w", err)
	}
	layouts := make(map[string]layout)
	for name, script := range map[string]string{
		"denied": "", "user": "", "signed_out": "", "sign_out": "", "choose": "", "error": "", "continue": "", "program": "",
		"sign_in": "sign_in.js", "return": "return.js",
	} {
		if layouts[name], err = parse(name, b, style, script); err != nil {
			return nil, fmt.Errorf("page %q: %w", name, err)
		}
	}
	p := new(Pages)
	p.current.Store(&layouts)
	return p, nil
}

// Adopt makes the pages what next is now. Pages that are being rendered end as they began.
func (p *Pages) Adopt(next *Pages) { p.current.Store(next.current.Load()) }

// parse reads one page's templates. The style and the script are put in unchanged, so that their hashes hold; so is the logo, which would
// otherwise be escaped again for every page. In an img element an SVG runs no script and loads nothing (SVG 2, section 2.2.2), and the
// policy lets no image but one of the page itself be loaded.
func parse(name string, b Brand, style []byte, scriptFile string) (layout, error) {
	policy := "default-src 'none'; style-src " + source(style)
	var script []byte
	if scriptFile != "" {
		var err error
		if script, err = files.ReadFile("page/" + scriptFile); err != nil {
			return layout{}, err
		}
		policy += "; script-src " + source(script)
	}
	var logo template.HTML
	if b.Logo != "" {
		logo = template.HTML(`<img class="logo" src="` + b.Logo + `" alt="">`)
		policy += "; img-src data:"
	}
	t, err := template.New("layout.html").Funcs(template.FuncMap{
		"style":   func() template.CSS { return template.CSS(style) },
		"script":  func() template.JS { return template.JS(script) },
		"logo":    func() template.HTML { return logo },
		"brand":   func() string { return b.Name },
		"support": func() string { return b.Support },
		"clip":    clip,
		"first":   first,
		"date":    func(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") },
		"iso":     func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(files, "page/layout.html", "page/"+name+".html")
	return layout{t, policy + "; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}, err
}

// source is the CSP source expression for an inline element's content (CSP Level 3, section 2.3.1).
func source(content []byte) string {
	sum := sha256.Sum256(content)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// clip cuts a text that somebody else wrote to what fits on a page.
func clip(s string) string {
	if utf8.RuneCountInString(s) <= maxText {
		return s
	}
	return string([]rune(s)[:maxText]) + "…"
}

// first is the part of a list that a page shows, and how many it leaves out.
func first(list []string) struct {
	Shown []string
	More  int
} {
	n := min(len(list), maxGroups)
	return struct {
		Shown []string
		More  int
	}{list[:n], len(list) - n}
}

// Denied renders the 403 page.
func (p *Pages) Denied(d Denied) Page { return p.render("denied", http.StatusForbidden, d) }

// User renders the user page.
func (p *Pages) User(u User) Page { return p.render("user", http.StatusOK, u) }

// SignedOut renders the end of a sign-out.
func (p *Pages) SignedOut(s SignedOut) Page { return p.render("signed_out", http.StatusOK, s) }

// SignOut renders the question before a sign-out.
func (p *Pages) SignOut(s SignOut) Page { return p.render("sign_out", http.StatusOK, s) }

// Continue renders a page that goes on by itself.
func (p *Pages) Continue(c Continue) Page { return p.render("continue", http.StatusOK, c) }

// Program renders the question whether a program may connect.
func (p *Pages) Program(q Program) Page { return p.render("program", http.StatusOK, q) }

// SignIn renders the page that keeps the fragment.
func (p *Pages) SignIn(s SignIn) Page { return p.render("sign_in", http.StatusOK, s) }

// Return renders the page that restores what SignIn kept.
func (p *Pages) Return(r Return) Page { return p.render("return", http.StatusOK, r) }

// Choose renders the choice among providers.
func (p *Pages) Choose(c Choose) Page { return p.render("choose", http.StatusOK, c) }

// Error renders an error with its own status.
func (p *Pages) Error(e Error) Page { return p.render("error", e.Status, e) }

// render never fails on data: every template was executed in a test with every field. Should one fail all the same, the page says
// no more than its status.
func (p *Pages) render(name string, status int, data any) Page {
	page := (*p.current.Load())[name]
	var body bytes.Buffer
	if err := page.template.Execute(&body, data); err != nil {
		body.Reset()
		fmt.Fprintf(&body, "<!doctype html><title>%[1]d</title><p>%[1]d</p>", status)
	}
	return Page{
		Status: status,
		Header: map[string]string{
			"Content-Type":            "text/html; charset=utf-8",
			"Content-Security-Policy": page.policy,
			"Cache-Control":           "no-store",
			"X-Content-Type-Options":  "nosniff",
			"Referrer-Policy":         "no-referrer",
		},
		// Envoy is told the body in a field that must be UTF-8.
		Body: bytes.ToValidUTF8(body.Bytes(), []byte("\uFFFD")),
	}
}
