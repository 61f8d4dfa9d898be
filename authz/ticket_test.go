package authz

import (
	"encoding/json"
	"testing"
)

// TestTickets: who ends open streams learns whose a request is where Envoy asks it, and from nowhere else.
func TestTickets(t *testing.T) {
	const upgrade = "upgrade"
	for _, row := range []struct {
		name               string
		websockets, stream bool
		policy             string
		headers            []string
		status             int
		metadata           string
	}{
		{"an ordinary route", false, false, "grafana", []string{cookie, signedIn("alice")}, 200, `{}`},
		{"an upgrade on it, which Envoy refuses", false, false, "grafana", []string{cookie, signedIn("alice"), upgrade, "websocket"}, 200, `{}`},
		{"a WebSocket", true, false, "grafana", []string{cookie, signedIn("alice"), upgrade, "websocket"}, 200, `{"doorward":"ticket of alice"}`},
		{"an ordinary request of its route", true, false, "grafana", []string{cookie, signedIn("alice")}, 200, `{}`},
		{"streams", false, true, "grafana", []string{cookie, signedIn("alice")}, 200, `{"doorward":"ticket of alice"}`},
		{"a WebSocket of somebody denied", true, true, "grafana", []string{cookie, signedIn("bob"), upgrade, "websocket"}, 403, `{}`},
		{"a WebSocket of a stranger", true, true, "grafana", []string{upgrade, "websocket"}, 401, `{}`},
		{"a public one", true, false, "public", []string{upgrade, "websocket"}, 200, `{"doorward":"nobody"}`},
		{"a public one, opened with a session", true, false, "public", []string{cookie, signedIn("bob"), upgrade, "websocket"}, 200, `{"doorward":"ticket of bob"}`},
		{"beside the policy's own metadata", false, true, "tier", []string{cookie, signedIn("alice")}, 200, `{"doorward":"ticket of alice","doorward.log":{"tier":"free"},"tier":"free"}`},
		{"a policy that says whose it is", false, true, "forger", []string{cookie, signedIn("alice")}, 403, `{}`},
	} {
		t.Run(row.name, func(t *testing.T) {
			r := routeTo(t, "grafana", row.policy)
			r.AllowWebsockets, r.Streams = row.websockets, row.stream
			d := newDoor(t, map[string]string{
				"grafana.rego": rego,
				"tier.rego":    "package tier\n\nallow := true\n\nmetadata := {\"tier\": \"free\"}\n",
				"forger.rego":  "package forger\n\nallow := true\n\nmetadata := {lower(\"DOORWARD\"): \"nobody\"}\n",
			}, r)
			for range 2 { // the second is decided from what is kept of the first
				response := d.check(d.ask(row.headers...))
				if got := status(response); got != row.status {
					t.Fatalf("status %d, want %d", got, row.status)
				}
				got, err := json.Marshal(response.GetDynamicMetadata().AsMap())
				if err != nil || string(got) != row.metadata {
					t.Errorf("metadata %s, want %s", got, row.metadata)
				}
			}
		})
	}
}
