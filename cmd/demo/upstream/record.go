package upstream

import (
	"encoding/json"
	"net/http"
	"sync"
)

// maxRecorded is how many requests are kept; older ones are only counted.
const maxRecorded = 10_000

// Request is one that arrived at an application.
type Request struct {
	Method string      `json:"method"`
	Host   string      `json:"host"`
	Path   string      `json:"path"` // with the query, as it arrived
	Header http.Header `json:"header"`
}

// Recorder keeps what arrived, so that a test can say what did not. Safe for concurrent use.
type Recorder struct {
	mu       sync.Mutex
	total    int
	requests []Request
}

// Wrap records each request before it is handled.
func (rec *Recorder) Wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec.add(seen(r))
		next.ServeHTTP(w, r)
	})
}

func (rec *Recorder) add(r Request) {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.total++
	if len(rec.requests) == maxRecorded {
		rec.requests = rec.requests[1:]
	}
	rec.requests = append(rec.requests, r)
}

// Requests returns a copy of the latest requests, oldest first.
func (rec *Recorder) Requests() []Request {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return append([]Request{}, rec.requests...)
}

// Total counts all requests since the start or the last Reset.
func (rec *Recorder) Total() int {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	return rec.total
}

// Reset forgets everything.
func (rec *Recorder) Reset() {
	rec.mu.Lock()
	defer rec.mu.Unlock()
	rec.total, rec.requests = 0, nil
}

// ServeHTTP is for another program: GET returns {"total", "requests"} as JSON, DELETE resets. It shows identity JWTs, so it belongs on a loopback
// listener of its own and never behind a route.
func (rec *Recorder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodGet:
		writeJSON(w, http.StatusOK, struct {
			Total    int       `json:"total"`
			Requests []Request `json:"requests"`
		}{rec.Total(), rec.Requests()})
	case http.MethodDelete:
		rec.Reset()
		w.WriteHeader(http.StatusNoContent)
	default:
		w.Header().Set("Allow", "GET, DELETE")
		http.Error(w, "GET or DELETE", http.StatusMethodNotAllowed)
	}
}

// seen is a request as a value of its own.
func seen(r *http.Request) Request {
	return Request{Method: r.Method, Host: r.Host, Path: r.RequestURI, Header: r.Header.Clone()}
}

func writeJSON(w http.ResponseWriter, status int, value any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(value) // the client is gone when this fails
}
