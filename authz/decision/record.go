// Package decision is the decision log: one JSON record for each request that was decided, on a line of its own, and the same records for
// whoever follows them while they are made.
//
// A request only puts what it came to into a bounded queue. Making the record, encoding, sampling, masking and writing happen behind it, so
// that neither a slow reader nor a full disk makes a request wait or fail; what cannot be written is dropped and counted. The package knows
// nothing of policies and sessions, and a Record has no place for a cookie, a token or the query of a URL.
package decision

import "time"

// The kinds of records, which are the key "msg" of their lines.
const (
	KindDecision = "decision" // a request was decided
	KindShadow   = "shadow"   // a route's shadow policy would have decided otherwise, or did not work
)

// The levels of records, as the program's own log has them.
const (
	LevelInfo  = "INFO"
	LevelError = "ERROR" // something of ours or of a policy's did not work
)

// OutcomeAllow is the outcome of a request that was let through. Only such decisions are sampled.
const OutcomeAllow = "allow"

// Outcomes are all that a decision can come to.
func Outcomes() []string {
	return []string{OutcomeAllow, "deny", "unauthenticated", "misdirected", "malformed", "unavailable"}
}

// Record is one decision. Its strings may hold anything that a client sent. Empty fields are left out of its line, but for those that every
// line has: time, level, msg, id, outcome, route, revision, method, host, path, client_ip and took.
type Record struct {
	Time     time.Time     `json:"time"` // when the question came; RFC 3339 in UTC
	Level    string        `json:"level"`
	Kind     string        `json:"msg"`
	ID       string        `json:"id"` // of the request, as Envoy's access log and the page of a denial have it
	Outcome  string        `json:"outcome"`
	Status   int           `json:"status,omitempty"` // of the answer; 200 when the request was let through
	Route    string        `json:"route"`
	Revision string        `json:"revision"` // of the route
	Policy   string        `json:"policy,omitempty"`
	Digest   string        `json:"policy_digest,omitempty"` // of the policy: 16 hexadecimal digits
	Method   string        `json:"method"`
	Host     string        `json:"host"`
	Path     string        `json:"path"` // without the query
	ClientIP string        `json:"client_ip"`
	Subject  string        `json:"subject,omitempty"`
	Email    string        `json:"email,omitempty"`
	Session  string        `json:"session,omitempty"` // a hash of the session's id
	Reasons  []string      `json:"reasons,omitempty"` // of the policy's deny rules
	Cause    string        `json:"cause,omitempty"`   // what did not work, for the operator
	Took     time.Duration `json:"took"`              // in nanoseconds

	// Of a shadow's record.
	ShadowPolicy  string   `json:"shadow_policy,omitempty"`
	ShadowOutcome string   `json:"shadow_outcome,omitempty"`
	ShadowReasons []string `json:"shadow_reasons,omitempty"`
	Differences   []string `json:"differences,omitempty"` // what the two policies differ in

	// Of is what the record was made from, for a subscriber that knows it; nil when it is not kept. It is in no line.
	Of any `json:"-"`
}

// Event is something decided. Record is called once or more, not by the request and at any time later, so what it reads must not change.
type Event interface{ Record() Record }

// Record makes a record an Event.
func (r Record) Record() Record { return r }
