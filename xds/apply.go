package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Apply is Install and Wait; the error joins those of the answers.
func (s *Server) Apply(ctx context.Context, c *Change) error {
	var errs []error
	for _, a := range s.Install(c).Wait(ctx) {
		errs = append(errs, a.Err())
	}
	return errors.Join(errs...)
}

// Install makes a change a part of what is served, and returns at once: the Envoys get it each by its own acknowledgements. Each change is delivered
// for itself; none waits for another one's.
func (s *Server) Install(c *Change) *Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.served == nil
	if first {
		s.served = newServed()
	}
	changed := s.served.adopt(c)
	d := &Delivery{server: s, begun: s.now(), waits: make(map[*stream]*wait, len(s.streams))}
	for st := range s.streams {
		if first {
			st.markAll()
		}
		d.waits[st] = st.change(changed)
		st.signal()
	}
	return d
}

// Delivery is one change on its way to the Envoys that were connected when it was installed. An Envoy that comes later gets what is served then,
// and is not waited for.
type Delivery struct {
	server *Server
	begun  time.Time
	waits  map[*stream]*wait
}

// What an Envoy answered to a change.
const (
	Acknowledged = "acknowledged" // it has all of it
	Rejected     = "rejected"     // it has all of it but what Answer.Rejected names, of which it keeps the last good version
	Waiting      = "waiting"      // it has not answered for what Answer.Waiting names
	Gone         = "gone"         // it is not connected any more
)

// Answer is what one Envoy made of a change.
type Answer struct {
	Node     string        `json:"node"`
	State    string        `json:"state"`
	Took     time.Duration `json:"took_ns"` // from the installation to the answer; until now for Waiting
	Rejected []Rejection   `json:"rejected,omitempty"`
	Waiting  string        `json:"waiting,omitempty"` // a few names of resources
	cause    error
}

// Err is nil for an Envoy that took everything, or is gone.
func (a Answer) Err() error {
	var errs []error
	for _, r := range a.Rejected {
		errs = append(errs, fmt.Errorf("envoy %q rejected %s %q: %s", a.Node, r.Type, r.Resource, r.Message))
	}
	if a.State == Waiting {
		errs = append(errs, fmt.Errorf("envoy %q has not acknowledged %s: %w", a.Node, a.Waiting, a.cause))
	}
	return errors.Join(errs...)
}

// Wait returns what each Envoy answered, by node, once all have or ctx ends. A certificate counts only where an Envoy has asked for it. When ctx
// ends first, the change stays under way. It may be called several times, and by several at a time.
func (d *Delivery) Wait(ctx context.Context) []Answer {
	for _, w := range d.waits {
		select {
		case <-w.done:
		case <-ctx.Done():
		}
	}
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	answers := make([]Answer, 0, len(d.waits))
	for st, w := range d.waits {
		answers = append(answers, d.answer(ctx, st, w))
	}
	slices.SortFunc(answers, func(a, b Answer) int { return cmp.Compare(a.Node, b.Node) })
	return answers
}

func (d *Delivery) answer(ctx context.Context, st *stream, w *wait) Answer {
	a := Answer{Node: st.node, State: Acknowledged, Took: w.at.Sub(d.begun), Rejected: slices.Clone(w.rejected)}
	slices.SortFunc(a.Rejected, func(a, b Rejection) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Resource, b.Resource))
	})
	switch {
	case !w.ended:
		a.State, a.Waiting, a.Took, a.cause = Waiting, w.names(), d.server.now().Sub(d.begun), context.Cause(ctx)
	case len(w.rejected) > 0:
		a.State = Rejected
	case len(w.open) > 0:
		a.State = Gone
	}
	return a
}

// key names a resource among those of all kinds.
type key struct {
	kind kind
	name string
}

// wait is what one Envoy has yet to answer for before a change is done. The server's mutex guards all but done.
type wait struct {
	open     map[key]struct{}
	rejected []Rejection
	done     chan struct{} // closed when open is empty, or the Envoy is gone
	ended    bool
	at       time.Time // when it ended
}

// names lists a few of the open resources.
func (w *wait) names() string {
	const few = 5
	var names []string
	for k := range w.open {
		names = append(names, fmt.Sprintf("%s %q", k.kind, k.name))
	}
	slices.Sort(names)
	if len(names) > few {
		names = append(names[:few], fmt.Sprintf("and %d more", len(names)-few))
	}
	return strings.Join(names, ", ")
}

// change marks what is due for the Envoy, and makes a wait for it.
func (st *stream) change(changed []key) *wait {
	w := &wait{open: make(map[key]struct{}, len(changed)), done: make(chan struct{})}
	for _, c := range changed {
		w.open[c] = struct{}{}
		st.waits[c] = append(st.waits[c], w)
		st.mark(c.kind, c.name)
	}
	for _, c := range changed {
		st.recheckOne(c)
	}
	st.endIfDone(w)
	return w
}

// recheck closes what the Envoy has answered for. A scope decides what is expected of its routes, a listener of everything.
func (st *stream) recheck(k kind, name string) {
	if len(st.waits) == 0 {
		return
	}
	if k == listenerKind {
		for c := range maps.Clone(st.waits) {
			st.recheckOne(c)
		}
		return
	}
	st.recheckOne(key{k, name})
	if k == scopeKind {
		st.recheckOne(key{routeKind, name})
	}
}

// recheckOne closes a resource for everybody who waits for it.
func (st *stream) recheckOne(k key) {
	waits := st.waits[k]
	if len(waits) == 0 || !st.settled(k) {
		return
	}
	delete(st.waits, k)
	for _, w := range waits {
		delete(w.open, k)
		if f := st.feeds[k.kind]; f != nil {
			if no, ok := f.refused[k.name]; ok && no.version == st.served(k).hash() {
				w.rejected = append(w.rejected, no.Rejection)
			}
		}
		st.endIfDone(w)
	}
}

func (st *stream) endIfDone(w *wait) {
	if len(w.open) == 0 {
		st.end(w)
	}
}

func (st *stream) end(w *wait) {
	if !w.ended {
		w.ended, w.at = true, st.server.now()
		close(w.done)
	}
}

// endAll ends every wait: the Envoy is gone.
func (st *stream) endAll() {
	for _, waits := range st.waits {
		for _, w := range waits {
			st.end(w)
		}
	}
	st.waits = nil
}

// settled says that nothing more is to come from the Envoy about a resource, as it is served now.
func (st *stream) settled(k key) bool {
	res, f := st.served(k), st.feeds[k.kind]
	if f != nil {
		if f.onItsWay(k.name) {
			return false
		}
		if no, ok := f.refused[k.name]; ok && no.version == res.hash() {
			return true
		}
		if f.held[k.name].hash() == res.hash() || k.kind == clusterKind && res == nil && st.needed(k.name) {
			return true
		}
		if f.wants(k.name) {
			return false
		}
	}
	return res == nil || !st.expects(k)
}

// served is the resource as it is served to the Envoy, nil for none.
func (st *stream) served(k key) *resource {
	s := st.server.served
	switch {
	case s == nil:
		return nil
	case s.visible(k, st.group):
		return s.find(k)
	case k.kind == routeKind:
		return s.instead[k.name]
	}
	return nil
}

// expects says that the Envoy has not asked for a resource but will, because of another one that it has or is to have. An
// Envoy that asks for clusters is expected to ask for everything.
func (st *stream) expects(k key) bool {
	switch k.kind {
	case listenerKind:
		return st.feeds[clusterKind] != nil && st.feeds[listenerKind] == nil
	case scopeKind, extensionKind:
		return st.comes(key{listenerKind, httpsListener})
	case routeKind:
		if k.name == httpRoutes {
			return st.comes(key{listenerKind, httpListener})
		}
		if st.served(key{scopeKind, k.name}) == nil { // it has a filter chain of its own
			return st.comes(key{listenerKind, httpsListener})
		}
		return st.comes(key{scopeKind, k.name})
	}
	return false
}

// comes says that the Envoy has a resource or is to have it.
func (st *stream) comes(k key) bool {
	res, f := st.served(k), st.feeds[k.kind]
	if f != nil {
		if no, ok := f.refused[k.name]; ok && no.version == res.hash() {
			return f.held[k.name] != nil
		}
		if f.held[k.name] != nil {
			return true
		}
	}
	return res != nil && (f != nil && f.wants(k.name) || st.expects(k))
}
