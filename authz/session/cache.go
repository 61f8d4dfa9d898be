package session

import (
	"container/list"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
	"unique"
)

const (
	unknownSlots = 4096
	unknownLife  = 10 * time.Second
)

// bounds is how much a cache may hold.
type bounds struct {
	links      int // cookies
	packed     int // sessions
	packedSize int // bytes of those
	hot        int // sessions held ready to use
	hotSize    int // bytes of JSON of those; decoded they take about four times that
}

// usualBounds are those of Sessions. A hundred thousand sessions of a usual size take about 35 MiB.
func usualBounds() bounds {
	return bounds{links: 1 << 17, packed: 1 << 17, packedSize: 64 << 20, hot: 2048, hotSize: 8 << 20}
}

// cache holds what lookups have read: which cookie belongs to which session, every session packed, and the ones in use unpacked.
//
// Whoever reads the store to fill it first calls find, and hands the generation that it got back with what was read. Each drop begins a
// new generation, and what comes from an older one is not kept: so a lookup that read before a revocation cannot bring the session back
// after it.
type cache struct {
	max bounds

	mu         sync.RWMutex
	on         bool // changes of the store are told
	generation uint64
	links      map[[32]byte]heldLink
	packed     map[[16]byte][]byte
	packedSize int
	hot        map[[16]byte]*hotSession
	hotSize    int
	order      list.List       // of the hot sessions' ids, in the order in which they became so or were last spared
	unknown    []unknownCookie // by a part of the hash; a newer one takes an older one's place

	packer packer
}

type heldLink struct {
	id   [16]byte
	host unique.Handle[string]
}

type hotSession struct {
	session *Session
	size    int // of its JSON
	place   *list.Element
	used    atomic.Bool // since it became hot or was last spared
}

type unknownCookie struct {
	hash  [32]byte
	until int64 // Unix nanoseconds
}

// found is what the cache holds for a cookie.
type found struct {
	generation uint64
	unknown    bool // the cookie is known to belong to no live session
	linked     bool // id and host are set
	id         [16]byte
	host       string
	session    *Session
	packed     []byte // set when session is nil and the session is held
}

func (c *cache) find(hash [32]byte, now time.Time) found {
	c.mu.RLock()
	defer c.mu.RUnlock()
	f := found{generation: c.generation}
	if !c.on {
		return f
	}
	if u := &c.unknown[slot(hash)]; u.hash == hash && now.UnixNano() < u.until {
		f.unknown = true
		return f
	}
	l, ok := c.links[hash]
	if !ok {
		return f
	}
	f.linked, f.id, f.host = true, l.id, l.host.Value()
	if h, ok := c.hot[l.id]; ok {
		if !h.used.Load() {
			h.used.Store(true)
		}
		f.session = h.session
		return f
	}
	f.packed = c.packed[l.id]
	return f
}

// keep holds what was read from the store: a cookie's record, and its session, also as its JSON.
func (c *cache) keep(generation uint64, hash [32]byte, l link, session *Session, data []byte) {
	id, ok := parseID(l.Session)
	if !ok {
		return
	}
	packed := c.packer.pack(session.Version, data)
	host := unique.Make(l.Host)
	c.fill(generation, func() {
		for len(c.links) >= c.max.links {
			for other := range c.links { // in no order: any one
				delete(c.links, other)
				break
			}
		}
		c.links[hash] = heldLink{id: id, host: host}
		c.forget(id)
		for len(c.packed) >= c.max.packed || c.packedSize+len(packed) > c.max.packedSize {
			for other := range c.packed {
				c.forget(other)
				break
			}
		}
		c.packed[id] = packed
		c.packedSize += len(packed)
		c.heat(id, session, len(data))
	})
}

// warm holds a session ready that was held packed.
func (c *cache) warm(generation uint64, id [16]byte, session *Session, size int) {
	c.fill(generation, func() { c.heat(id, session, size) })
}

// keepUnknown remembers for a short while that a cookie belongs to no live session.
func (c *cache) keepUnknown(generation uint64, hash [32]byte, now time.Time) {
	c.fill(generation, func() {
		c.unknown[slot(hash)] = unknownCookie{hash: hash, until: now.Add(unknownLife).UnixNano()}
	})
}

// fill changes the cache unless something was dropped since the generation was given out.
func (c *cache) fill(generation uint64, change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.on && c.generation == generation {
		change()
	}
}

// heat makes a session hot. The caller holds mu, as for the functions below it.
func (c *cache) heat(id [16]byte, session *Session, size int) {
	c.cool(id)
	for len(c.hot) > 0 && (len(c.hot) >= c.max.hot || c.hotSize+size > c.max.hotSize) {
		c.coolOne()
	}
	c.hot[id] = &hotSession{session: session, size: size, place: c.order.PushBack(id)}
	c.hotSize += size
}

// coolOne drops the hot session that has been there longest, but spares once each that was used.
func (c *cache) coolOne() {
	for {
		place := c.order.Front()
		id := place.Value.([16]byte)
		h := c.hot[id]
		if !h.used.Swap(false) {
			c.cool(id)
			return
		}
		c.order.MoveToBack(place)
	}
}

func (c *cache) cool(id [16]byte) {
	if h, ok := c.hot[id]; ok {
		c.order.Remove(h.place)
		c.hotSize -= h.size
		delete(c.hot, id)
	}
}

// forget drops a session in both forms.
func (c *cache) forget(id [16]byte) {
	c.cool(id)
	c.packedSize -= len(c.packed[id])
	delete(c.packed, id)
}

func slot(hash [32]byte) int { return int(binary.LittleEndian.Uint16(hash[:])) % unknownSlots }

// dropSession makes the next lookup of the session's cookies ask the store.
func (c *cache) dropSession(id string) {
	raw, ok := parseID(id)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	c.forget(raw)
}

// dropCookie makes the next lookup of the cookie ask the store.
func (c *cache) dropCookie(hash [32]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.generation++
	delete(c.links, hash)
	if u := c.unknown; u != nil && u[slot(hash)].hash == hash {
		u[slot(hash)] = unknownCookie{}
	}
}

// dropAll makes every lookup ask the store.
func (c *cache) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.empty()
}

// start lets the cache hold things. It is called when every later change will be told.
func (c *cache) start() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.empty()
	c.on = true
}

// stop empties the cache for as long as changes are not told.
func (c *cache) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.empty()
	c.on = false
}

func (c *cache) empty() {
	c.generation++
	c.links = map[[32]byte]heldLink{}
	c.packed, c.packedSize = map[[16]byte][]byte{}, 0
	c.hot, c.hotSize = map[[16]byte]*hotSession{}, 0
	c.order.Init()
	c.unknown = make([]unknownCookie, unknownSlots)
}
