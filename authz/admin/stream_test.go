package admin

import (
	"bufio"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/decision"
)

// api is a running API with its client.
type api struct {
	*Client
	t    *testing.T
	log  *decision.Log
	last []decision.Record
	stop chan struct{}
}

func newAPI(t *testing.T) *api {
	t.Helper()
	log, err := decision.New(decision.Config{Settings: config.DecisionLog{To: "off", SampleAllowed: 1, Mask: []string{"subject"}}, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	a := &api{t: t, log: log, stop: make(chan struct{})}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{ReadTimeout: 200 * time.Millisecond, Handler: Handler(Config{
		Status:    func() Status { return Status{Config: "x.yaml"} },
		Decisions: log,
		Last: func(n int, match func(*decision.Record) bool) (chosen []decision.Record) {
			for _, r := range a.last {
				if match(&r) {
					chosen = append(chosen, r)
				}
			}
			return chosen[max(0, len(chosen)-n):]
		},
		Capture: func(r decision.Record) ([]byte, bool) {
			return []byte("{\"captured\":\"" + r.ID + "\"}\n"), r.Outcome == "allow"
		},
		Handlers: map[string]http.Handler{"GET /v1/more": http.NotFoundHandler()},
		Stop:     a.stop,
	})}}
	server.Start()
	t.Cleanup(func() { server.CloseClientConnections(); server.Close(); log.Close(time.Second) })
	a.Client = NewClient(socket)
	return a
}

// open streams an endpoint; what it returns gives the next line, "" at the end.
func (a *api) open(path, query string) func() string {
	a.t.Helper()
	values, err := url.ParseQuery(query)
	if err != nil {
		a.t.Fatal(err)
	}
	body, err := a.Stream(a.t.Context(), path, values)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { body.Close() })
	lines := bufio.NewScanner(body)
	return func() string {
		if !lines.Scan() {
			return ""
		}
		return lines.Text()
	}
}

func (a *api) id(line string) string {
	a.t.Helper()
	var r decision.Record
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		a.t.Fatalf("%v: %q", err, line)
	}
	return r.ID
}

func record(id, outcome, subject string) decision.Record {
	return decision.Record{Time: time.Unix(1, 0), Kind: decision.KindDecision, ID: id, Outcome: outcome, Subject: subject, Path: "/"}
}

func TestStatus(t *testing.T) {
	a := newAPI(t)
	s, err := a.Status(t.Context())
	if err != nil || s.Config != "x.yaml" {
		t.Errorf("%+v, %v", s, err)
	}
	if _, err := NewClient(filepath.Join(t.TempDir(), "none")).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("nobody there: %v", err)
	}
	if err := a.Get(t.Context(), "/v1/more", nil, &s); err == nil || err.Error() != "404 page not found" {
		t.Errorf("what an endpoint says: %v", err)
	}
	for _, method := range []string{"GET", "POST"} {
		err := a.Send(t.Context(), Request{Method: method, Path: "/v1/none"}, &s)
		var no *Refusal
		if !errors.As(err, &no) || no.Status != 404 || no.Text != "there is no "+method+" /v1/none: GET /v1/openapi.json has what there is" {
			t.Errorf("%s of nothing: %v", method, err)
		}
	}
	var no *Refusal
	if err := a.Send(t.Context(), Request{Method: "DELETE", Path: "/v1/status"}, &s); !errors.As(err, &no) || no.Status != 405 {
		t.Errorf("another method: %v", err)
	}
}

func TestDecisionsAreFollowed(t *testing.T) {
	a := newAPI(t)
	a.last = []decision.Record{record("1", "allow", "alice"), record("2", "deny", "bob"), record("3", "deny", "carol")}
	next := a.open("/v1/decisions", "outcome=deny&last=1&follow=true")
	if got := a.id(next()); got != "3" {
		t.Errorf("the last is %s", got)
	}
	time.Sleep(300 * time.Millisecond) // longer than the server gives a request: a stream is not bounded by it
	a.log.Add(a.last[2])               // has been sent
	a.log.Add(record("4", "allow", "alice"))
	a.log.Add(record("5", "deny", "alice"))
	line := next()
	var r decision.Record
	if err := json.Unmarshal([]byte(line), &r); err != nil || r.ID != "5" || len(r.Subject) != len("masked:")+16 {
		t.Errorf("then comes %s", line)
	}
	close(a.stop)
	if line := next(); line != "" {
		t.Errorf("after the end comes %s", line)
	}
}

func TestCaptures(t *testing.T) {
	a := newAPI(t)
	a.last = []decision.Record{record("1", "allow", "alice"), record("2", "deny", "bob")}
	next := a.open("/v1/captures", "last=10&follow=true")
	a.log.Add(record("3", "deny", ""))
	a.log.Add(record("4", "allow", ""))
	if one, two := next(), next(); one != `{"captured":"1"}` || two != `{"captured":"4"}` {
		t.Errorf("captured %s and %s", one, two)
	}
}

func TestLastEnds(t *testing.T) {
	a := newAPI(t)
	a.last = []decision.Record{record("1", "allow", "alice"), record("2", "deny", "bob")}
	next := a.open("/v1/decisions", "last=1&user=alice")
	if one, two := next(), next(); a.id(one) != "1" || two != "" {
		t.Errorf("got %s and %s", one, two)
	}
	if line := a.open("/v1/decisions", "")(); line != "" {
		t.Errorf("nothing was asked for and %s came", line)
	}
}

func TestBadQueries(t *testing.T) {
	a := newAPI(t)
	for query, want := range map[string]string{
		"outcome=no": `outcome "no" is not known; it is one of allow, deny, unauthenticated, misdirected, malformed, unavailable`,
		"last=-1":    `last is -1; it is 0 or more`,
		"last=x":     `strconv.Atoi: parsing "x": invalid syntax`,
	} {
		values, _ := url.ParseQuery(query)
		if _, err := a.Stream(t.Context(), "/v1/decisions", values); err == nil || err.Error() != want {
			t.Errorf("%s: %v", query, err)
		}
	}
}
