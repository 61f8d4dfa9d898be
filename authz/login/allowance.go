package login

import (
	"sync"
	"time"
)

// allowance bounds how often strangers can make us do something that costs: a burst, which fills again by one each refill. The zero allowance
// gives nothing. Safe for concurrent use.
type allowance struct {
	burst  int
	refill time.Duration

	mu   sync.Mutex
	left int
	last time.Time
}

func newAllowance(burst int, refill time.Duration) *allowance {
	return &allowance{burst: burst, refill: refill, left: burst}
}

// take says whether it may be done once more.
func (a *allowance) take(now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n := int(now.Sub(a.last) / a.refill); n > 0 {
		a.left, a.last = min(a.burst, a.left+min(n, a.burst)), now
	}
	if a.left == 0 {
		return false
	}
	a.left--
	return true
}
