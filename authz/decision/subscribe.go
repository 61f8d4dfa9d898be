package decision

import (
	"slices"
	"sync"
	"sync/atomic"
)

// subscriptionSize is how many records wait for a subscriber.
const subscriptionSize = 1024

// Subscription is a following of the records as they are made, sampled or not, not masked. A subscriber that is slow loses records.
type Subscription struct {
	C       <-chan Record // never closed
	records chan Record
	match   func(*Record) bool
	dropped atomic.Uint64
	log     *Log
}

// subscriptions are all there are.
type subscriptions struct {
	mu  sync.RWMutex // guards all
	all []*Subscription
}

func (s *subscriptions) change(f func([]*Subscription) []*Subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = f(s.all)
}

// publish gives a record to those who want it and have room.
func (s *subscriptions) publish(r *Record) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, to := range s.all {
		if !to.match(r) {
			continue
		}
		select {
		case to.records <- *r:
		default:
			to.dropped.Add(1)
		}
	}
}

// Subscribe follows the records that match chooses, which must be quick and keep nothing, until Close.
func (l *Log) Subscribe(match func(*Record) bool) *Subscription {
	records := make(chan Record, subscriptionSize)
	s := &Subscription{C: records, records: records, match: match, log: l}
	l.subscriptions.change(func(all []*Subscription) []*Subscription { return append(all, s) })
	l.want()
	return s
}

// Dropped returns how many records were lost since it was last asked.
func (s *Subscription) Dropped() uint64 { return s.dropped.Swap(0) }

// Close ends the subscription. It may be called again.
func (s *Subscription) Close() {
	s.log.subscriptions.change(func(all []*Subscription) []*Subscription {
		return slices.DeleteFunc(all, func(other *Subscription) bool { return other == s })
	})
	s.log.want()
}
