package main

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/xds"
)

// weakRoute has an upstream that only Envoy refuses: the client's certificate is too weak for it.
func (f *fleet) weakRoute(t *testing.T, name string) string {
	certFile, keyFile := writeWeakPair(t, f.dir, "up")
	return strings.TrimSuffix(f.route(name, "https://up"), "}") + ", tls_client_cert_file: " + certFile + ", tls_client_key_file: " + keyFile + "}"
}

// TestOneBadRouteAmongAThousand: a fresh Envoy that is given one route that it refuses serves the 999 others, and says which one it was. A route
// that was good and becomes bad stays as it was.
func TestOneBadRouteAmongAThousand(t *testing.T) {
	const many = 1000
	f := newFleet(t, externalParts(t))
	up := speaker(t, "up")
	routes := make([]string, many)
	for i := range routes {
		routes[i] = f.route(fmt.Sprint("h", i), up)
	}
	routes[500] = f.weakRoute(t, "h500")
	if _, err := f.apply("", nil, routes...); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	f.startEnvoy()
	step := 1
	if raceEnabled {
		step = 9 // the last one is among them
	}
	for i := 0; i < many; i += step {
		if i != 500 {
			f.says(fmt.Sprint("h", i), "up", time.Minute)
		}
		if i == 0 || i == many-1 {
			t.Logf("h%d is served after %v", i, time.Since(begun).Round(time.Millisecond))
		}
	}
	if took := time.Since(begun); took > 5*time.Second && !raceEnabled {
		t.Errorf("999 hosts have answered after %v, want 5 s", took)
	}
	if status, _, err := f.ask("h500"); err == nil && status == 200 {
		t.Error("the bad route is served")
	}
	f.isRejected("h500", "CDS")

	f.mustApply(nil, f.route("h500", up), f.route("h7", speaker(t, "seven"))) // an upstream that no other route has
	f.says("h500", "up", 5*time.Second)
	f.says("h7", "seven", 5*time.Second)
	answer, err := f.apply("wait=10s", nil, f.weakRoute(t, "h7"), f.route("h8", speaker(t, "other")))
	if err != nil || len(answer.Envoys) != 1 || answer.Envoys[0].State != xds.Rejected {
		t.Fatalf("%+v, %v", answer, err)
	}
	f.says("h8", "other", 5*time.Second)
	time.Sleep(300 * time.Millisecond) // for what would be taken away
	if status, body, err := f.ask("h7"); status != 200 || body != "seven" {
		t.Errorf("a route that became bad answers %d %q, %v", status, body, err)
	}
	f.isRejected("h7", "CDS", "RDS")
}

// isRejected fails the test unless one route is shown as rejected, and the one Envoy rejects its upstream and, where it keeps others, its routes, with
// Envoy's words.
func (f *fleet) isRejected(name string, types ...string) {
	f.Helper()
	var all struct{ Routes []routeState }
	var envoys struct{ Envoys []xds.Envoy }
	if err := f.admin.Get(f.Context(), routesPath, nil, &all); err != nil {
		f.Fatal(err)
	}
	if err := f.admin.Get(f.Context(), "/v1/envoys", nil, &envoys); err != nil {
		f.Fatal(err)
	}
	for _, r := range all.Routes {
		if (r.Status == routeRejected) != (r.Name == name) || r.Name == name && !strings.Contains(r.Reason, "only RSA certificates with 2048-bit") {
			f.Errorf("route %q is %s: %s", r.Name, r.Status, r.Reason)
		}
	}
	var rejected []string
	for _, r := range envoys.Envoys[0].Rejected {
		if !strings.Contains(r.Message, "only RSA certificates with 2048-bit") {
			f.Errorf("rejected with %q", r.Message)
		}
		rejected = append(rejected, r.Type)
	}
	if !slices.Equal(rejected, types) {
		f.Errorf("rejected are %q, want %q", rejected, types)
	}
}
