package policy

import (
	"context"
	"fmt"
	"time"
)

// maxSteps bounds the expressions that one evaluation may look at. Ordinary policies need a few hundred. It is also a bound on
// memory: what a step can add is small, but for the results of built-ins, which maxMade bounds.
const maxSteps = 250_000

// clockSteps is how many steps pass between two looks at the clock; a step takes about 200 ns. The last look is after the evaluation.
const clockSteps = 64

var errMade = fmt.Errorf("it makes more than %d MiB of values", maxMade>>20)

var errSteps = fmt.Errorf("it needs more than %d steps", maxSteps)

// budget bounds one evaluation, in steps and in time. It is the topdown.Cancel of the evaluation, which asks before each expression and
// inside built-ins that loop, so that no timer and no goroutine is needed. It is used by one goroutine.
type budget struct {
	ctx      context.Context
	started  time.Time
	deadline time.Time
	steps    int
	made     int // bytes
	nextLook int // at the clock, in steps
	err      error
}

func newBudget(ctx context.Context, timeout time.Duration) *budget {
	started := time.Now()
	deadline := started.Add(timeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	return &budget{ctx: ctx, started: started, deadline: deadline, nextLook: clockSteps}
}

// Cancel is part of topdown.Cancel.
func (b *budget) Cancel() {
	if b.err == nil {
		b.err = context.Canceled
	}
}

// Cancelled counts a step and says whether it was one too many.
func (b *budget) Cancelled() bool {
	return b.spend(1)
}

// spend counts the work of a built-in as steps, and says whether it was too much.
func (b *budget) spend(steps int) bool {
	if b.err != nil {
		return true
	}
	b.steps += steps
	if b.steps > maxSteps {
		b.err = errSteps
		return true
	}
	if b.steps >= b.nextLook {
		b.look()
		b.nextLook = b.steps + clockSteps
	}
	return b.err != nil
}

// takes counts what a built-in has made, in bytes, and says whether it was too much.
func (b *budget) takes(bytes int) bool {
	if b.made += bytes; b.made > maxMade && b.err == nil {
		b.err = errMade
	}
	return b.err != nil
}

// end looks once more when the evaluation is over, since a single call may have taken all the time there was, with nothing after it that
// asked. A machine that stalls for a moment must not deny what was decided in a few steps, so here the bound is five times as long.
func (b *budget) end() {
	if b.err == nil && time.Since(b.started) > 5*b.deadline.Sub(b.started) {
		b.look()
	}
}

func (b *budget) look() {
	if err := b.ctx.Err(); err != nil {
		b.err = fmt.Errorf("it was given up after %d steps: %w", b.steps, err)
	} else if !time.Now().Before(b.deadline) {
		b.err = fmt.Errorf("it was given up after %d steps: %w", b.steps, context.DeadlineExceeded)
	}
}
