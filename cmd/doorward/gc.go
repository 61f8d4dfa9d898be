package main

import (
	"os"
	"runtime"
	"runtime/debug"
	heap "runtime/metrics"
	"time"

	"doorward/envoy"
)

// gcPercent lets the heap grow to five times what lives before it is collected: what lives is small and steady, and the check path's garbage
// is short-lived. Measured with 1,000 sessions and the demo's policy, in turns, as CPU time of a check beside the no-op's of make bench, and the
// most memory that the process had:
//
//	100   0.65    71 MB
//	200   0.63    87 MB
//	400   0.62   115 MB
//	800   0.59   166 MB
//	1600  0.61   268 MB
//	off   0.60   278 MB, with a memory limit of 256 MiB
//
// Beyond 400 a small gain takes much memory.
const gcPercent = 400

// growth bounds, in bytes, what that may come to where much lives: with 10,000 hosts 150 MiB do, of which 400 % would be more than half a GiB. What
// lives then is configuration, which changes leave some 150 KiB of garbage of; so where more than growth lives, it is less.
const (
	growth      = 64 << 20
	growthLarge = 40 << 20
)

// leastPercent keeps the collector from taking more than the work itself.
const leastPercent = 30

// collectorPercent is how far the heap may grow beyond what lives before it is collected.
func collectorPercent(live uint64) int {
	bound := uint64(growth)
	if live > growth {
		bound = growthLarge
	}
	return max(leastPercent, int(min(gcPercent, bound*100/max(live, 1))))
}

// spare is how much memory, in bytes, may be held beyond what the heap grows to before it is collected.
const spare = 16 << 20

// giveBackEvery is how often it is looked whether more is.
const giveBackEvery = 5 * time.Second

// heapBytes is one of the runtime's figures.
func heapBytes(name string) uint64 {
	sample := []heap.Sample{{Name: name}}
	if heap.Read(sample); sample[0].Value.Kind() != heap.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}

// giveBack gives memory back that the heap does not need: a whole configuration that is loaded, or sent to an Envoy that comes, takes it for a moment.
// What requests leave behind is no more than what the heap grows to.
func giveBack() {
	held := heapBytes("/memory/classes/heap/objects:bytes") + heapBytes("/memory/classes/heap/unused:bytes") + heapBytes("/memory/classes/heap/free:bytes")
	if held > heapBytes("/gc/heap/goal:bytes")+spare {
		debug.FreeOSMemory()
	}
}

// retune fits the collector to what lives, after each collection from now on: a finalizer runs after one, and the next one's is set by it.
func retune() {
	if percent := collectorPercent(heapBytes("/gc/heap/live:bytes")); percent != int(heapBytes("/gc/gogc:percent")) {
		debug.SetGCPercent(percent)
	}
	runtime.SetFinalizer(new([16]byte), func(*[16]byte) { retune() })
}

// tuneCollector sets the garbage collector for the check path, unless GOGC says otherwise. The memory limit keeps a heap that has grown in a
// small container from being the reason why it is killed: Envoy may take half of what there is, and two fifths are left for this process.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		retune()
	}
	if memory := envoy.Memory(); os.Getenv("GOMEMLIMIT") == "" && memory > 0 {
		debug.SetMemoryLimit(int64(memory / 5 * 2))
	}
}
