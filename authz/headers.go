package authz

import (
	"context"
	"iter"
	"maps"
	"slices"

	"doorward/authz/policy"

	"google.golang.org/grpc/metadata"
)

// ownHeaders are the request headers that the way of a request reads itself, whatever the policies read.
var ownHeaders = []string{
	"accept", "connection", "content-type", "cookie", headerClientIP, "sec-fetch-dest", "sec-fetch-mode", "sec-purpose", "upgrade", "x-request-id",
}

// headerAuthorization is sent where some route takes bearer tokens, or a policy reads it.
const headerAuthorization = "authorization"

// headerClientIP is Envoy's word about the client behind the trusted hops; the source address is that of the nearest proxy. What a client
// sends under this name is gone before.
const headerClientIP = "x-envoy-external-address"

// metadataHeaders is the gRPC metadata in which Envoy names the set of headers that it was told to send.
const metadataHeaders = "x-doorward-headers"

// headerSet are names of headers; nil stands for all of them.
type headerSet map[string]bool

// newHeaderSet is the set of exactly these names; it is never nil.
func newHeaderSet(names []string) headerSet {
	set := make(headerSet, len(names))
	for _, name := range names {
		set[name] = true
	}
	return set
}

// add adds names to a set that is not that of all.
func (s headerSet) add(names ...string) {
	for _, name := range names {
		if s != nil {
			s[name] = true
		}
	}
}

// has says whether names are all in the set.
func (s headerSet) has(names headerSet) bool {
	if s == nil {
		return true
	}
	if names == nil {
		return false
	}
	for name := range names {
		if !s[name] {
			return false
		}
	}
	return true
}

// read is the set of headers that a policy can read.
func read(p *policy.Policy) headerSet {
	reads := p.Reads()
	if reads.AllHeaders {
		return nil
	}
	return newHeaderSet(reads.Headers)
}

// Headers returns what Envoy has to send for the routes of g, sorted, in lower case; nil means every header.
func (g *Generation) Headers() []string { return headersOf(g.routes.all()) }

// HeadersOf is Headers for some routes alone.
func (g *Generation) HeadersOf(names []string) []string {
	return headersOf(func(yield func(*route) bool) {
		for _, name := range names {
			if r := g.routes.find(name); r != nil && !yield(r) {
				return
			}
		}
	})
}

func headersOf(routes iter.Seq[*route]) []string {
	all := newHeaderSet(ownHeaders)
	for r := range routes {
		for ; r != nil; r = r.shadow {
			if r.reads == nil {
				return nil
			}
			maps.Copy(all, r.reads)
		}
	}
	return slices.Sorted(maps.Keys(all))
}

// Sending says that Envoy sends these headers (nil: all) when it names this set. It must be called before Adopt.
func (g *Generation) Sending(name string, headers []string) {
	set := headerSet(nil)
	if headers != nil {
		set = newHeaderSet(headers)
	}
	g.sets[name] = set
}

// sent is the set of headers that Envoy sent of what the client did, so that a header which Envoy left out is never taken for one that the
// client did not send; known is false when Envoy names a set that was never given to it.
func (g *Generation) sent(ctx context.Context) (set headerSet, known bool) {
	name := ""
	if values := metadata.ValueFromIncomingContext(ctx, metadataHeaders); len(values) > 0 {
		name = values[0]
	}
	set, known = g.sets[name]
	return set, known
}
