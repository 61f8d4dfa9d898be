package policy

import (
	"bytes"
	"container/list"
	"context"
	"hash/maphash"
	"sync"
	"sync/atomic"
)

// Cache keeps decisions by what they depend on (Policy.Reads): the same policy, asked with the same values of all that it can read, is
// evaluated once. It is bounded in entries and bytes, nothing in it expires, and a change of policy, route, session or request is another
// key. A decision with an Err is not kept. Safe for concurrent use; a nil Cache keeps nothing.
type Cache struct {
	seed                           maphash.Seed
	shards                         [cacheShards]shard
	keys                           sync.Pool // *[]byte, for keys that are looked up
	hits, misses, bypassed, evicts atomic.Uint64
}

const cacheShards = 16

// shard evicts by SIEVE (Zhang and others, NSDI 2024): new entries enter at the front, and a hand that moves from the back to the front
// removes the first that was not used since it last passed. Entries asked for once leave soon, and a hit changes no list.
type shard struct {
	maxEntries, maxBytes int

	mu      sync.RWMutex
	entries map[uint64]*list.Element // by the key's hash; a second key of the same hash replaces the first
	queue   list.List                // of *cached
	hand    *list.Element
	bytes   int
}

type cached struct {
	hash     uint64
	key      []byte
	size     int
	used     atomic.Bool
	decision Decision
}

// NewCache returns a cache of at most that many entries, which take at most that many bytes, as far as they can be counted.
func NewCache(entries, bytes int) *Cache {
	c := &Cache{seed: maphash.MakeSeed()}
	c.keys.New = func() any { return new([]byte) }
	for i := range c.shards {
		s := &c.shards[i]
		s.maxEntries, s.maxBytes = max(1, entries/cacheShards), bytes/cacheShards
		s.entries = map[uint64]*list.Element{}
	}
	return c
}

// Decide is p.Decide(ctx, in), from the cache where it can be.
func (c *Cache) Decide(ctx context.Context, p *Policy, in *Input) Decision {
	if c == nil || p.kind != rego {
		return p.Decide(ctx, in)
	}
	if p.reads.Uncacheable != "" {
		c.bypassed.Add(1)
		p.usage.bypassed.Add(1)
		return p.Decide(ctx, in)
	}
	buffer := c.keys.Get().(*[]byte)
	defer c.keys.Put(buffer)
	key, ok := p.key((*buffer)[:0], in)
	*buffer = key
	if !ok {
		c.bypassed.Add(1)
		p.usage.bypassed.Add(1)
		return p.Decide(ctx, in)
	}
	hash := maphash.Bytes(c.seed, key)
	s := &c.shards[hash%cacheShards]
	if d, ok := s.find(hash, key); ok {
		c.hits.Add(1)
		p.usage.hits.Add(1)
		return d
	}
	c.misses.Add(1)
	p.usage.misses.Add(1)
	d := p.Decide(ctx, in)
	if d.Err == nil {
		c.evicts.Add(uint64(s.put(hash, key, d)))
	}
	return d
}

func (s *shard) find(hash uint64, key []byte) (Decision, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	element := s.entries[hash]
	if element == nil {
		return Decision{}, false
	}
	e := element.Value.(*cached)
	if !bytes.Equal(e.key, key) {
		return Decision{}, false
	}
	if !e.used.Load() {
		e.used.Store(true)
	}
	return e.decision, true
}

// put keeps a decision and returns how many others it removed for it.
func (s *shard) put(hash uint64, key []byte, d Decision) (evicted int) {
	e := &cached{hash: hash, decision: d, size: len(key) + d.size()}
	if e.size > s.maxBytes {
		return 0
	}
	e.key = bytes.Clone(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.entries[hash]; old != nil {
		s.remove(old)
	}
	for len(s.entries) >= s.maxEntries || s.bytes+e.size > s.maxBytes {
		s.evict()
		evicted++
	}
	s.entries[hash] = s.queue.PushFront(e)
	s.bytes += e.size
	return evicted
}

// evict removes one entry. There is one.
func (s *shard) evict() {
	for {
		if s.hand == nil {
			s.hand = s.queue.Back()
		}
		if !s.hand.Value.(*cached).used.Swap(false) {
			s.remove(s.hand)
			return
		}
		s.hand = s.hand.Prev()
	}
}

func (s *shard) remove(element *list.Element) {
	if s.hand == element {
		s.hand = element.Prev()
	}
	e := s.queue.Remove(element).(*cached)
	delete(s.entries, e.hash)
	s.bytes -= e.size
}

// CacheStats counts what became of the questions since the start, and what is kept now.
type CacheStats struct {
	Hits     uint64
	Misses   uint64 // evaluated; kept unless there was an error
	Bypassed uint64 // evaluated, and never kept: the policy or the request cannot be cached
	Evicted  uint64
	Entries  int
	Bytes    int
}

// Stats may be read at any time.
func (c *Cache) Stats() CacheStats {
	if c == nil {
		return CacheStats{}
	}
	st := CacheStats{Hits: c.hits.Load(), Misses: c.misses.Load(), Bypassed: c.bypassed.Load(), Evicted: c.evicts.Load()}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.RLock()
		st.Entries += len(s.entries)
		st.Bytes += s.bytes
		s.mu.RUnlock()
	}
	return st
}

// cacheOverhead is about what an entry takes beside its texts: itself, its place in the list and in the map, the headers of its maps.
const cacheOverhead = 512

// size is about how many bytes a decision takes.
func (d *Decision) size() int {
	n := cacheOverhead + jsonSize(d.Claims) + jsonSize(d.Metadata) + len(d.Redirect) + len(d.Body)
	for _, p := range d.SetQuery {
		n += 32 + len(p.Name) + len(p.Value)
	}
	for _, list := range [...][]string{d.Reasons, d.RemoveHeaders, d.RemoveQuery} {
		for _, s := range list {
			n += 16 + len(s)
		}
	}
	for _, headers := range [...]map[string]string{d.Headers, d.ResponseHeaders} {
		for name, value := range headers {
			n += 64 + len(name) + len(value)
		}
	}
	return n
}

func jsonSize(v any) int {
	n := 32
	switch v := v.(type) {
	case string:
		n += len(v)
	case []any:
		for _, e := range v {
			n += jsonSize(e)
		}
	case map[string]any:
		for name, e := range v {
			n += 32 + len(name) + jsonSize(e)
		}
	}
	return n
}
