package main

import (
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// The benchmarks hold Doorward against a no-op ext_authz server of the same response size: each in a process of its own, in turns, so that
// a machine whose speed drifts spoils neither. Figures are medians over the turns, ratios medians over pairs of turns that followed each other.
const (
	benchInFlight = 8
	benchSessions = 1000
	benchChecks   = 3000 // per turn
	benchTurns    = 15
)

// BenchmarkCheck asks over gRPC directly, and compares the server process's CPU time per check.
func BenchmarkCheck(b *testing.B) {
	var targets []*target
	for _, t := range []*target{
		{name: "noop", as: noopDirect, policy: "grafana", cookies: 1},
		{name: "demo", as: direct, policy: "grafana", cookies: benchSessions},
		{name: "path", as: direct, policy: "path", cookies: benchSessions},
		{name: "uncacheable", as: direct, policy: "uncacheable", cookies: benchSessions},
		{name: "cold", as: direct, policy: "grafana", cookies: benchChecks * benchTurns},
	} {
		t.start(b)
		targets = append(targets, t)
		if t.name != "cold" {
			t.turn(b, 2*benchSessions)
			t.forget()
		}
	}
	for range benchTurns {
		for _, t := range targets {
			t.turn(b, benchChecks)
		}
	}
	for _, t := range targets {
		clocksAgree(b, t.pid)
		t.report("check_cpu_"+t.name, "check_p50_"+t.name, "check_p99_"+t.name)
		if t.name != "noop" {
			fmt.Printf("bench check_cpu_ratio_%s %.2f x\n", t.name, ratio(t.cpu, targets[0].cpu))
		}
	}
}

// benchFilled is more distinct requests than decisions are kept.
const benchFilled = 80_000

// BenchmarkDistinctPaths says what a stream of requests that never come again leaves in memory.
func BenchmarkDistinctPaths(b *testing.B) {
	t := &target{name: "distinct", as: direct, policy: "path", cookies: benchSessions, distinct: true}
	t.start(b)
	t.turn(b, benchFilled)
	filled := t.heap(b)
	t.turn(b, 2*benchFilled)
	after := t.heap(b)
	fmt.Printf("bench check_heap_distinct_paths %.1f MiB\n", after/(1<<20))
	fmt.Printf("bench check_heap_growth_distinct_paths %.2f x\n", after/filled)
}

// target is a serving child that is asked over gRPC.
type target struct {
	name, as, policy string
	cookies          int  // as many sessions, one of which each request in turn has
	distinct         bool // no path comes twice

	*child
	figures
	conn *grpc.ClientConn
	next int
	text func(i int) []byte // the i-th question
}

// figures are what was measured of one kind of server, in microseconds, for each turn.
type figures struct{ cpu, p50, p99 []float64 }

func (t *target) start(b testing.TB) {
	b.Helper()
	t.child = startChild(b, t.as, t.policy, 8443, 3000, t.cookies)
	socket := filepath.Join(t.dir, "run", "authz.sock")
	if t.as == noopDirect {
		socket, t.Cookies = filepath.Join(t.dir, "authz.sock"), []string{"n0body-0000000000000000000000000000000000000"}
	}
	var err error
	t.conn, err = grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(rawCodec{})))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { t.conn.Close() })
	t.text = func(i int) []byte {
		return question(b, t.as, &t.benchReady, benchPath(i, true), t.Cookies[i%len(t.Cookies)])
	}
	if t.distinct {
		return
	}
	questions := make([][]byte, len(t.Cookies))
	for i, cookie := range t.Cookies {
		questions[i] = question(b, t.as, &t.benchReady, benchPath(i, false), cookie)
	}
	t.text = func(i int) []byte { return questions[i%len(questions)] }
}

// rawCodec sends and receives bytes, so that the client costs little.
type rawCodec struct{}

func (rawCodec) Name() string { return "proto" }
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(v.([]byte))}, nil
}
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// turn asks n times, with benchInFlight at once, and notes the server's CPU time per check. The last answers are verified.
func (t *target) turn(b testing.TB, n int) {
	b.Helper()
	t.measure(b, n, []int{t.pid}, func(i int, last bool) error {
		ctx, cancel := withCheck(&t.benchReady)
		defer cancel()
		var out []byte
		if err := t.conn.Invoke(ctx, "/envoy.service.auth.v3.Authorization/Check", t.text(t.next+i), &out); err != nil || !last {
			return err
		}
		response := new(authv3.CheckResponse)
		if err := proto.Unmarshal(out, response); err != nil || response.GetOkResponse() == nil {
			return fmt.Errorf("%s: not allowed: %v %v", t.name, err, response)
		}
		return nil
	})
	t.next += n
}

// measure calls ask for 0 to n-1, with benchInFlight at once, and notes how long each took and the processes' CPU time for each. For what each
// asker asks last, last is set.
func (f *figures) measure(b testing.TB, n int, pids []int, ask func(i int, last bool) error) {
	b.Helper()
	var mu sync.Mutex
	var group sync.WaitGroup
	all := make([]time.Duration, 0, n)
	before := processesCPU(b, pids)
	for w := range benchInFlight {
		group.Add(1)
		go func() {
			defer group.Done()
			took := make([]time.Duration, 0, n/benchInFlight+1)
			for i := w; i < n; i += benchInFlight {
				start := time.Now()
				if err := ask(i, i+benchInFlight >= n); err != nil {
					b.Error(err)
					return
				}
				took = append(took, time.Since(start))
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, took...)
		}()
	}
	group.Wait()
	if b.Failed() {
		b.FailNow()
	}
	f.cpu = append(f.cpu, micros(processesCPU(b, pids)-before)/float64(n))
	slices.Sort(all)
	f.p50, f.p99 = append(f.p50, micros(all[n/2])), append(f.p99, micros(all[n*99/100]))
}

func micros(d time.Duration) float64 { return d.Seconds() * 1e6 }

func processesCPU(b testing.TB, pids []int) (total time.Duration) {
	b.Helper()
	for _, pid := range pids {
		total += processCPU(b, pid)
	}
	return total
}

// forget drops what was measured, of a turn that warmed caches.
func (f *figures) forget() { *f = figures{} }

func (f *figures) report(cpu, p50, p99 string) {
	fmt.Printf("bench %s %.1f us\n", cpu, median(f.cpu))
	fmt.Printf("bench %s %.0f us\n", p50, median(f.p50))
	fmt.Printf("bench %s %.0f us\n", p99, median(f.p99))
}

// ratio compares turn by turn.
func ratio(of, to []float64) float64 {
	ratios := make([]float64, len(of))
	for i := range of {
		ratios[i] = of[i] / to[i]
	}
	return median(ratios)
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
