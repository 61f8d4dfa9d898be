package xds

import (
	"slices"
	"strings"

	"doorward/authz/config"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

// everybody is the group in the place of none: what it may see, every Envoy may.
const everybody = ""

// limit says which groups of Envoys may see an owner's resources; none means all. It comes last: what is added later is seen by all.
func (r *Resources) limit(groups config.Names) {
	if len(groups) == 0 {
		return
	}
	r.groups = slices.Sorted(slices.Values(groups))
	for k := range kinds {
		for _, res := range r.set[k] {
			res.groups = r.groups
		}
	}
}

// reachOf are the groups that an owner's part counts for.
func reachOf(part *Resources) []string {
	if len(part.groups) == 0 {
		return []string{everybody}
	}
	return part.groups
}

// count notes that an owner of a cluster is there, by 1, or gone, by -1.
func (s *served) count(cluster string, part *Resources, by int) {
	reach := s.reach[cluster]
	if reach == nil {
		reach = make(map[string]int, 1)
		s.reach[cluster] = reach
	}
	for _, group := range reachOf(part) {
		if reach[group] += by; reach[group] == 0 {
			delete(reach, group)
		}
	}
	if len(reach) == 0 {
		delete(s.reach, cluster)
	}
}

// visible says whether an Envoy of a group may see a resource that is served. A cluster is for the groups of all its owners together.
func (s *served) visible(k key, group string) bool {
	if k.kind == clusterKind {
		return s.reach[k.name][everybody] > 0 || s.reach[k.name][group] > 0
	}
	res := s.find(k)
	return res != nil && (len(res.groups) == 0 || slices.Contains(res.groups, group))
}

// stamp tells apart what Envoys can notice of a resource: its version, and who may see it. "" for none.
func (s *served) stamp(k key) string {
	res := s.find(k)
	if res == nil {
		return ""
	}
	groups := res.groups
	if k.kind == clusterKind {
		if groups = nil; s.reach[k.name][everybody] == 0 {
			for group := range s.reach[k.name] {
				groups = append(groups, group)
			}
			slices.Sort(groups)
		}
	}
	return res.version + " " + strings.Join(groups, ",")
}

// Serves says whether Envoys of a group may serve a host. A host that is not known is nobody's secret.
func (s *Server) Serves(group, host string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range []string{host, config.WildcardOf(host)} {
		if k := (key{routeKind, name}); s.served.find(k) != nil {
			return s.served.visible(k, group)
		}
	}
	return true
}

// What a node on another machine may ask for at once: more than any configuration has, and less than what could take this machine's memory.
const (
	maxNames = 1 << 17 // of one kind
	maxName  = 1 << 10 // bytes
)

// bound refuses a node that asks for too much.
func (st *stream) bound(f *feed, request *discoveryv3.DeltaDiscoveryRequest) error {
	if st.peer == nil {
		return nil
	}
	n := len(request.ResourceNamesSubscribe) + len(request.InitialResourceVersions)
	if f != nil {
		n += len(f.subscribed)
	}
	long := func(name string) bool { return len(name) > maxName }
	for name, version := range request.InitialResourceVersions {
		if long(name) || long(version) {
			n = maxNames + 1
		}
	}
	if n <= maxNames && !slices.ContainsFunc(request.ResourceNamesSubscribe, long) {
		return nil
	}
	st.server.log.Error("a node is refused: it asks for too many resources, or for names that are too long", "node", st.node)
	return grpcstatus.Error(codes.ResourceExhausted, "too many resources are asked for, or their names are too long")
}
