package xds

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Apply makes r what is served, and returns when every connected Envoy has acknowledged the change, or has rejected it, or ctx ends.
// Changes are applied one after the other. The error says which Envoy did not take what, and why; what was rejected went back to its last
// good version there, and everything else is served. When ctx ends first, the change stays under way.
//
// An Envoy that goes is not waited for any more; one that comes gets what is served, and is not waited for. What an Envoy
// still owes from an earlier change is waited for too. A certificate counts only where an Envoy has asked for it.
func (s *Server) Apply(ctx context.Context, r *Resources) error {
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fmt.Errorf("wait for the change before: %w", context.Cause(ctx))
	}
	var errs []error
	for st, w := range s.install(r) {
		select {
		case <-w.done:
		case <-ctx.Done():
		}
		errs = append(errs, s.outcome(ctx, st, w))
	}
	return errors.Join(errs...)
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
}

func (w *wait) end() {
	if !w.ended {
		w.ended = true
		close(w.done)
	}
}

// install replaces what is served, tells each stream what changed for it, and starts waiting for each.
func (s *Server) install(r *Resources) map[*stream]*wait {
	s.mu.Lock()
	defer s.mu.Unlock()
	first := s.served == nil
	changed := changes(s.served, r)
	s.served = r
	waits := make(map[*stream]*wait, len(s.streams))
	for st := range s.streams {
		if first {
			st.markAll()
		}
		st.change(changed)
		waits[st] = st.wait
		st.signal()
	}
	return waits
}

// changes are the names whose resource differs between two states.
func changes(from, to *Resources) []key {
	if from == nil {
		from = newResources()
	}
	var out []key
	for k := range kinds {
		for name, res := range to.set[k] {
			if from.set[k][name].hash() != res.version {
				out = append(out, key{k, name})
			}
		}
		for name := range from.set[k] {
			if to.set[k][name] == nil {
				out = append(out, key{k, name})
			}
		}
	}
	return out
}

// change marks what is due for the Envoy, and makes a wait for it and for what the Envoy still owes.
func (st *stream) change(changed []key) {
	w := &wait{open: make(map[key]struct{}), done: make(chan struct{})}
	st.wait = w
	for _, c := range changed {
		w.open[c] = struct{}{}
		if f := st.feeds[c.kind]; f != nil {
			f.mark(c.name, st.server.served.set[c.kind][c.name])
		}
	}
	for k, f := range st.feeds {
		if f == nil {
			continue
		}
		for name := range f.owed() {
			w.open[key{kind(k), name}] = struct{}{}
		}
	}
	st.recheckAll()
}

// markAll works out what is due for everything that the Envoy asked for, and has from an earlier stream, before there was
// anything to compare it with.
func (st *stream) markAll() {
	for k, f := range st.feeds {
		if f == nil {
			continue
		}
		for name := range f.held {
			f.mark(name, st.server.served.set[k][name])
		}
		for name := range f.subscribed {
			f.mark(name, st.server.served.set[k][name])
		}
	}
}

// owed are the names that are due or in flight.
func (f *feed) owed() map[string]struct{} {
	out := maps.Clone(f.upserts)
	maps.Copy(out, f.removals)
	for _, b := range f.inFlight() {
		for name := range b.items {
			out[name] = struct{}{}
		}
	}
	return out
}

// recheck closes what the Envoy has answered for. A scope decides what is expected of its routes, a listener of everything.
func (st *stream) recheck(k kind, name string) {
	if st.wait == nil {
		return
	}
	if k == listenerKind {
		st.recheckAll()
		return
	}
	st.tryClose(key{k, name})
	if k == scopeKind {
		st.tryClose(key{routeKind, name})
	}
	st.endIfDone()
}

func (st *stream) recheckAll() {
	if st.wait == nil {
		return
	}
	for k := range st.wait.open {
		st.tryClose(k)
	}
	st.endIfDone()
}

func (st *stream) endIfDone() {
	if len(st.wait.open) == 0 {
		st.wait.end()
	}
}

func (st *stream) tryClose(k key) {
	w := st.wait
	if _, ok := w.open[k]; !ok || !st.settled(k) {
		return
	}
	delete(w.open, k)
	if f := st.feeds[k.kind]; f != nil {
		if no, ok := f.refused[k.name]; ok && no.version == st.served(k).hash() {
			w.rejected = append(w.rejected, no.Rejection)
		}
	}
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
		if f.held[k.name].hash() == res.hash() {
			return true
		}
		if f.wants(k.name) {
			return false
		}
	}
	return res == nil || !st.expects(k)
}

// served is the resource as it is served, nil for none.
func (st *stream) served(k key) *resource { return st.server.served.set[k.kind][k.name] }

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

// outcome ends a wait and says what came of it: nil when the Envoy took everything, or went.
func (s *Server) outcome(ctx context.Context, st *stream, w *wait) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st.wait == w {
		st.wait = nil
	}
	slices.SortFunc(w.rejected, func(a, b Rejection) int {
		return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Resource, b.Resource))
	})
	var errs []error
	for _, r := range w.rejected {
		errs = append(errs, fmt.Errorf("envoy %q rejected %s %q: %s", st.node, r.Type, r.Resource, r.Message))
	}
	if !w.ended {
		errs = append(errs, fmt.Errorf("envoy %q has not acknowledged %s: %w", st.node, w.names(), context.Cause(ctx)))
	}
	return errors.Join(errs...)
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
