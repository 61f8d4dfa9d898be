package authz

import (
	"sync/atomic"
	"time"

	"doorward/authz/decision"
	"doorward/authz/policy"
)

// latencyBounds are the upper bounds of how long a decision took. A cached one takes some ten microseconds, an evaluation is cut at 100 ms.
var latencyBounds = [...]time.Duration{
	10 * time.Microsecond, 25 * time.Microsecond, 50 * time.Microsecond, 100 * time.Microsecond, 250 * time.Microsecond, 500 * time.Microsecond,
	time.Millisecond, 2500 * time.Microsecond, 5 * time.Millisecond, 10 * time.Millisecond, 25 * time.Millisecond, 100 * time.Millisecond, time.Second,
}

// latency counts decisions by how long they took.
type latency struct {
	buckets [len(latencyBounds) + 1]atomic.Uint64
	sum     atomic.Int64 // nanoseconds
}

func (l *latency) note(took time.Duration) {
	i := 0
	for i < len(latencyBounds) && took > latencyBounds[i] {
		i++
	}
	l.buckets[i].Add(1)
	l.sum.Add(int64(took))
}

// tally counts the decisions of all revisions of one route, by outcome in the order of decision.Outcomes.
type tally struct{ outcomes [6]atomic.Uint64 }

func (t *tally) note(o outcome) {
	switch o {
	case allowed:
		t.outcomes[0].Add(1)
	case denied:
		t.outcomes[1].Add(1)
	case unauthenticated:
		t.outcomes[2].Add(1)
	case misdirected:
		t.outcomes[3].Add(1)
	case malformed:
		t.outcomes[4].Add(1)
	case unavailable:
		t.outcomes[5].Add(1)
	}
}

// count notes a decision for Stats.
func (s *Server) count(v *verdict, took time.Duration) {
	s.latency.note(took)
	to := &s.unrouted
	if v.route != nil {
		to = v.route.tally
	}
	to.note(v.outcome)
}

// Stats counts what was decided since the start.
type Stats struct {
	Decisions map[string]map[string]uint64 // by route and outcome; "" for requests whose route is not known; counts of 0 are left out
	Latency   Histogram
	Cache     policy.CacheStats
	Policies  map[string]policy.Usage // by policy, of the current configuration, since it was loaded
	Routes    int
}

// Histogram counts values up to bounds, in seconds.
type Histogram struct {
	Count uint64
	Sum   float64
	UpTo  map[float64]uint64 // by bound: how many were at most that
}

// Stats may be called at any time. What is counted while it runs may be in one part and not yet in another.
func (s *Server) Stats() Stats {
	g := s.current.Load()
	st := Stats{
		Decisions: make(map[string]map[string]uint64), Latency: s.latency.histogram(), Cache: s.decisions.Stats(),
		Policies: make(map[string]policy.Usage), Routes: g.routes.size,
	}
	add := func(name string, t *tally) {
		for i, outcome := range decision.Outcomes() {
			if n := t.outcomes[i].Load(); n > 0 {
				if st.Decisions[name] == nil {
					st.Decisions[name] = make(map[string]uint64)
				}
				st.Decisions[name][outcome] = n
			}
		}
	}
	add("", &s.unrouted)
	for r := range g.routes.all() {
		add(r.Name, r.tally)
		st.Policies[r.policy.Name()] = r.policy.Usage()
	}
	return st
}

func (l *latency) histogram() Histogram {
	h := Histogram{Sum: time.Duration(l.sum.Load()).Seconds(), UpTo: make(map[float64]uint64, len(latencyBounds))}
	for i, bound := range latencyBounds {
		h.Count += l.buckets[i].Load()
		h.UpTo[bound.Seconds()] = h.Count
	}
	h.Count += l.buckets[len(latencyBounds)].Load()
	return h
}

// keepTallies has the routes of g count on where those of old have come to.
func (g *Generation) keepTallies(old *Generation) {
	for r := range g.routes.all() {
		if before := old.routes.find(r.Name); before != nil && before.tally != r.tally {
			r.tally = before.tally
		}
	}
}
