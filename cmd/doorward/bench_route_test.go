package main

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"doorward/envoy"
)

// routeChanges is how many changes are timed at each size.
const routeChanges = 100

// BenchmarkRoutes says what the control plane costs with 100, 1,000 and 10,000 hosts, each with a certificate and an upstream of its own: how long
// a fresh Envoy takes to serve all of them, and what a change takes, from the call of the admin API to the first 200 of the right upstream over a
// new TLS connection. Half of the changes are new hosts, half lead a host elsewhere.
func BenchmarkRoutes(b *testing.B) {
	path, err := envoy.Find("")
	if err != nil {
		b.Fatal(err)
	}
	cpu := make(map[int]float64)
	for _, n := range []int{100, 1000, 10_000} {
		cpu[n] = benchRoutes(b, path, n)
	}
	fmt.Printf("bench route_change_cpu_ratio_10000_100 %.2f x\n", cpu[10_000]/cpu[100])
}

func benchRoutes(b *testing.B, path string, n int) (cpu float64) {
	f := newFleet(b, path)
	routes := make([]string, n)
	for i := range routes {
		// Nobody asks but the last.
		routes[i] = f.route(fmt.Sprintf("h%d", i), fmt.Sprintf("http://127.%d.%d.%d:9", 1+i/62500, i/250%250, 1+i%250))
	}
	routes[n-1] = f.route(fmt.Sprintf("h%d", n-1), speaker(b, "last"))
	begun := time.Now()
	if _, err := f.apply("", nil, routes...); err != nil {
		b.Fatal(err)
	}
	fmt.Printf("bench route_apply_%d %.2f s\n", n, time.Since(begun).Seconds())

	begun = time.Now()
	f.startEnvoy()
	f.says(fmt.Sprintf("h%d", n-1), "last", time.Minute)
	fmt.Printf("bench first_full_%d %.2f s\n", n, time.Since(begun).Seconds())
	f.settled()

	var speakers [routeChanges + 1]string
	for i := range speakers {
		speakers[i] = speaker(b, fmt.Sprint("speaker ", i))
	}
	var took []float64
	change := func(i int) {
		name := fmt.Sprintf("new%d", i/2)
		begun := time.Now()
		f.mustApply(nil, f.route(name, speakers[i]))
		f.says(name, fmt.Sprint("speaker ", i), 10*time.Second)
		took = append(took, float64(time.Since(begun).Microseconds())/1000)
	}
	change(routeChanges) // warm
	took = nil
	doorward, envoy := processCPU(b, f.doorward.Process.Pid), processCPU(b, f.envoy.Process.Pid)
	for i := range routeChanges {
		change(i)
	}
	cpu = float64((processCPU(b, f.doorward.Process.Pid) - doorward).Microseconds()) / 1000 / routeChanges
	fmt.Printf("bench route_change_p50_%d %.1f ms\n", n, median(took))
	fmt.Printf("bench route_change_max_%d %.1f ms\n", n, slices.Max(took))
	fmt.Printf("bench route_change_cpu_%d %.2f ms\n", n, cpu)
	fmt.Printf("bench route_change_envoy_cpu_%d %.2f ms\n", n, float64((processCPU(b, f.envoy.Process.Pid)-envoy).Microseconds())/1000/routeChanges)
	fmt.Printf("bench control_rss_%d %.0f MiB\n", n, rss(b, f.doorward.Process.Pid))
	fmt.Printf("bench envoy_rss_%d %.0f MiB\n", n, rss(b, f.envoy.Process.Pid))
	return cpu
}

// settled waits until the processes have done what a load leaves them to do.
func (f *fleet) settled() {
	for quiet := 0; quiet < 5; time.Sleep(100 * time.Millisecond) {
		before := processCPU(f, f.doorward.Process.Pid) + processCPU(f, f.envoy.Process.Pid)
		time.Sleep(200 * time.Millisecond)
		if processCPU(f, f.doorward.Process.Pid)+processCPU(f, f.envoy.Process.Pid)-before < 10*time.Millisecond {
			quiet++
		} else {
			quiet = 0
		}
	}
}

// rss is what a process holds of memory, in MiB (proc(5), VmRSS).
func rss(tb testing.TB, pid int) float64 {
	tb.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := bytes.Cut(text, []byte("VmRSS:"))
	var kib float64
	if _, err := fmt.Sscan(string(rest), &kib); err != nil {
		tb.Fatalf("VmRSS of %d: %v", pid, err)
	}
	return kib / 1024
}
