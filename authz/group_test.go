package authz

import (
	"context"
	"strings"
	"testing"

	"doorward/authz/config"
)

// TestRoutesOfAGroup: an Envoy on another machine is answered about the routes of its group alone; one on this machine is trusted.
func TestRoutesOfAGroup(t *testing.T) {
	limited := routeTo(t, "grafana", "grafana")
	limited.Groups = config.Names{"eu", "us"}
	d := newDoor(t, map[string]string{"grafana.rego": rego}, limited)
	for _, row := range []struct {
		name, group string
		remote      bool
		want        int
	}{
		{"on this machine", "", false, 200},
		{"of a group of the route", "us", true, 200},
		{"of another group", "mars", true, 503},
		{"of no group", "", true, 503},
	} {
		d.Caller = func(context.Context) (string, bool) { return row.group, row.remote }
		if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != row.want {
			t.Errorf("%s: %d, want %d", row.name, got, row.want)
		}
	}
	if !strings.Contains(d.log.String(), "the route is for other groups of Envoys than the one that asks") {
		t.Error("the log does not say why")
	}
	d.adopt(map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	d.Caller = func(context.Context) (string, bool) {
		t.Error("a route for all asks who calls")
		return "", true
	}
	if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 200 {
		t.Errorf("a route for all: %d", got)
	}
}
