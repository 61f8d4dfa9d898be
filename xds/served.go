package xds

// served is what is served now. The server's mutex guards it; what is done in it is in proportion to the change at hand.
type served struct {
	instead map[string]*resource // see Resources.instead
	set     [kinds]map[string]*resource
	parts   map[string]*Resources          // by owner
	users   map[string]map[string]struct{} // cluster -> its owners: upstreams may be shared
	reach   map[string]map[string]int      // cluster -> how many owners each group of Envoys sees
}

func newServed() *served {
	s := &served{parts: make(map[string]*Resources), users: make(map[string]map[string]struct{}), reach: make(map[string]map[string]int)}
	for k := range s.set {
		s.set[k] = make(map[string]*resource)
	}
	return s
}

// find returns a resource, nil for none.
func (s *served) find(k key) *resource {
	if s == nil {
		return nil
	}
	return s.set[k.kind][k.name]
}

// adopt makes a change a part of what is served, and returns the names whose resource is another one now.
func (s *served) adopt(c *Change) []key {
	before := make(map[key]string)
	for owner := range c.parts {
		if part := s.parts[owner]; part != c.parts[owner] {
			s.note(before, part)
			s.note(before, c.parts[owner])
			s.take(owner, part)
		}
	}
	if c.whole {
		for owner, part := range s.parts {
			if _, ok := c.parts[owner]; !ok {
				s.note(before, part)
				s.take(owner, part)
			}
		}
	}
	for owner, part := range c.parts {
		s.put(owner, part)
	}
	if edge := c.parts[edgeOwner]; edge != nil {
		s.instead = edge.instead
	}
	var changed []key
	for k, stamp := range before {
		if s.stamp(k) != stamp {
			changed = append(changed, k)
		}
	}
	return changed
}

// note notes the stamps of what a part names, before anything of it changes.
func (s *served) note(before map[key]string, part *Resources) {
	if part == nil {
		return
	}
	for k := range kinds {
		for name := range part.set[k] {
			if at := (key{k, name}); before[at] == "" {
				before[at] = s.stamp(at)
			}
		}
	}
}

// take removes an owner's part; a cluster stays while another owner has it.
func (s *served) take(owner string, part *Resources) {
	if part == nil {
		return
	}
	delete(s.parts, owner)
	for k := range kinds {
		for name := range part.set[k] {
			if k == clusterKind {
				delete(s.users[name], owner)
				s.count(name, part, -1)
				if len(s.users[name]) > 0 {
					continue
				}
				delete(s.users, name)
			}
			delete(s.set[k], name)
		}
	}
}

func (s *served) put(owner string, part *Resources) {
	if part == nil || s.parts[owner] == part {
		return
	}
	s.parts[owner] = part
	for k := range kinds {
		for name, res := range part.set[k] {
			s.set[k][name] = res
			if k != clusterKind {
				continue
			}
			if s.users[name] == nil {
				s.users[name] = make(map[string]struct{}, 1)
			}
			s.users[name][owner] = struct{}{}
			s.count(name, part, 1)
		}
	}
}
