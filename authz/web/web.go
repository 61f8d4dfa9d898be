// Package web makes the pages that a person sees: denied, user, signed out, error, and the small ones of sign-in.
//
// Pages are rendered from embedded templates with html/template, ask for nothing from outside, and carry their own strict
// Content-Security-Policy. The package decides nothing and reads no request.
package web

import "time"

// Person is who a page is shown to. The zero value is nobody.
type Person struct {
	Name   string
	Email  string
	Groups []string
}

// Denied is the 403 page.
type Denied struct {
	Host       string
	Person     Person
	Reasons    []string // of the policy, may be empty
	DecisionID string
	SignOutURL string
}

// User is the page at the prefix: who you are.
type User struct {
	Host       string
	Person     Person
	Subject    string
	Session    string // hash
	Created    time.Time
	Expires    time.Time
	SignOutURL string
}

// SignedOut says that the sign-out is done.
type SignedOut struct {
	Host    string
	HomeURL string
}

// SignOut asks before signing out, for a request that came from another site.
type SignOut struct {
	Host   string
	Action string // where the form posts to
}

// Error is any page that says something went wrong: what, and what to do about it.
type Error struct {
	Status    int
	Title     string
	Message   string
	Remedy    string
	RequestID string
	RetryURL  string // "" for none
}

// Page is a rendered page: an HTML body and the headers to send with it (Content-Type, Content-Security-Policy, Cache-Control,
// X-Content-Type-Options, Referrer-Policy).
type Page struct {
	Status int
	Header map[string]string
	Body   []byte
}

// Pages renders. It is immutable and safe for concurrent use.
type Pages struct{}

// New parses the templates.
func New() (*Pages, error) { panic("unwritten") }

func (p *Pages) Denied(d Denied) Page       { panic("unwritten") }
func (p *Pages) User(u User) Page           { panic("unwritten") }
func (p *Pages) SignedOut(s SignedOut) Page { panic("unwritten") }
func (p *Pages) SignOut(s SignOut) Page     { panic("unwritten") }
func (p *Pages) Error(e Error) Page         { panic("unwritten") }
