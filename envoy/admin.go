package envoy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxAdminAnswer bounds what is read of one answer. A dump of 10,000 hosts is about a tenth of it.
const maxAdminAnswer = 1 << 30

// Admin is a client of an Envoy's admin interface on a Unix socket. It keeps no connection, so it outlives restarts of Envoy.
// Safe for concurrent use.
type Admin struct {
	client *http.Client
}

// NewAdmin returns a client for a socket. Envoy need not run yet.
func NewAdmin(socket string) *Admin {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Admin{client: &http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}}
}

// Ready returns when Envoy is live: it has its first configuration and its listeners are open. The error of a context that ends first
// says how far Envoy was.
func (a *Admin) Ready(ctx context.Context) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	state := "its admin interface does not answer"
	for {
		body, err := a.call(ctx, http.MethodGet, "/ready", nil)
		if err == nil {
			return nil
		}
		var status *statusError
		if errors.As(err, &status) {
			state = stateText(strings.TrimSpace(string(body)))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("envoy is not ready (%s): %w", state, context.Cause(ctx))
		}
	}
}

// stateText explains what /ready said.
func stateText(state string) string {
	switch state {
	case "PRE_INITIALIZING":
		return "it waits for its clusters from Doorward"
	case "INITIALIZING":
		return "it waits for its listeners from Doorward"
	}
	return state
}

// Stats returns the counters and gauges whose names match filter, a regular expression (RE2) that may match anywhere; "" returns all.
func (a *Admin) Stats(ctx context.Context, filter string) (map[string]uint64, error) {
	query := url.Values{}
	if filter != "" {
		query.Set("filter", filter)
	}
	body, err := a.call(ctx, http.MethodGet, "/stats", query)
	if err != nil {
		return nil, err
	}
	return parseStats(body), nil
}

// parseStats reads "name: value" lines. Lines whose value is no whole number (histograms, text) are left out.
func parseStats(body []byte) map[string]uint64 {
	stats := map[string]uint64{}
	lines := bufio.NewScanner(bytes.NewReader(body))
	for lines.Scan() {
		line := lines.Text()
		i := strings.LastIndex(line, ": ")
		if i < 0 {
			continue
		}
		if n, err := strconv.ParseUint(line[i+2:], 10, 64); err == nil {
			stats[line[:i]] = n
		}
	}
	return stats
}

// Active returns how many requests of clients are under way, WebSockets included.
func (a *Admin) Active(ctx context.Context) (uint64, error) {
	stats, err := a.Stats(ctx, `^http\..*\.downstream_rq_active$`)
	if err != nil {
		return 0, err
	}
	var active uint64
	for name, n := range stats {
		if name != "http.admin.downstream_rq_active" {
			active += n
		}
	}
	return active, nil
}

// ConfigDump returns Envoy's configuration as it is in force, as JSON. resource limits it to one field of the dump, as
// "dynamic_listeners"; "" returns all. Envoy leaves private keys out.
func (a *Admin) ConfigDump(ctx context.Context, resource string) ([]byte, error) {
	query := url.Values{}
	if resource != "" {
		query.Set("resource", resource)
	}
	return a.call(ctx, http.MethodGet, "/config_dump", query)
}

// Drain asks clients to leave: every answer from now on closes its connection (HTTP/1.1) or announces the end (HTTP/2). New connections are
// still accepted.
func (a *Admin) Drain(ctx context.Context) error {
	_, err := a.call(ctx, http.MethodPost, "/drain_listeners", url.Values{"graceful": {""}, "skip_exit": {""}})
	return err
}

// CloseListeners stops accepting connections. Open ones live on.
func (a *Admin) CloseListeners(ctx context.Context) error {
	_, err := a.call(ctx, http.MethodPost, "/drain_listeners", nil)
	return err
}

// statusError is an answer that is not 200.
type statusError struct {
	request string
	status  string
}

func (e *statusError) Error() string { return fmt.Sprintf("envoy admin: %s: %s", e.request, e.status) }

// call returns the body of a 200. For another status it returns the body with a statusError.
func (a *Admin) call(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	u := url.URL{Scheme: "http", Host: "envoy", Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %s: %w", path, err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %s: %w", path, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAdminAnswer+1))
	if err != nil {
		return nil, fmt.Errorf("envoy admin: %s: %w", path, err)
	}
	if len(body) > maxAdminAnswer {
		return nil, fmt.Errorf("envoy admin: %s: the answer is longer than %d bytes", path, maxAdminAnswer)
	}
	if resp.StatusCode != http.StatusOK {
		return body, &statusError{request: method + " " + path, status: resp.Status}
	}
	return body, nil
}
