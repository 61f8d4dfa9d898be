package authz

import (
	"errors"
	"log/slog"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/decision"
	"doorward/authz/policy"
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
			outcome: allowed, route: &route{Route: config.Route{Policy: "grafana"}, digest: "0123456789abcdef", tally: new(tally)}, session: alice,
			hash: "5f2b8a4e7c1d4f7b9a530a6f4f0e2c11",
		}
}

func TestStatsCountOnAfterAReload(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	d.check(d.ask(cookie, signedIn("alice")))
	d.check(d.ask(cookie, signedIn("bob")))
	d.adopt(map[string]string{"grafana.rego": rego + "\n# changed\n"}, routeTo(t, "grafana", "grafana"))
	d.check(d.ask(cookie, signedIn("alice")))
	d.Check(t.Context(), "nothing that can be read")
	s := d.Stats()
	want := map[string]map[string]uint64{"grafana": {"allow": 2, "deny": 1}, "": {"malformed": 1}}
	if !reflect.DeepEqual(s.Decisions, want) || s.Routes != 1 {
		t.Errorf("got %v on %d routes, want %v", s.Decisions, s.Routes, want)
	}
	if s.Latency.Count != 4 || s.Latency.Sum <= 0 || s.Latency.UpTo[1] > 4 || s.Latency.UpTo[1] < s.Latency.UpTo[0.001] {
		t.Errorf("latencies %+v", s.Latency)
	}
	d.adopt(nil, routeTo(t, "other", "public"))
	d.Settle(d.Retired()...)
	if s := d.Stats(); s.Decisions["grafana"] != nil {
		t.Errorf("a route that is no more is counted: %v", s.Decisions)
	}
}

func TestLatencyBuckets(t *testing.T) {
	var l latency
	for _, took := range []time.Duration{-1, 0, 10 * time.Microsecond, 10*time.Microsecond + 1, time.Second, time.Hour} {
		l.note(took)
	}
	h := l.histogram()
	if h.UpTo[1e-5] != 3 || h.UpTo[2.5e-5] != 4 || h.UpTo[1] != 5 || h.Count != 6 {
		t.Errorf("%+v", h)
	}
}

// Faults are told in the program's log, and a stream of them does not fill it.
func TestFaultsAreToldNowAndThen(t *testing.T) {
	now := time.Unix(1000, 0)
	var log strings.Builder
	s := &Server{Config: Config{Log: slog.New(slog.NewTextHandler(&log, nil)), Now: func() time.Time { return now }}, recent: newRecent()}
	for range 3 {
		s.record(&request{id: "1", route: "r"}, verdict{outcome: unavailable, cause: errHeaders}, 503, now)
	}
	s.record(&request{id: "2"}, verdict{outcome: misdirected, cause: errMisdirected}, 421, now)
	now = now.Add(faultEvery)
	s.record(&request{id: "3"}, verdict{outcome: denied, cause: errUnknownRevision}, 403, now)
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0], `level=ERROR msg="a request was denied because something does not work" id=1 route=r outcome=unavailable`) ||
		!strings.HasSuffix(lines[1], "others=2") {
		t.Errorf("got:\n%s", &log)
	}
}

// What a client sends stays within bounds in a record, and a large request is not kept in memory for one.
func TestRecordsAreBounded(t *testing.T) {
	long := strings.Repeat("x", 10_000)
	req := &request{id: "1", route: long, revision: long, method: long, host: long, path: "/" + long, clientIP: long, question: strings.Repeat("x", recentBytes+1)}
	v := verdict{outcome: denied, cause: errors.New(long), decision: policy.Decision{Reasons: slices.Repeat([]string{long}, 100)}}
	k := &kept{request: req, verdict: v}
	r := k.Record()
	if line := decision.Append(nil, &r); len(line) > 32<<10 {
		t.Errorf("a line of %d bytes", len(line))
	}
	var added []decision.Event
	s := &Server{Config: Config{Log: slog.New(slog.DiscardHandler), Now: time.Now, Decisions: recorderFunc(func(e decision.Event) { added = append(added, e) })}, recent: newRecent()}
	s.record(req, v, 403, time.Now())
	if _, keeps := added[0].(*kept); keeps || added[0].Record().Of != nil {
		t.Error("the request is kept for its record")
	}
}

type recorderFunc func(decision.Event)

func (f recorderFunc) Add(e decision.Event) { f(e) }
