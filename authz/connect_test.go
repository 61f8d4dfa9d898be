package authz

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/stream"
)

// serviceAt is a route to a TCP service at the tests' host.
func serviceAt(t *testing.T, policyName string) config.Route {
	t.Helper()
	from, err := config.ParseFrom("tcp+https://" + host + ":5432")
	if err != nil {
		t.Fatal(err)
	}
	return config.Route{Name: "db", From: from, Policy: policyName, Unauthenticated: config.Login}
}

// connect is a CONNECT to the service as Envoy puts it: without a path.
func (d *door) connect(headers ...string) ask {
	a := d.ask(headers...)
	a.route, a.revision, a.method, a.path = "db", d.g.Revision("db"), "CONNECT", ""
	return a
}

func TestConnect(t *testing.T) {
	d := newDoor(t, map[string]string{"p.rego": rego + "\ndeny contains \"only CONNECT\" if input.request.method != \"CONNECT\"\n\ndeny contains \"a path\" if input.request.path != \"\"\n"},
		serviceAt(t, "grafana"), routeTo(t, "grafana", "any_authenticated_user"))
	for name, c := range map[string]struct {
		ask    ask
		status int
	}{
		"a program that alice let":                  {d.connect(cookie, signedIn("alice-at-service")), 200},
		"one that bob let, whom the policy denies":  {d.connect(cookie, signedIn("bob-at-service")), 403},
		"alice's cookie of the host's pages":        {d.connect(cookie, signedIn("alice")), 401},
		"a stranger":                                {d.connect(), 401},
		"a stranger's navigation":                   {d.connect(navigation...), 401},
		"a program's credential at the host's page": {d.ask(cookie, signedIn("alice-at-service")), 401},
		"an unanswered store":                       {d.connect(cookie, signedIn("broken")), 503},
	} {
		if got := status(d.check(c.ask)); got != c.status {
			t.Errorf("%s: status %d, want %d", name, got, c.status)
		}
	}
	for name, change := range map[string]func(a *ask){
		"GET by the service's route":          func(a *ask) { a.method, a.path = "GET", "/" },
		"GET without a path":                  func(a *ask) { a.method = "GET" },
		"CONNECT with half a path":            func(a *ask) { a.path = "x" },
		"CONNECT by the page's route":         func(a *ask) { a.route, a.revision = "grafana", d.g.Revision("grafana") },
		"another TLS server name":             func(a *ask) { a.sni = "wiki.example.com" },
		"another host":                        func(a *ask) { a.host = "wiki.example.com:5432" },
		"another host, in the handshake, too": func(a *ask) { a.host, a.sni = "wiki.example.com", "wiki.example.com" },
	} {
		a := d.connect(cookie, signedIn("alice-at-service"))
		change(&a)
		if got := status(d.check(a)); got != 421 && got != 400 {
			t.Errorf("%s: status %d, want 421 or 400", name, got)
		}
	}
	if d.minter.minted != 0 {
		t.Errorf("%d tokens were minted, and a TCP service gets none", d.minter.minted)
	}
}

func TestConnectTellsWhereToSignIn(t *testing.T) {
	recent := serviceAt(t, "any_authenticated_user")
	recent.MaxAge, recent.IDP = config.Duration(time.Hour), config.Names{"main"}
	never := serviceAt(t, "any_authenticated_user")
	never.Unauthenticated = config.Unauthorized
	for name, c := range map[string]struct {
		route  config.Route
		signIn string
	}{
		"any sign-in":   {serviceAt(t, "any_authenticated_user"), "https://" + host + "/.pomerium/cli"},
		"one with":      {recent, "https://" + host + "/.pomerium/cli?idp=main&max_age=3600"},
		"programs only": {never, ""},
	} {
		d := newDoor(t, nil, c.route)
		response := d.check(d.connect(navigation...)).GetDeniedResponse()
		var body struct {
			Error  string `json:"error"`
			SignIn string `json:"sign_in"`
		}
		if err := json.Unmarshal([]byte(response.GetBody()), &body); err != nil || body.Error != "unauthenticated" || body.SignIn != c.signIn {
			t.Errorf("%s: %v, %s", name, err, response.GetBody())
		}
		if h := headerOf(response.GetHeaders(), "location"); h != "" {
			t.Errorf("%s: redirected to %s", name, h)
		}
	}
}

// TestConnectIsWatched: what is open ends with the session.
func TestConnectIsWatched(t *testing.T) {
	d := newDoor(t, nil, serviceAt(t, "any_authenticated_user"))
	response := d.check(d.connect(cookie, signedIn("alice-at-service")))
	ticket := response.GetDynamicMetadata().GetFields()[stream.Key].GetStringValue()
	if ticket != "ticket of alice" {
		t.Errorf("the ticket is %q", ticket)
	}
	d = newDoor(t, nil, serviceAt(t, "public"))
	ticket = d.check(d.connect()).GetDynamicMetadata().GetFields()[stream.Key].GetStringValue()
	if ticket != stream.Nobody {
		t.Errorf("the ticket of a stranger is %q", ticket)
	}
}

// TestConnectDenialSaysWhy to a program, whatever its headers say.
func TestConnectDenialSaysWhy(t *testing.T) {
	d := newDoor(t, map[string]string{"p.rego": rego}, serviceAt(t, "grafana"))
	response := d.check(d.connect(append([]string{cookie, signedIn("leaver-at-service")}, navigation...)...)).GetDeniedResponse()
	if body := response.GetBody(); !strings.HasPrefix(body, `{"error":"denied","message":"you are on leave","decision_id":"`) {
		t.Errorf("got %s", body)
	}
}
