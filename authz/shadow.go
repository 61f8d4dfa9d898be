package authz

import (
	"context"
	"sync"
	"sync/atomic"

	"doorward/authz/policy"
)

// What waits for shadow policies at most. What is beyond it is counted and left out: the shadow never makes a request wait.
const (
	shadowQueue = 1024     // requests
	shadowBytes = 32 << 20 // of them, with their bodies
)

// shadows evaluates the routes' shadow policies beside the real ones.
type shadows struct {
	queue  chan shadowed
	held   atomic.Int64 // bytes of the requests that wait
	counts sync.Map     // route's name -> *ShadowCount; as many as there are routes with a shadow policy
}

// shadowed is one request with what was really decided.
type shadowed struct {
	id   string
	size int64 // bytes of the request
	in   *policy.Input
	real verdict
}

// ShadowCount counts what a route's shadow policy came to since the start. The fields may be read at any time.
type ShadowCount struct {
	Evaluated atomic.Uint64
	Differing atomic.Uint64 // another outcome than the real policy's, an error, or another effect on the request
	Failed    atomic.Uint64 // of these, errors
	Dropped   atomic.Uint64 // not evaluated, because others waited
}

// Shadows returns the counts by the routes' names.
func (s *Server) Shadows() map[string]*ShadowCount {
	all := make(map[string]*ShadowCount)
	s.shadows.counts.Range(func(name, count any) bool {
		all[name.(string)] = count.(*ShadowCount)
		return true
	})
	return all
}

func (s *shadows) count(route string) *ShadowCount {
	count, ok := s.counts.Load(route)
	if !ok {
		count, _ = s.counts.LoadOrStore(route, new(ShadowCount))
	}
	return count.(*ShadowCount)
}

// offer has the request evaluated by the route's shadow policy, if it has one and Envoy has sent what that reads.
func (s *shadows) offer(req *request, in *policy.Input, real verdict, sent headerSet) {
	shadow := real.route.shadow
	if shadow == nil || !sent.has(shadow.reads) || shadow.body && req.bodyLimit == "" {
		return
	}
	if in.User == nil && !real.route.Anonymous() && !shadow.Anonymous() {
		return // neither is asked about strangers
	}
	job := shadowed{req.id, int64(len(req.question)), in, real}
	if s.held.Add(job.size) <= shadowBytes {
		select {
		case s.queue <- job:
			return
		default:
		}
	}
	s.held.Add(-job.size)
	s.count(real.route.Name).Dropped.Add(1)
}

// Run evaluates shadow policies until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case job := <-s.shadows.queue:
			s.compare(ctx, job)
			s.shadows.held.Add(-job.size)
		}
	}
}

// compare evaluates one request as it would be if the shadow policy were the real one, and notes what differs.
func (s *Server) compare(ctx context.Context, job shadowed) {
	real, would := job.real, verdict{route: job.real.route.shadow}.judge(ctx, s.decisions, job.in)
	count := s.shadows.count(real.route.Name)
	count.Evaluated.Add(1)
	differences := real.decision.Differences(&would.decision)
	if real.outcome != would.outcome && len(differences) == 0 {
		differences = []string{"outcome"}
	}
	if would.cause != nil {
		count.Failed.Add(1)
	}
	if len(differences) == 0 && would.cause == nil {
		return
	}
	count.Differing.Add(1)
	s.recordShadow(job, would, differences)
}
