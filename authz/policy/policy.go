// Package policy compiles Rego and decides with it. It is the only importer of OPA.
//
// A policy is a Rego package; the contract of its rules is in policies/README.md. Compiling checks what can be checked before a request
// comes; deciding is bounded in time, never panics, and every fault of a policy is a denial. The package neither knows HTTP nor
// finds sessions: it is given an Input.
package policy

import (
	"context"
	"time"
)

// User is input.user. Its fields are those of session.User, to which it converts.
type User struct {
	ID            string
	Email         string
	EmailVerified bool
	Name          string
	Groups        []string
	Claims        map[string]any
}

// Input is what rules read as `input`. Only the parts that the policy can read are built.
type Input struct {
	User    *User    // nil without a session
	Session *Session // nil without a session
	Request Request
	Route   Route
}

// Session is input.session. Times in Unix seconds, 0 when unknown.
type Session struct {
	ID       string // a hash of the session's id
	Created  int64
	Expires  int64
	AuthTime int64
	AMR      []string
	ACR      string
	Version  uint64 // not visible to rules: part of the cache's key
}

// Request is input.request.
type Request struct {
	Method   string
	Scheme   string
	Host     string                                    // without port
	Path     string                                    // normalised, not decoded, no query
	Query    string                                    // as sent, without "?"; rules see name -> array of values
	Headers  func(name string) (value string, ok bool) // lower-case name; repeated ones joined by ","
	Names    func() []string                           // all names, for a policy that reads headers as a whole
	ClientIP string
}

// Route is input.route.
type Route struct {
	Name   string
	Host   string
	Labels map[string]string
}

// Decision is what a policy said. The zero value denies.
type Decision struct {
	Allow           bool
	Reasons         []string          // of `deny`, sorted; shown to the person
	Claims          map[string]any    // added to the JWT; shared between decisions, never changed
	Headers         map[string]string // set on the request to the upstream
	ResponseHeaders map[string]string // set on the response to the client
	Err             error             // the policy did not work: undefined `allow` is not an error, a timeout or a wrong type is
}

// Config says what to compile.
type Config struct {
	Paths   []string      // Rego files, and directories that are searched for *.rego (not *_test.rego)
	Timeout time.Duration // bound of one evaluation; 100 ms when zero
}

// Set is a compiled set of policies. It is immutable and safe for concurrent use.
type Set struct{}

// Load reads and compiles. The error joins every problem found, each with file and line.
func Load(ctx context.Context, c Config) (*Set, error) { panic("unwritten") }

// Policy returns the built-in or the Rego package that a route names. The error of an unknown name says which names there are.
func (s *Set) Policy(name string) (*Policy, error) { panic("unwritten") }

// Policy is one compiled policy. It is immutable and safe for concurrent use.
type Policy struct{}

// Digest is a hash of all that decides: the package, everything that it refers to, and the helpers. 64 hexadecimal digits.
func (p *Policy) Digest() string { panic("unwritten") }

// Decide evaluates the policy. It never panics and takes at most the configured timeout.
func (p *Policy) Decide(ctx context.Context, in *Input) Decision { panic("unwritten") }
