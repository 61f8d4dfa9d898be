package xds

import (
	"maps"
	"slices"
	"strconv"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// feed is one kind of resource on one stream: what the Envoy wants, what it has, and what is on its way. The server's
// mutex guards it.
type feed struct {
	wildcard   bool                 // wants everything
	subscribed map[string]bool      // wants these; true: knows that there is none
	held       map[string]*resource // has accepted these; without a body when only the version is known
	refused    map[string]refused   // did not accept these

	upserts  map[string]struct{} // due to be sent, once what they refer to is there
	removals map[string]struct{} // due to be taken away, once nothing refers to them
	unknown  map[string]struct{} // asked for and not there: due to be answered so, at once
	greeted  bool                // has had a response, be it an empty one
	again    []*batch            // parts of a rejected batch, to be sent first
	pending  *batch              // sent, and neither accepted nor rejected; one at a time
	nonce    uint64
}

// batch is what one response holds: names, with nil for a resource that is gone.
type batch struct {
	items  map[string]*resource
	nonce  string
	rank   int
	revert bool // puts a last good version back
}

// refused is the version that an Envoy did not accept; "" for a removal.
type refused struct {
	version string
	Rejection
}

func newFeed() *feed {
	return &feed{
		subscribed: make(map[string]bool),
		held:       make(map[string]*resource),
		refused:    make(map[string]refused),
		upserts:    make(map[string]struct{}),
		removals:   make(map[string]struct{}),
		unknown:    make(map[string]struct{}),
	}
}

// kept is what the Envoy has in the place of a resource that it refused; nil for a name of which it refused nothing.
func (f *feed) kept(name string) *resource {
	if _, ok := f.refused[name]; !ok {
		return nil
	}
	return f.held[name]
}

func (f *feed) wants(name string) bool {
	_, ok := f.subscribed[name]
	return ok || f.wildcard
}

// owes says that something is due or in flight.
func (f *feed) owes() bool {
	return len(f.upserts)+len(f.removals)+len(f.again) > 0 || f.pending != nil && len(f.pending.items) > 0
}

// mark works out what is due for a name of which res is served, nil for none.
func (f *feed) mark(name string, res *resource) {
	f.forgetDue(name)
	held := f.held[name]
	if res == nil && held == nil {
		delete(f.refused, name)
	}
	no, wasRefused := f.refused[name]
	switch {
	case !f.wants(name):
	case wasRefused && no.version == res.hash():
		if held == nil && !f.wildcard && !f.subscribed[name] && !f.onItsWay(name) {
			f.unknown[name] = struct{}{} // nothing comes, and the Envoy must not wait for it
		}
	case res == nil && held != nil:
		f.removals[name] = struct{}{}
	case res == nil && !f.wildcard && !f.subscribed[name]:
		f.unknown[name] = struct{}{}
	case res != nil && held.hash() == res.version:
		f.held[name] = res // the same, and with a body
	case res != nil:
		f.upserts[name] = struct{}{}
	}
}

func (f *feed) forgetDue(name string) {
	delete(f.upserts, name)
	delete(f.removals, name)
	delete(f.unknown, name)
}

// learn notes that the Envoy has accepted a resource, or, for nil, that there is none.
func (f *feed) learn(name string, res *resource) {
	if _, ok := f.subscribed[name]; ok {
		f.subscribed[name] = res == nil
	}
	if res == nil {
		delete(f.held, name)
	} else {
		f.held[name] = res
	}
}

// subscribe adds a name that the Envoy does not have, even if it had it before.
func (f *feed) subscribe(name string) {
	f.unsubscribe(name)
	f.subscribed[name] = false
}

func (f *feed) unsubscribe(name string) {
	delete(f.subscribed, name)
	delete(f.held, name)
	delete(f.refused, name)
	f.forgetDue(name)
	for _, b := range f.inFlight() {
		delete(b.items, name) // an acknowledgement of what was sent before says nothing any more
	}
}

func (f *feed) inFlight() []*batch {
	if f.pending == nil {
		return f.again
	}
	return append([]*batch{f.pending}, f.again...)
}

// onItsWay says whether a batch in flight holds the name.
func (f *feed) onItsWay(name string) bool {
	for _, b := range f.inFlight() {
		if _, ok := b.items[name]; ok {
			return true
		}
	}
	return false
}

// rank is the lowest rank of what is due or in flight; last when nothing is.
func (f *feed) rank(k kind) int {
	rank := last
	if len(f.upserts) > 0 {
		rank = min(rank, upsertRank[k])
	}
	if len(f.removals) > 0 {
		rank = min(rank, removalRank[k])
	}
	for _, b := range f.inFlight() {
		rank = min(rank, b.rank)
	}
	return rank
}

// compose makes the next batch out of what is due and of no higher rank than limit; nil when there is nothing to say.
func (f *feed) compose(k kind, served func(name string) *resource, limit int) *batch {
	if f.pending != nil {
		return nil
	}
	f.again = slices.DeleteFunc(f.again, func(b *batch) bool { return len(b.items) == 0 })
	if len(f.again) > 0 {
		return f.composeAgain(served, limit)
	}
	b := &batch{items: make(map[string]*resource), rank: last}
	if len(f.unknown) > 0 {
		b.take(k, &f.unknown, func(string) *resource { return nil })
	}
	if upsertRank[k] <= limit && len(f.upserts) > 0 {
		b.take(k, &f.upserts, served)
		b.rank = min(b.rank, upsertRank[k])
	}
	if removalRank[k] <= limit && len(f.removals) > 0 {
		b.take(k, &f.removals, served)
		b.rank = min(b.rank, removalRank[k])
	}
	greeting := f.wildcard && !f.greeted && len(f.upserts) == 0 && len(f.removals) == 0
	if len(b.items) == 0 && !greeting {
		return nil
	}
	return b
}

// atOnce is how many resources one response has at most: a message of 10,000 route configurations would take 40 MiB at either end. Scopes and
// listeners are small, and come all at once, because an Envoy that starts listens as soon as it has had the first response with scopes.
const atOnce = 1000

// take moves names from a due set into the batch, as many as it has room for. A set that becomes empty is made anew: one that was large once costs
// its size whenever it is gone through.
func (b *batch) take(k kind, due *map[string]struct{}, served func(name string) *resource) {
	for name := range *due {
		if len(b.items) == atOnce && k != scopeKind && k != listenerKind {
			return
		}
		b.items[name] = served(name)
		delete(*due, name)
	}
	*due = make(map[string]struct{})
}

// composeAgain takes the next part of a rejected batch, in the versions that are served by now.
func (f *feed) composeAgain(served func(name string) *resource, limit int) *batch {
	b := f.again[0]
	if b.rank > limit {
		return nil
	}
	f.again = f.again[1:]
	if !b.revert {
		for name := range b.items {
			b.items[name] = served(name)
			f.forgetDue(name)
		}
	}
	return b
}

// split halves a batch that was rejected.
func (b *batch) split() []*batch {
	names := slices.Sorted(maps.Keys(b.items))
	var halves []*batch
	for part := range slices.Chunk(names, (len(names)+1)/2) {
		half := &batch{items: make(map[string]*resource, len(part)), rank: b.rank}
		for _, name := range part {
			half.items[name] = b.items[name]
		}
		halves = append(halves, half)
	}
	return halves
}

// send notes that the batch is on its way and returns it as a message.
func (f *feed) send(k kind, b *batch) *discoveryv3.DeltaDiscoveryResponse {
	f.nonce++
	b.nonce = strconv.FormatUint(f.nonce, 10)
	f.pending, f.greeted = b, true
	out := &discoveryv3.DeltaDiscoveryResponse{TypeUrl: kindURL[k], Nonce: b.nonce}
	for name, res := range b.items {
		if res == nil {
			out.RemovedResources = append(out.RemovedResources, name)
			continue
		}
		out.Resources = append(out.Resources, &discoveryv3.Resource{Name: name, Version: res.version, Resource: res.body})
	}
	return out
}
