package decision

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 120_000_000, time.UTC)

func TestLines(t *testing.T) {
	for _, row := range []struct {
		name   string
		record Record
		want   string
	}{
		{"allowed", Record{
			Time: noon, Level: LevelInfo, Kind: KindDecision, ID: "1b4e28ba", Outcome: "allow", Status: 200, Route: "grafana", Revision: "0123456789abcdef",
			Policy: "grafana", Digest: "fedcba9876543210", Method: "GET", Host: "grafana.example.com", Path: "/d/x", ClientIP: "192.0.2.7",
			Subject: "alice", Email: "alice@example.com", Session: "5f2b", Took: 42 * time.Microsecond,
		}, `{"time":"2026-03-01T12:00:00.12Z","level":"INFO","msg":"decision","id":"1b4e28ba","outcome":"allow","status":200,` +
			`"route":"grafana","revision":"0123456789abcdef","policy":"grafana","policy_digest":"fedcba9876543210","method":"GET","host":"grafana.example.com",` +
			`"path":"/d/x","client_ip":"192.0.2.7","subject":"alice","email":"alice@example.com","session":"5f2b","took":42000}`},
		{"denied by a policy that does not work", Record{
			Time: noon.In(time.FixedZone("", 3600)), Level: LevelError, Kind: KindDecision, Outcome: "deny", Status: 403, Reasons: []string{"one", "two"}, Cause: "no",
		}, `{"time":"2026-03-01T12:00:00.12Z","level":"ERROR","msg":"decision","id":"","outcome":"deny","status":403,` +
			`"route":"","revision":"","method":"","host":"","path":"","client_ip":"","reasons":["one","two"],"cause":"no","took":0}`},
		{"shadow", Record{
			Time: noon, Level: LevelInfo, Kind: KindShadow, ID: "x", Outcome: "allow", ShadowPolicy: "next", ShadowOutcome: "deny",
			ShadowReasons: []string{"not now"}, Differences: []string{"allow", "deny"},
		}, `{"time":"2026-03-01T12:00:00.12Z","level":"INFO","msg":"shadow","id":"x","outcome":"allow",` +
			`"route":"","revision":"","method":"","host":"","path":"","client_ip":"","took":0,` +
			`"shadow_policy":"next","shadow_outcome":"deny","shadow_reasons":["not now"],"differences":["allow","deny"]}`},
	} {
		if got := string(Append(nil, &row.record)); got != row.want+"\n" {
			t.Errorf("%s:\n got %swant %s", row.name, got, row.want)
		}
	}
}

func TestHostileTextIsEscaped(t *testing.T) {
	for text, want := range map[string]string{
		"":                          `""`,
		"plain ü 語 \U0001F6AA":      `"plain ü 語 ` + "\U0001F6AA" + `"`,
		`"quoted" \ back`:           `"\"quoted\" \\ back"`,
		"line\nbreak\r\ttab":        `"line\nbreak\r\ttab"`,
		"\x00\x1b[31mred\x7f":       `"\u0000\u001b[31mred\u007f"`,
		"\u009b31m\u0085":           `"\u009b31m\u0085"`,
		"\u2028\u2029":              `"\u2028\u2029"`,
		"\xff\xc3\xe2\x80 \xed\xa0": `"\ufffd\ufffd\ufffd\ufffd \ufffd\ufffd"`,
		"\uFFFD":                    "\"\uFFFD\"",
	} {
		if got := string(quote(nil, text)); got != want {
			t.Errorf("%q is written %s, want %s", text, got, want)
		}
	}
}

// FuzzAppend holds the encoder against encoding/json: both lines mean the same, and ours is one line that steers no terminal.
func FuzzAppend(f *testing.F) {
	f.Add("GET", "/d/x", "no \"reason\"\n", int64(5))
	f.Add("\xff\u2028", "\x1b]0;\x07", "\u0080\\u0000", int64(-1))
	f.Fuzz(func(t *testing.T, a, b, c string, n int64) {
		r := Record{Time: time.Unix(n%(1<<33), n%1e9), Level: a, Kind: b, ID: c, Outcome: a, Status: int(n), Route: b, Revision: c, Policy: a, Digest: b,
			Method: c, Host: a, Path: b, ClientIP: c, Subject: a, Email: b, Session: c, Reasons: []string{a, b, c}, Cause: a, Took: time.Duration(n),
			ShadowPolicy: b, ShadowOutcome: c, ShadowReasons: []string{a}, Differences: []string{c, b}}
		line := Append(nil, &r)
		if body := string(line[:len(line)-1]); line[len(line)-1] != '\n' || strings.IndexFunc(body, steers) >= 0 {
			t.Fatalf("not one plain line: %q", line)
		}
		r.Time = r.Time.UTC()
		reference, err := json.Marshal(r)
		if err != nil {
			t.Skip("a time that encoding/json refuses")
		}
		var got, want Record
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		if err := json.Unmarshal(reference, &want); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("got %q\nwant %q", line, reference)
		}
	})
}

func steers(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }

// Every field of a Record that has a place in a line is written.
func TestNoFieldIsForgotten(t *testing.T) {
	var r Record
	v := reflect.ValueOf(&r).Elem()
	for i := range v.NumField() {
		switch f := v.Field(i); f.Kind() {
		case reflect.String:
			f.SetString(v.Type().Field(i).Name)
		case reflect.Slice:
			f.Set(reflect.ValueOf([]string{v.Type().Field(i).Name}))
		case reflect.Int, reflect.Int64:
			f.SetInt(int64(i))
		}
	}
	var line map[string]any
	if err := json.Unmarshal(Append(nil, &r), &line); err != nil {
		t.Fatal(err)
	}
	for i := range v.NumField() {
		name, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if _, there := line[name]; there == (name == "-") {
			t.Errorf("%s: in the line is %t", v.Type().Field(i).Name, there)
		}
	}
	if len(line) != v.NumField()-1 {
		t.Errorf("the line has %d keys", len(line))
	}
}

func BenchmarkAppend(b *testing.B) {
	r := Record{
		Time: noon, Level: LevelInfo, Kind: KindDecision, ID: "1b4e28ba-2fa1-11d2-883f-0016d3cca427", Outcome: "allow", Status: 200, Route: "grafana",
		Revision: "0123456789abcdef", Policy: "grafana", Digest: "fedcba9876543210", Method: "GET", Host: "grafana.example.com", Path: "/d/17/home",
		ClientIP: "192.0.2.7", Subject: "user-17", Email: "user-17@example.com", Session: "5f2b8a4e7c1d4f7b9a530a6f4f0e2c11", Took: 42 * time.Microsecond,
	}
	line := Append(nil, &r)
	b.ReportAllocs()
	for b.Loop() {
		line = Append(line[:0], &r)
	}
}
