// Package admin is the API behind the CLI: HTTP with JSON on a Unix socket in the data directory, which only the user that runs Doorward
// can open, and on the network for clients that prove themselves by a certificate, never for others. It reports; it asks what it needs through
// the functions in Config and knows none of the planes.
package admin

import (
	_ "embed" // openapi.json
	"encoding/json"
	"net/http"
	"time"

	"doorward/authz/decision"
)

// Status is what the program has loaded and what it serves.
type Status struct {
	Version  string    `json:"version"`
	Started  time.Time `json:"started"`
	Config   string    `json:"config"` // path of the file
	Loaded   string    `json:"loaded"` // checksum of the configuration that decides
	LoadedAt time.Time `json:"loaded_at"`
	Served   bool      `json:"served"`  // every connected Envoy has acknowledged it, and there is one
	Refused  string    `json:"refused"` // checksum of the last configuration that was not taken; "" once a later one was
	Problem  string    `json:"problem"` // why it was refused, or what an Envoy rejected
	Envoys   any       `json:"envoys"`
	Routes   int       `json:"routes"`
	Pushed   int       `json:"pushed"` // of the routes, those that came over this API
	Hosts    int       `json:"hosts"`
	Keys     any       `json:"keys,omitempty"`
	Bundles  []Bundle  `json:"bundles,omitempty"`

	// What is wrong with hosts' certificates, a line each: those that are awaited and those that clients refuse.
	Certificates []string `json:"certificates,omitempty"`

	// Why the files as they are now cannot be read; what is loaded goes on.
	Unread string `json:"unread,omitempty"`
}

// Config is what the API answers with. Status is required; the endpoints of what is nil are not there.
type Config struct {
	Status    func() Status                                                    // GET /v1/status
	Decisions *decision.Log                                                    // GET /v1/decisions, as records
	Last      func(n int, match func(*decision.Record) bool) []decision.Record // the newest, oldest first
	Capture   func(decision.Record) (line []byte, ok bool)                     // GET /v1/captures, as lines that this makes
	Handlers  map[string]http.Handler                                          // others, by patterns of http.ServeMux
	Stop      <-chan struct{}                                                  // ends what streams when it is closed
}

// Bundle is one OPA bundle of the configuration.
type Bundle struct {
	Name        string    `json:"name"`
	Revision    string    `json:"revision"` // of its manifest; of the version that decides, as are the next two
	Sum         string    `json:"sum"`      // SHA-256 of the archive
	ETag        string    `json:"etag"`
	Waiting     bool      `json:"waiting"`      // nothing good was fetched yet: routes that need it answer 503
	LastSuccess time.Time `json:"last_success"` // when the server, or the file, last had what decides; zero for never
	LastError   string    `json:"last_error"`   // why the last try brought nothing good; "" when it did
}

// OpenAPI is the description of the API: OpenAPI 3.1, in JSON. It is never changed.
//
//go:embed openapi.json
var OpenAPI []byte

// Handler serves the API.
func Handler(c Config) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(c.Status()) // the client went away: nothing to do, nobody to tell
	})
	mux.HandleFunc("GET /v1/openapi.json", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(OpenAPI) // the client went away: nothing to do, nobody to tell
	})
	if c.Decisions != nil {
		mux.Handle("GET /v1/decisions", c.stream(func(r decision.Record) ([]byte, bool) { return c.Decisions.Append(nil, r), true }))
	}
	if c.Decisions != nil && c.Capture != nil {
		mux.Handle("GET /v1/captures", c.stream(c.Capture))
	}
	for pattern, h := range c.Handlers {
		mux.Handle(pattern, h)
	}
	return inJSON(mux)
}
