package authz

import (
	"log/slog"
	"syscall"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/decision"
)

// BenchmarkRecord is what logging a decision costs: in the request, and in CPU time all in all.
func BenchmarkRecord(b *testing.B) {
	log, err := decision.New(decision.Config{
		Settings: config.DecisionLog{To: "/dev/null", MaxSize: 1 << 30, SampleAllowed: 1}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		b.Fatal(err)
	}
	s := &Server{Config: Config{Log: slog.New(slog.DiscardHandler), Decisions: log, Now: time.Now}, recent: newRecent()}
	req, v := recorded()
	start, before := time.Now(), cpuTime(b)
	b.ReportAllocs()
	var n uint64
	for b.Loop() {
		s.record(req, v, 200, start)
		if n++; n%4000 == 0 {
			b.StopTimer() // faster than any requests come
			for log.Stats().Written < n-2000 {
				time.Sleep(time.Millisecond)
			}
			b.StartTimer()
		}
	}
	if err := log.Close(time.Minute); err != nil {
		b.Fatal(err)
	}
	if got := log.Stats(); got != (decision.Stats{Written: n}) {
		b.Fatalf("%+v", got)
	}
	b.ReportMetric(float64(cpuTime(b)-before)/float64(n), "cpu-ns/op")
}

// cpuTime is this process's, in nanoseconds.
func cpuTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// recorded is a request and its verdict, as most are.
func recorded() (*request, verdict) {
	alice := someone("alice", "staff")
	return &request{
			id: "1b4e28ba-2fa1-11d2-883f-0016d3cca427", route: "grafana", revision: "0123456789abcdef", method: "GET", host: host, path: "/d/17/home",
			clientIP: "192.0.2.7",
		}, verdict{
			outcome: allowed, route: &route{Route: config.Route{Policy: "grafana"}, digest: "0123456789abcdef"}, session: alice,
			hash: "5f2b8a4e7c1d4f7b9a530a6f4f0e2c11",
		}
}
