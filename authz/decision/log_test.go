package decision

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/config"
)

func settings(to string) config.DecisionLog {
	return config.DecisionLog{To: to, MaxSize: 100 << 20, Keep: 5, SampleAllowed: 1}
}

func newLog(t *testing.T, c Config) *Log {
	t.Helper()
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(0) })
	return l
}

// finish closes a log, which must write all that waits.
func finish(t *testing.T, l *Log) {
	t.Helper()
	if err := l.Close(10 * time.Second); err != nil {
		t.Fatal(err)
	}
}

func numbered(i int) Record {
	return Record{Time: noon, Level: LevelInfo, Kind: KindDecision, ID: fmt.Sprint(i), Outcome: "deny", Path: "/"}
}

// read returns the records of a log, and how many it says were dropped.
func read(t *testing.T, text string) (records []Record, dropped int) {
	t.Helper()
	for line := range strings.Lines(text) {
		var r struct {
			Record
			Count int `json:"count"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if r.Kind == KindDecision {
			records = append(records, r.Record)
		} else {
			dropped += r.Count
		}
	}
	return records, dropped
}

func ids(records []Record) map[string]int {
	seen := make(map[string]int)
	for _, r := range records {
		seen[r.ID]++
	}
	return seen
}

func TestEveryRecordIsWrittenInOrder(t *testing.T) {
	var out bytes.Buffer
	l := newLog(t, Config{Settings: settings("stdout"), Stdout: &out})
	const n = 1000
	for i := range n {
		l.Add(numbered(i))
	}
	finish(t, l)
	records, _ := read(t, out.String())
	if len(records) != n || l.Stats() != (Stats{Written: n}) {
		t.Fatalf("%d records, %+v", len(records), l.Stats())
	}
	for i, r := range records {
		if r.ID != fmt.Sprint(i) {
			t.Fatalf("record %d is %s", i, r.ID)
		}
	}
}

// stuck is a reader that reads nothing until it is let go.
type stuck struct {
	free chan struct{}
	bytes.Buffer
}

func (s *stuck) Write(p []byte) (int, error) {
	<-s.free
	return s.Buffer.Write(p)
}

func TestARequestNeverWaitsForTheReader(t *testing.T) {
	out := &stuck{free: make(chan struct{})}
	l := newLog(t, Config{Settings: settings("stderr"), Stderr: out})
	const workers, each = 4, 20_000
	var group sync.WaitGroup
	for w := range workers {
		group.Go(func() {
			for i := range each {
				l.Add(numbered(w*each + i)) // hangs here if it waits
			}
		})
	}
	group.Wait()
	if err := l.Close(0); err == nil || err.Error() != "the decision log to stderr was not written to its end within 0s" {
		t.Errorf("a reader that does not read: %v", err)
	}
	close(out.free)
	finish(t, l)
	records, dropped := read(t, out.String())
	stats := l.Stats()
	if len(records)+dropped != workers*each || dropped == 0 || stats != (Stats{uint64(len(records)), uint64(dropped)}) {
		t.Errorf("%d written and %d told as dropped of %d; counted %+v", len(records), dropped, workers*each, stats)
	}
	for id, n := range ids(records) {
		if n != 1 {
			t.Errorf("%s is there %d times", id, n)
		}
	}
}

// broken fails as often as it is told, after it has written some bytes.
type broken struct {
	bytes.Buffer
	fail, partly int
}

func (b *broken) Write(p []byte) (int, error) {
	if b.fail == 0 {
		return b.Buffer.Write(p)
	}
	b.fail--
	n, _ := b.Buffer.Write(p[:min(b.partly, len(p))])
	return n, errors.New("no space left on device")
}

func TestAFullDiskIsToldAndSurvived(t *testing.T) {
	var program bytes.Buffer
	out := &broken{fail: 2, partly: len(Append(nil, new(numbered(0)))) + 10}
	l := newLog(t, Config{Settings: settings("stdout"), Stdout: out, Log: slog.New(slog.NewTextHandler(&program, nil))})
	for i := range 3 {
		l.Add(numbered(i))
		l.Add(numbered(i))
		next(t, l) // each pair is a write of its own
	}
	finish(t, l)
	text := out.String()
	var whole strings.Builder
	for line := range strings.Lines(text) {
		if json.Valid([]byte(line)) {
			whole.WriteString(line)
		}
	}
	records, dropped := read(t, whole.String())
	if len(records)+dropped != 9 || // with the markers
		dropped != int(l.Stats().Dropped) || l.Stats().Written != uint64(len(records)) || records[len(records)-2].ID != "2" {
		t.Errorf("%d records, %d told as dropped, counted %+v in:\n%s", len(records), dropped, l.Stats(), text)
	}
	want := []string{`level=ERROR msg="decisions cannot be logged; requests are decided all the same" to=stdout cause="no space left on device"`, `level=INFO msg="decisions are logged again" to=stdout`}
	for _, line := range want {
		if strings.Count(program.String(), line) != 1 {
			t.Errorf("the program's log lacks %s, or has it more than once:\n%s", line, &program)
		}
	}
}

// next waits until all that was added has been handed to the sink.
func next(t *testing.T, l *Log) {
	t.Helper()
	s := l.Subscribe(func(r *Record) bool { return r.ID == "marker" })
	defer s.Close()
	l.Add(Record{ID: "marker", Outcome: OutcomeAllow, Kind: KindDecision})
	select {
	case <-s.C:
	case <-time.After(10 * time.Second):
		t.Fatal("an event was not made into a record within 10 s")
	}
}

func TestSampling(t *testing.T) {
	kept := func(share float64, outcome string) map[string]int {
		var out bytes.Buffer
		s := settings("stdout")
		s.SampleAllowed = config.Share(share)
		l := newLog(t, Config{Settings: s, Stdout: &out})
		for i := range 4000 {
			r := numbered(i)
			r.Outcome = outcome
			l.Add(r)
		}
		finish(t, l)
		records, _ := read(t, out.String())
		return ids(records)
	}
	quarter, half := kept(0.25, "allow"), kept(0.5, "allow")
	if len(quarter) < 900 || len(quarter) > 1100 || len(half) < 1850 || len(half) > 2150 {
		t.Errorf("a quarter of 4000 is %d, half is %d", len(quarter), len(half))
	}
	for id := range quarter {
		if half[id] == 0 {
			t.Errorf("%s is kept of a quarter and not of half", id)
		}
	}
	for share, want := range map[float64]int{0: 0, 1: 4000} {
		if got := len(kept(share, "allow")); got != want {
			t.Errorf("%d kept with a share of %v", got, share)
		}
	}
	for _, outcome := range Outcomes()[1:] {
		if got := len(kept(0, outcome)); got != 4000 {
			t.Errorf("%d of 4000 kept that are %s", got, outcome)
		}
	}
	shadow := Record{Kind: KindShadow, Outcome: OutcomeAllow}
	if !(&Target{}).keeps(&shadow) {
		t.Error("what a shadow policy would change is left out")
	}
}

func TestMasking(t *testing.T) {
	full := Record{
		Time: noon, Kind: KindDecision, ID: "id", Outcome: "deny", Route: "r", Host: "secret-host", Path: "/secret-path", ClientIP: "secret-ip",
		Subject: "secret-subject", Email: "secret-email", Session: "secret-session", Reasons: []string{"secret-reason"}, ShadowReasons: []string{"secret-other"},
	}
	var out bytes.Buffer
	s := settings("stdout")
	s.Mask = config.Maskable()
	l := newLog(t, Config{Settings: s, Stdout: &out})
	followed := l.Subscribe(func(r *Record) bool { return r.Subject == "secret-subject" })
	l.Add(full)
	l.Add(full)
	l.Add(Record{Kind: KindDecision})
	finish(t, l)
	if strings.Contains(out.String(), "secret") {
		t.Errorf("not masked: %s", &out)
	}
	records, _ := read(t, out.String())
	first, second, empty := records[0], records[1], records[2]
	if first.Subject != second.Subject || !strings.HasPrefix(first.Subject, "masked:") || len(first.Subject) != len("masked:")+16 {
		t.Errorf("one subject is %q and %q", first.Subject, second.Subject)
	}
	if first.Subject == first.Email || first.ID != "id" || empty.Subject != "" {
		t.Errorf("got %+v, %+v", first, empty)
	}
	r := <-followed.C
	if r.Reasons[0] != "secret-reason" || full.Reasons[0] != "secret-reason" {
		t.Error("masking changed the record itself")
	}
	if line := string(l.Append(nil, r)); strings.Contains(line, "secret") {
		t.Errorf("a subscriber writes %s", line)
	}
	other := newLog(t, Config{Settings: s, Stdout: &out})
	if bytes.Equal(other.Append(nil, full), l.Append(nil, full)) {
		t.Error("another log has the same key")
	}
}

// A value that is masked is not to be read in another field either.
func TestMaskedValuesElsewhere(t *testing.T) {
	full := Record{
		Kind: KindDecision, Outcome: "deny", Path: "/users/alice%40example.com/alice@example.com", ClientIP: "192.0.2.7", Subject: "a1", Email: "alice@example.com",
		Reasons: []string{"late", "alice@example.com is no member"}, ShadowReasons: []string{"not from 192.0.2.7"}, Cause: `policy p: headers: "x-user": "alice@example.com,x" holds a comma`,
	}
	s := settings("off")
	s.Mask = []string{"client_ip", "email", "subject"}
	line := string(newLog(t, Config{Settings: s}).Append(nil, full))
	records, _ := read(t, line)
	if r := records[0]; strings.Contains(line, "alice") || strings.Contains(line, "192.0.2.7") || r.Reasons[1] != r.Email+" is no member" || r.Reasons[0] != "late" {
		t.Errorf("got %s", line)
	}
	if full.Reasons[1] != "alice@example.com is no member" || full.ShadowReasons[0] != "not from 192.0.2.7" {
		t.Error("masking changed the record itself")
	}
}

func TestSlowSubscribersLoseRecordsAndAreTold(t *testing.T) {
	l := newLog(t, Config{Settings: settings("off")})
	all := l.Subscribe(func(*Record) bool { return true })
	some := l.Subscribe(Filter{Outcome: "deny", Path: "/x"}.Match)
	for i := range subscriptionSize + 100 {
		r := numbered(i)
		if i == 7 {
			r.Path = "/xy"
		}
		l.Add(r)
	}
	next(t, l)
	if got := all.Dropped(); got != 100 && got != 101 { // the marker is one more
		t.Errorf("%d told as dropped", got)
	}
	if r := <-some.C; r.ID != "7" || len(some.C) != 0 || some.Dropped() != 0 {
		t.Errorf("the filter let %+v through, and %d more", r, len(some.C))
	}
	all.Close()
	some.Close()
	some.Close()
	if l.wanted.Load() {
		t.Error("nobody follows, nothing is logged, and records are made all the same")
	}
	if got := l.Stats(); got != (Stats{}) {
		t.Errorf("nothing is to be written, counted is %+v", got)
	}
}

func TestFilters(t *testing.T) {
	r := Record{Route: "grafana", Subject: "Alice", Email: "alice@example.com", Outcome: "deny", Status: 403, Path: "/d/x"}
	for _, row := range []struct {
		f    Filter
		want bool
	}{
		{Filter{}, true},
		{Filter{Route: "grafana", User: "Alice", Outcome: "deny", Status: 403, Path: "/d/"}, true},
		{Filter{User: "ALICE@example.com"}, true},
		{Filter{User: "alice"}, false}, // a subject's case matters
		{Filter{Route: "graf"}, false},
		{Filter{Outcome: "allow"}, false},
		{Filter{Status: 401}, false},
		{Filter{Path: "/e"}, false},
	} {
		if got := row.f.Match(&r); got != row.want {
			t.Errorf("%+v matches: %t", row.f, got)
		}
		if back, err := ParseFilter(row.f.Values()); err != nil || back != row.f {
			t.Errorf("%+v is read as %+v, %v", row.f, back, err)
		}
	}
	for _, row := range []struct {
		f    Filter
		want string
	}{
		{Filter{Outcome: "denied"}, `outcome "denied" is not known; it is one of allow, deny, unauthenticated, misdirected, malformed, unavailable`},
		{Filter{Status: 99}, `status 99 is not a status of HTTP; it is 100 to 599`},
		{Filter{Path: "d"}, `path "d" does not begin with a slash`},
	} {
		if _, err := ParseFilter(row.f.Values()); err == nil || err.Error() != row.want {
			t.Errorf("%+v: %v", row.f, err)
		}
	}
}

func TestOff(t *testing.T) {
	l := newLog(t, Config{Settings: settings("off")})
	l.Add(numbered(1))
	if len(l.queue) != 0 {
		t.Error("a record is kept that nobody wants")
	}
	finish(t, l)
}

func TestAnotherTargetTakesOver(t *testing.T) {
	var first, second bytes.Buffer
	l := newLog(t, Config{Settings: settings("stdout"), Stdout: &first, Stderr: &second})
	old := l.current.Load().sink
	const n = 500
	for i := range n {
		if i == n/2 {
			t2, err := l.Prepare(settings("stderr"))
			if err != nil {
				t.Fatal(err)
			}
			l.Use(t2)
		}
		l.Add(numbered(i))
	}
	<-old.done
	finish(t, l)
	before, _ := read(t, first.String())
	after, _ := read(t, second.String())
	if len(before) != n/2 || len(after) != n/2 {
		t.Errorf("%d records before and %d after", len(before), len(after))
	}
	late, err := l.Prepare(settings("stdout"))
	if err != nil {
		t.Fatal(err)
	}
	l.Use(late)
	<-late.sink.done
}

func TestAStuckTargetCanBeLeft(t *testing.T) {
	out, good := &stuck{free: make(chan struct{})}, new(bytes.Buffer)
	l := newLog(t, Config{Settings: settings("stdout"), Stdout: out, Stderr: good})
	l.Add(numbered(1))
	next(t, l)
	t2, err := l.Prepare(settings("stderr"))
	if err != nil {
		t.Fatal(err)
	}
	l.Use(t2)
	l.Add(numbered(2))
	finish(t, l)
	if records, _ := read(t, good.String()); len(records) != 1 || records[0].ID != "2" {
		t.Errorf("got %+v", records)
	}
	close(out.free)
}
