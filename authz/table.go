package authz

import "iter"

// shards is how many parts a table has: with 10,000 routes, a change of one copies some 40 entries and the list of parts.
const shards = 256

// table finds the current revisions of routes by name. It is immutable: with derives the next one, which shares all that did not change.
type table struct {
	parts [shards]map[string]*route
	size  int
}

// shard is the part that a name is in, by FNV-1a (draft-eastlake-fnv, section 2).
func shard(name string) int {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return int((h ^ h>>8 ^ h>>16) % shards)
}

// find returns a route, or nil.
func (t *table) find(name string) *route { return t.parts[shard(name)][name] }

// all goes through the routes, in no order.
func (t *table) all() iter.Seq[*route] {
	return func(yield func(*route) bool) {
		for _, part := range t.parts {
			for _, r := range part {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// with returns the table with some routes in the place of those of their names; nil removes.
func (t *table) with(changed map[string]*route) *table {
	next := *t
	var copied [shards]bool
	for name, r := range changed {
		i := shard(name)
		if !copied[i] {
			part := make(map[string]*route, len(next.parts[i])+1)
			for k, v := range next.parts[i] {
				part[k] = v
			}
			next.parts[i], copied[i] = part, true
		}
		part := next.parts[i]
		next.size -= len(part)
		if r == nil {
			delete(part, name)
		} else {
			part[name] = r
		}
		next.size += len(part)
	}
	return &next
}
