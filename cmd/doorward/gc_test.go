package main

import "testing"

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 10 << 20: 400, 16 << 20: 400, 32 << 20: 200, 64 << 20: 100, 100 << 20: 40, 1 << 30: 30} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d MiB live: %d, want %d", live>>20, got, want)
		}
	}
}
