// Package web makes the pages that a person sees: denied, user, signed out, error, and the small ones of sign-in.
//
// Pages are rendered from embedded templates with html/template, ask for nothing from outside, and carry their own strict
// Content-Security-Policy. They have the operator's name and logo where they are told them. Text that came from a provider, a policy or a client is escaped, isolated from the direction of the
// text around it, and cut to a bounded length. The package decides nothing and reads no request: in particular it does not judge
// the URLs that it is given.
package web

import "time"

// Brand is whose pages they are. The zero value names nobody: then the host alone says where one is.
type Brand struct {
	Name    string
	Logo    string // data URL in base64 of an image; "" for the sign of a door
	Support string // URL, mailto: or https, behind "whoever runs this site"; "" for no link
}

// Person is who a page is shown to. The zero value is nobody.
type Person struct {
	Name   string
	Email  string
	Groups []string
}

// Known says whether there is somebody.
func (p Person) Known() bool { return p.Name != "" || p.Email != "" }

// Denied is the 403 page.
type Denied struct {
	Host       string
	Person     Person
	Reasons    []string // of the policy, may be empty
	DecisionID string
	SignOutURL string // "" for no link; not shown to nobody
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
	Others     []Session // the person's other sessions
	EndURL     string    // where the form of one of them posts to, its id as "session"
}

// Session is another session of the person.
type Session struct {
	ID      string // hash
	Agent   string // the browser, in words; may be empty
	Created time.Time
}

// SignedOut says that the sign-out is done.
type SignedOut struct {
	Host    string
	HomeURL string // where "sign in again" leads; "" for no link
}

// SignOut asks before signing out, for a request that came from another site.
type SignOut struct {
	Host   string
	Action string // where the form posts to
}

// Continue goes on to another URL by itself and without a script. It stands between a form and a redirect to another origin, which
// form-action would not let through (CSP Level 3, section 6.4.1).
type Continue struct {
	Host    string
	Title   string
	Message string
	URL     string
}

// Program asks whether a program on the person's computer may connect to the host's TCP service.
type Program struct {
	Host       string
	Account    string // as whom
	Action     string // where the form posts to, with the fields redirect, challenge, state and session
	SignOutURL string

	Redirect, Challenge, State, Session string
}

// SignIn goes on to the sign-in by a script, since only a script can see the fragment of the address. When there is a fragment, or
// the return URL is longer than Limit, the script keeps both in the tab's sessionStorage and goes to KeepURL followed by the name
// of what it kept (32 hexadecimal digits); otherwise, and without scripts, it goes to ContinueURL.
type SignIn struct {
	Host        string
	Return      string // path and query on this host
	Limit       int    // bytes
	ContinueURL string
	KeepURL     string
}

// Return takes up what SignIn kept, whose name it finds in the query parameter "attempt", and goes there; to HomeURL when there is
// nothing. It never leaves the origin.
type Return struct {
	Host    string
	HomeURL string
}

// Choose lets a person choose among providers to sign in with.
type Choose struct {
	Host      string
	Providers []Provider
}

// Provider is one choice.
type Provider struct {
	Label string
	URL   string
}

// Error is any page that says something went wrong: what, and what to do about it.
type Error struct {
	Host      string // "" when it is not known
	Status    int    // 0 to show none
	Title     string
	Message   string
	Remedy    string
	RequestID string
	RetryURL  string // "" for none
}

// Page is a rendered page: an HTML body in UTF-8 and the headers to send with it (Content-Type, Content-Security-Policy,
// Cache-Control, X-Content-Type-Options, Referrer-Policy). The caller owns it.
type Page struct {
	Status int
	Header map[string]string
	Body   []byte
}
