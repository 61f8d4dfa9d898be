package authz

import (
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"doorward/authz/decision"
	"doorward/authz/policy"
)

// Recorder takes each decision. Add must neither block nor fail; it makes the record later.
type Recorder interface{ Add(e decision.Event) }

// record notes what a request came to. Everything that takes time is done behind the recorder's queue.
func (s *Server) record(req *request, v verdict, status int, start time.Time) {
	took := s.Now().Sub(start)
	k := &kept{at: start, took: took, request: req, verdict: v, status: status}
	s.recent.add(k)
	s.count(&k.verdict, took)
	if v.fault() {
		s.reportFault(k)
	}
	switch {
	case s.Decisions == nil:
	case len(req.question) > recentBytes:
		s.Decisions.Add(k.apart())
	default:
		s.Decisions.Add(k)
	}
}

// fault says whether something of ours or of a policy's did not work. What a client can cause at will is none.
func (v *verdict) fault() bool {
	return v.outcome == unavailable || v.outcome == denied && v.cause != nil
}

// What a record takes of texts that a policy or a client has made, in bytes and entries.
const (
	longestText = 512
	mostReasons = 32
)

// Record is the decision's record. It has no query, no cookie and no token.
func (k *kept) Record() decision.Record {
	req, v := k.request, &k.verdict
	r := decision.Record{
		Time: k.at, Level: decision.LevelInfo, Kind: decision.KindDecision, ID: req.id, Outcome: string(v.outcome), Status: k.status,
		Route: clip(req.route), Revision: clip(req.revision), Method: clip(req.method), Host: clip(req.host), Path: clip(req.path),
		ClientIP: clip(req.clientIP), Reasons: clipped(v.decision.Reasons), Took: k.took, Of: k,
	}
	if v.fault() {
		r.Level = decision.LevelError
	}
	if v.route != nil {
		r.Policy, r.Digest = v.route.Policy, v.route.digest
	}
	if v.session != nil {
		r.Subject, r.Session = v.session.User.ID, v.hash
		if v.session.User.EmailVerified {
			r.Email = v.session.User.Email
		}
	}
	if v.cause != nil {
		r.Cause = clipTo(v.cause.Error(), longestText)
	}
	return r
}

// apart is the record of a request so large that it must not stay in memory for it.
func (k *kept) apart() decision.Record {
	r := k.Record()
	for _, text := range []*string{&r.ID, &r.Route, &r.Revision, &r.Method, &r.Host, &r.Path, &r.ClientIP} {
		*text = strings.Clone(*text)
	}
	r.Of = nil
	return r
}

// recordShadow notes what a shadow policy would have done otherwise. The decision's own record has the same id.
func (s *Server) recordShadow(job shadowed, would verdict, differences []string) {
	if s.Decisions == nil {
		return
	}
	real, in := job.real, &job.in.Request
	r := decision.Record{
		Time: s.Now(), Level: decision.LevelInfo, Kind: decision.KindShadow, ID: job.id, Outcome: string(real.outcome),
		Route: real.route.Name, Revision: real.route.revision, Policy: real.route.Policy, Digest: real.route.digest,
		Method: clip(in.Method), Host: clip(in.Host), Path: clip(in.Path), ClientIP: clip(in.ClientIP), Reasons: clipped(real.decision.Reasons),
		ShadowPolicy: would.route.Policy, ShadowOutcome: string(would.outcome), ShadowReasons: clipped(would.decision.Reasons), Differences: differences,
	}
	if who, session := job.in.User, job.in.Session; who != nil && session != nil {
		r.Subject, r.Session = who.ID, session.ID
	}
	if would.cause != nil {
		r.Cause, r.Level = clipTo(would.cause.Error(), longestText), decision.LevelError
	}
	s.Decisions.Add(r)
}

func clipped(reasons []string) []string {
	if len(reasons) == 0 {
		return nil
	}
	short := make([]string, 0, min(len(reasons), mostReasons))
	for _, r := range reasons[:cap(short)] {
		short = append(short, clipTo(r, longestText))
	}
	return short
}

// shortDigest names a policy in records.
func shortDigest(p *policy.Policy) string { return p.Digest()[:16] }

// faultEvery is how often one route's faults are told in the program's log. The decision log has them all.
const faultEvery = 10 * time.Second

// gate lets one through in a while, and counts the others.
type gate struct {
	next atomic.Int64 // Unix nanoseconds
	held atomic.Int64
}

// pass returns how many were held since the last that passed.
func (g *gate) pass(now time.Time) (held int64, ok bool) {
	next := g.next.Load()
	if now.UnixNano() < next || !g.next.CompareAndSwap(next, now.Add(faultEvery).UnixNano()) {
		g.held.Add(1)
		return 0, false
	}
	return g.held.Swap(0), true
}

// reportFault tells the operator of something that does not work.
func (s *Server) reportFault(k *kept) {
	faults := &s.faults
	if k.verdict.route != nil {
		faults = k.verdict.route.faults
	}
	if held, ok := faults.pass(k.at); ok {
		s.Log.Error("a request was denied because something does not work", "id", k.request.id, "route", clip(k.request.route),
			"outcome", string(k.verdict.outcome), "cause", k.verdict.cause, slog.Int64("others", held))
	}
}
