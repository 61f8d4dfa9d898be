package main

import "testing"

func TestCollectorPercent(t *testing.T) {
	for live, want := range map[uint64]int{0: 400, 10 << 20: 400, 20 << 20: 400, 40 << 20: 200, 80 << 20: 100, 1 << 30: 50} {
		if got := collectorPercent(live); got != want {
			t.Errorf("%d MiB live: %d, want %d", live>>20, got, want)
		}
	}
}
