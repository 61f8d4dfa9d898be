package main

import (
	"os"
	"runtime/debug"

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

// tuneCollector sets the garbage collector for the check path, unless GOGC says otherwise. The memory limit keeps a heap that has grown in a
// small container from being the reason why it is killed: Envoy may take half of what there is, and two fifths are left for this process.
func tuneCollector() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if memory := envoy.Memory(); os.Getenv("GOMEMLIMIT") == "" && memory > 0 {
		debug.SetMemoryLimit(int64(memory / 5 * 2))
	}
}
