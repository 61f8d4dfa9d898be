package main

import (
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"doorward/authz/config"
)

// The metrics of real planes that have decided one request that cannot be understood.
func TestMetrics(t *testing.T) {
	dir, err := os.MkdirTemp("", "dw") // sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := "decision_log: {to: /dev/null}\nroutes:\n  - {name: app, from: \"https://app.localhost\", to: \"http://app:8080\", policy: public}\n"
	if err := os.WriteFile(filepath.Join(dir, "doorward.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(filepath.Join(dir, "doorward.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := open(t.Context(), c, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.store.Close() })
	change, err := p.prepare(t.Context(), c, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.authz.Adopt(change.generation)
	p.certificates = change.certificates
	p.authz.Check(t.Context(), "")
	p.closeDecisions()
	answer := httptest.NewRecorder()
	p.metrics().ServeHTTP(answer, httptest.NewRequest("GET", "/metrics", nil))
	body, _ := io.ReadAll(answer.Body)
	for _, line := range []string{
		`doorward_build_info{version="devel"} 1`,
		`doorward_routes 1`,
		`doorward_decisions_total{outcome="malformed",route=""} 1`,
		`doorward_decision_seconds_bucket{le="+Inf"} 1`,
		`doorward_decision_seconds_count 1`,
		`doorward_decision_log_records_total{result="dropped"} 0`,
		`doorward_decision_log_records_total{result="written"} 1`,
		`doorward_decision_cache_requests_total{result="hit"} 0`,
		`doorward_decision_cache_entries 0`,
		`doorward_policy_cache_requests_total{policy="public",result="miss"} 0`,
		`doorward_identity_tokens_total{result="reused"} 0`,
		`doorward_streams_open 0`,
		`doorward_envoys_connected 0`,
		`doorward_certificates{source="local_ca"} 1`,
		`doorward_certificate_problems 0`,
	} {
		if !strings.Contains("\n"+string(body), "\n"+line+"\n") {
			t.Errorf("there is no line %s", line)
		}
	}
	if answer.Code != 200 || !strings.Contains(string(body), "\ngo_goroutines ") || !strings.Contains(string(body), "\n"+`doorward_certificate_expiry_seconds{source="local_ca"} 7.77`) || t.Failed() {
		t.Errorf("status %d:\n%s", answer.Code, body)
	}
}
