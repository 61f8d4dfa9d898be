package xds

import (
	"cmp"
	"maps"
	"slices"
	"time"
)

// HostState is what the connected Envoys make of a host.
type HostState struct {
	Waiting  []string               // nodes that have yet to answer for a part of it
	Rejected map[string][]Rejection // by node: what was refused, with the last good version kept, or nothing
}

// Host tells of one host, in proportion to the Envoys alone.
func (s *Server) Host(host string) HostState {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := HostState{Rejected: make(map[string][]Rejection)}
	keys := s.keysOf(host)
	for st := range s.streams {
		waiting := false
		for _, k := range keys {
			if f := st.feeds[k.kind]; f != nil {
				if no, ok := f.refused[k.name]; ok && no.version == st.served(k).hash() {
					out.Rejected[st.node] = append(out.Rejected[st.node], no.Rejection)
				}
			}
			waiting = waiting || !st.settled(k)
		}
		if waiting {
			out.Waiting = append(out.Waiting, st.node)
		}
		slices.SortFunc(out.Rejected[st.node], func(a, b Rejection) int { return cmp.Compare(a.Type, b.Type) })
	}
	slices.Sort(out.Waiting)
	return out
}

// keysOf are the resources of a host.
func (s *Server) keysOf(host string) []key {
	host = s.served.ownerOf(host)
	keys := []key{{routeKind, host}, {scopeKind, host}}
	if s.served == nil || s.served.parts[host] == nil {
		return keys
	}
	keys = keys[:0]
	for k, set := range s.served.parts[host].set {
		for name := range maps.Keys(set) {
			keys = append(keys, key{kind(k), name})
		}
	}
	return keys
}

// comesBack is how long an Envoy that has lost its stream is taken for one that goes on with what it has and comes back: the most that it waits, by
// default, before it tries again (core.v3.GrpcService.EnvoyGrpc.retry_policy).
const comesBack = 30 * time.Second

// Behind says whether an Envoy may route a host by something else than what is served: it has not acknowledged the host's routes, or has refused
// them. One that was connected just now may.
func (s *Server) Behind(host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now().Before(s.left.Add(comesBack)) {
		return true
	}
	host = s.served.ownerOf(host)
	k := key{routeKind, host}
	for st := range s.streams {
		f := st.feeds[routeKind]
		if f != nil && (f.onItsWay(host) || f.held[host].hash() != st.served(k).hash() && f.held[host] != nil) || !st.settled(k) {
			return true
		}
	}
	return false
}
