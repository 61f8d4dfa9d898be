// Package admin is the API behind the CLI: HTTP with JSON on a Unix socket in the data directory, which only the user that runs Doorward
// can open. It reports; it asks what it needs through the functions in Config and knows none of the planes.
package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
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
	Hosts    int       `json:"hosts"`
	Keys     any       `json:"keys,omitempty"`
}

// Handler serves the API. status is called once per request.
func Handler(status func() Status) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		_ = encoder.Encode(status()) // the client went away: nothing to do, nobody to tell
	})
	return mux
}

// Client asks a running Doorward through its socket. Safe for concurrent use.
type Client struct {
	socket string
	http   http.Client
}

// NewClient returns a client for the socket at path. Nothing is opened yet.
func NewClient(path string) *Client {
	return &Client{socket: path, http: http.Client{
		Timeout: 5 * time.Second,
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}},
	}}
}

// ErrNotRunning says that nobody answers at the socket.
var ErrNotRunning = errors.New("no running doorward answers")

// Status asks for the status. The error is ErrNotRunning when there is nobody to ask.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://doorward/v1/status", nil)
	if err != nil {
		return s, err
	}
	res, err := c.http.Do(req)
	if err != nil {
		return s, fmt.Errorf("%w at %s: %w", ErrNotRunning, c.socket, err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return s, fmt.Errorf("ask %s: status %s", c.socket, res.Status)
	}
	if err := json.NewDecoder(res.Body).Decode(&s); err != nil {
		return s, fmt.Errorf("ask %s: %w", c.socket, err)
	}
	return s, nil
}
