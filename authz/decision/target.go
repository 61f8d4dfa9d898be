package decision

import (
	"hash/fnv"
)

// Target is where records go, and what of them.
type Target struct {
	share float64 // of allowed decisions
	mask  *masker
	sink  *sink // nil for none
	taken chan struct{}
}

// Discard closes a target that is not used after all.
func (t *Target) Discard() { t.sink.finish() }

// add gives a record to the sink, unless it is left out.
func (t *Target) add(r *Record) {
	if t.sink == nil || !t.keeps(r) {
		return
	}
	if t.mask != nil {
		masked := *r
		t.mask.apply(&masked)
		r = &masked
	}
	t.sink.add(r)
}

// keeps says whether a record is written: what was not plainly allowed always is, and of the rest a share that depends on the id alone, so
// that several programs with the same share keep the same requests.
func (t *Target) keeps(r *Record) bool {
	if t.share >= 1 || r.Outcome != OutcomeAllow || r.Kind != KindDecision {
		return true
	}
	h := fnv.New64a()
	h.Write([]byte(r.ID))
	return float64(mix(h.Sum64())>>11)/(1<<53) < t.share
}

// mix spreads a hash over all its bits (the finalizer of MurmurHash3).
func mix(h uint64) uint64 {
	h = (h ^ h>>33) * 0xff51afd7ed558ccd
	h = (h ^ h>>33) * 0xc4ceb9fe1a85ec53
	return h ^ h>>33
}
