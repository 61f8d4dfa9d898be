// Package policy compiles Rego and decides with it. It is the only importer of OPA.
//
// A policy is a Rego package; the contract of its rules is in policies/README.md. Load checks what can be checked before a request comes, and
// computes what each policy can read (Policy.Reads). Decide builds no more of the input than that; a Cache keeps decisions by it. An
// evaluation is bounded in steps and time and reaches no network, file or environment; it never panics, and every fault of a policy is a
// denial.
//
// The package neither knows HTTP nor finds sessions: it is given an Input. It does not ask whether a request without a session may be decided
// at all; its caller must (the reason is in policies/README.md).
package policy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
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

// Session is input.session. Times in Unix seconds, 0 when unknown: rules see an unknown time, and an unknown ACR, as undefined.
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

	// What follows is for policies that are written for OPA's Envoy plugin, and for input.client_certificate.

	Target    string // path and query, as sent
	Authority string // as sent, with the port
	// Attribute returns one part of Envoy's question: source, destination, request (time, and of http what is not above), contextExtensions,
	// metadataContext, routeMetadataContext or tlsSession. Names are those of protojson, bytes are base64, numbers int64 or float64. nil when
	// it is not there. It is asked for nothing but what the policy reads. nil stands for a request without any.
	Attribute func(name string) (map[string]any, error)
}

// Route is input.route.
type Route struct {
	Name     string
	Host     string
	Labels   map[string]string
	Revision string // not visible to rules: part of the cache's key; "" keeps decisions of policies that read the route uncached
}

// Decision is what a policy said. The zero value denies. Its slices and maps may be shared with other decisions: they are never changed.
type Decision struct {
	Allow           bool
	Reasons         []string          // of `deny`, sorted; shown to the person
	Claims          map[string]any    // added to the JWT
	ClaimsDigest    string            // names the content of Claims, for the reuse of tokens; "" without claims
	Headers         map[string]string // set on the request to the upstream
	RemoveHeaders   []string          // taken from the request to the upstream; lower case
	ResponseHeaders map[string]string // set on the response to the client, a denial's too
	SetQuery        []Parameter       // set in the query that the upstream gets, in this order
	RemoveQuery     []string          // names of parameters taken from it
	Metadata        map[string]any    // JSON object for access logs (Envoy's dynamic metadata), of denials too

	// The policy's own form of a denial.
	Redirect string // where a denied navigation is sent: a path that begins with one slash, or an https URL; "" for nowhere
	Status   int    // 400 to 599, 0 for the ordinary one; of a policy for OPA's Envoy plugin 200 to 599
	Body     string // in place of the ordinary page or JSON; "" for that
	BodyType string // the body's content type

	Err error // the policy did not work: undefined `allow` is not an error, a timeout or a wrong type is
}

// Parameter is one of a query: letters, digits and -_.~ only.
type Parameter struct{ Name, Value string }

// OwnDenial says whether the policy gave its denial a form of its own.
func (d *Decision) OwnDenial() bool { return d.Redirect != "" || d.Status != 0 || d.Body != "" }

// Config says what to compile.
type Config struct {
	Paths   []string      // Rego files and data documents, and directories that are searched for *.rego (not *_test.rego) and data.json, data.yaml, data.yml
	Bundles []*Bundle     // compiled together with Paths
	Waiting []string      // names of bundles that are not there yet: what needs them is ErrWaiting
	Timeout time.Duration // bound of one evaluation; 100 ms when zero
}

// defaultTimeout bounds one evaluation. An ordinary policy takes 20 microseconds.
const defaultTimeout = 100 * time.Millisecond

// Set is a compiled set of policies. It is immutable and safe for concurrent use.
type Set struct {
	compiler *ast.Compiler
	store    storage.Store
	txn      storage.Transaction // one for all reads: the store is never written
	timeout  time.Duration
	policies map[string]*Policy
	waiting  []string // bundles
}

// Policy is one compiled policy. It is immutable but for its counters, and safe for concurrent use.
type Policy struct {
	usage *counters
	name  string
	id    [sha256.Size]byte // digest
	kind  kind
	set   *Set
	query ast.Body
	qc    ast.QueryCompiler
	reads Reads
	plan  *plan
	rules []outcome // that the query evaluates

	waiting []string // bundles, of an absent policy
}

// kind tells the built-ins, which evaluate nothing, from Rego.
type kind int

const (
	rego kind = iota
	public
	anyUser
	absent // it may be in a bundle that is not there yet
)

// Usage counts the decisions of a policy since it was loaded.
type Usage struct {
	Hits     uint64 // from the cache
	Misses   uint64 // evaluated, and kept unless there was an error
	Bypassed uint64 // evaluated, and never kept: the policy or the request cannot be cached
}

type counters struct{ hits, misses, bypassed atomic.Uint64 }

// Usage may be read at any time. The built-ins evaluate nothing and count nothing.
func (p *Policy) Usage() Usage {
	return Usage{p.usage.hits.Load(), p.usage.misses.Load(), p.usage.bypassed.Load()}
}

// ErrWaiting says that a policy, or something that it needs, may be in a bundle that is not there yet.
var ErrWaiting = errors.New("a bundle that may hold the policy is not there yet")

// Waiting is an error that is ErrWaiting while the policy cannot decide because of a bundle, and nil otherwise.
func (p *Policy) Waiting() error {
	if p.kind != absent {
		return nil
	}
	return fmt.Errorf("%w: %s", ErrWaiting, strings.Join(p.waiting, ", "))
}

// Name is what a route calls the policy.
func (p *Policy) Name() string { return p.name }

// Digest is a hash of all that decides: the package, everything that it refers to, and the helpers. 64 hexadecimal digits.
func (p *Policy) Digest() string { return hex.EncodeToString(p.id[:]) }

// Reads is what the policy can read. It is shared and must not be changed.
func (p *Policy) Reads() Reads { return p.reads }

// Decide evaluates the policy. It never panics, and an evaluation that reaches the configured timeout is cut and denies.
func (p *Policy) Decide(ctx context.Context, in *Input) Decision {
	switch p.kind {
	case public:
		return Decision{Allow: true}
	case anyUser:
		return Decision{Allow: in.User != nil}
	case absent:
		return Decision{Err: p.Waiting()}
	}
	return p.evaluate(ctx, in)
}
