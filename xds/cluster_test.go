package xds

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
)

// TestUpstreamNames: two upstreams have one name if, and but for defaults that are written out only if, their clusters are the same.
func TestUpstreamNames(t *testing.T) {
	cert, key := absolute(t, filepath.Join("testdata", "in", "cert.pem")), absolute(t, filepath.Join("testdata", "in", "key.pem"))
	rows := []string{
		`to: "http://a"`, `to: "http://a:81"`, `to: "https://a:80"`, `to: "h2c://a"`, `to: "http://b"`, `to: "https://a"`,
		`to: "https://a", allow_websockets: true`, `to: "https://a", tls_skip_verify: true`, `to: "https://a", tls_server_name: b.example.com`,
		`to: "https://a", tls_custom_ca_file: ` + cert, `to: "https://a", tls_client_cert_file: ` + cert + `, tls_client_key_file: ` + key,
		`to: "http://a", load_balancing: random`, `to: "http://a", load_balancing: maglev, hash_on: {client_ip: true}`,
		`to: ["http://a", "http://b"], load_balancing: random`, `to: ["http://b", "http://a"], load_balancing: random`,
		`to: [{url: "http://a", weight: 2}, "http://b"], load_balancing: random`, `to: ["http://a", "http://b", "http://c"], load_balancing: random`,
		`to: ["https://a", "https://b"], load_balancing: random`, `to: ["https://a", "https://b"], load_balancing: random, tls_server_name: a.example.com`,
		`to: "http://a", retry: {}`, `to: "http://a", retry: {}, circuit_breaker: {max_requests: 1}`, `to: "http://a", circuit_breaker: {max_retries: 3}`,
		`to: "http://a", circuit_breaker: {max_requests: 1}`, `to: "http://a", circuit_breaker: {max_connections: 1}`,
		`to: "http://a", circuit_breaker: {max_pending_requests: 1}`,
		`to: "http://a", health_check: {path: /a}`, `to: "http://a", health_check: {path: /b}`, `to: "http://a", health_check: {path: /a, interval: 1s}`,
		`to: "http://a", health_check: {path: /a, timeout: 100ms}`, `to: "http://a", health_check: {path: /a, healthy_threshold: 1}`,
		`to: "http://a", health_check: {path: /a, unhealthy_threshold: 1}`, `to: "http://a", health_check: {path: /a, expected_statuses: [204]}`,
		`to: "http://a", health_check: {path: /a}, host_rewrite: b`, `to: "http://a", health_check: {path: /a}, preserve_host_header: true`,
		`to: "h2c://a", health_check: {grpc_service: ""}`, `to: "h2c://a", health_check: {grpc_service: a}`, `to: "h2c://a", health_check: {path: /a}`,
		`to: "http://a", outlier_detection: {}`, `to: "http://a", outlier_detection: {consecutive_5xx: 1}`, `to: "http://a", outlier_detection: {interval: 1s}`,
		`to: "http://a", outlier_detection: {base_ejection_time: 1s}`, `to: "http://a", outlier_detection: {max_ejection_percent: 1}`,
		// The same as others, said in another way or of what is not the cluster's.
		`to: "http://A:80/"`, `to: "http://a", timeout: 1s, host_rewrite: b`, `to: "http://a", retry: {on: [5xx]}`,
		`to: "http://a", load_balancing: maglev, hash_on: {header: X-Tenant}`, `to: "http://a", mirror: [{to: "http://b"}]`,
	}
	var routes strings.Builder
	for i, row := range rows {
		fmt.Fprintf(&routes, "  - {name: r%d, from: \"https://a.example.com\", prefix: /%[1]d, policy: public, %s}\n", i, row)
	}
	c := configOf(t, routes.String())
	type made struct {
		row  string
		text []byte // of the cluster, without its name
	}
	byName, byText := make(map[string]made), make(map[string]string)
	for i, r := range c.Routes {
		to, err := destinationOf(r)
		if err != nil || len(to.targets) != 1 {
			t.Fatalf("%s: %d targets, %v", rows[i], len(to.targets), err)
		}
		cluster, err := to.targets[0].cluster()
		if err != nil {
			t.Fatal(err)
		}
		name := cluster.Name
		cluster.Name, cluster.LoadAssignment.ClusterName = "", ""
		text, err := proto.MarshalOptions{Deterministic: true}.Marshal(cluster)
		if err != nil {
			t.Fatal(err)
		}
		if other, taken := byName[name]; taken && string(other.text) != string(text) {
			t.Errorf("two upstreams are called %s: %s, and %s", name, other.row, rows[i])
		}
		if other, taken := byText[string(text)]; taken && other != name {
			t.Errorf("%s: the same upstream is called %s and %s", rows[i], other, name)
		}
		byName[name], byText[string(text)] = made{rows[i], text}, name
	}
	if same := len(rows) - len(byName); same != 5 {
		t.Errorf("%d upstreams of %d rows, want 5 less", len(byName), len(rows))
	}
}
