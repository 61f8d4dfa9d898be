package config

import (
	"testing"
	"time"
)

// TestServiceIsAtTheEdgesPort: the port in a service's `from` is a name.
func TestServiceIsAtTheEdgesPort(t *testing.T) {
	const idp = "idp: {issuer: https://id.example.com, client_id: doorward}\n"
	const db = `  - {name: db, from: "TCP+https://DB.localhost:5432", to: "tcp://db:5432", policy: any_authenticated_user}` + "\n"
	for name, c := range map[string]struct{ text, origin, auth string }{
		"alone":                           {"routes:\n" + db, "https://db.localhost", "https://db.localhost"},
		"with a sign-in host":             {"auth_url: https://auth.localhost:8443\nroutes:\n" + db, "https://db.localhost:8443", "https://auth.localhost:8443"},
		"that is itself the sign-in host": {"auth_url: https://db.localhost:8443\nroutes:\n" + db, "https://db.localhost:8443", "https://db.localhost:8443"},
		"beside an application": {"routes:\n" + db + `  - {name: app, from: "https://db.localhost:8443", to: "http://app", policy: public}` + "\n",
			"https://db.localhost:8443", "https://db.localhost:8443"},
	} {
		c2 := mustLoad(t, write(t, map[string]string{"doorward.yaml": idp + c.text}))
		r := c2.Routes[0]
		if got := c2.Hosts()["db.localhost"]; got.String() != c.origin || c2.AuthURL.Origin() != c.auth {
			t.Errorf("%s: at %s with sign-in at %s, want %s and %s", name, got, c2.AuthURL, c.origin, c.auth)
		}
		if !r.TCP() || r.From.Service() != 5432 || r.Host() != "db.localhost" || r.From.String() != "TCP+https://DB.localhost:5432" {
			t.Errorf("%s: %v, service %d at %s", name, r.From, r.From.Service(), r.Host())
		}
		if r.PassIdentity() || time.Duration(*r.IdleTimeout) != time.Hour || r.Matches() != "CONNECT" || r.Leads() != "tcp://db:5432" {
			t.Errorf("%s: %v, idle %s, matches %s, leads to %s", name, r.PassIdentity(), r.IdleTimeout, r.Matches(), r.Leads())
		}
	}
}

// TestPushedServiceIsAtTheEdgesPort as one of a file is.
func TestPushedServiceIsAtTheEdgesPort(t *testing.T) {
	c := mustLoad(t, write(t, map[string]string{"doorward.yaml": `
idp: {issuer: https://id.example.com, client_id: doorward}
auth_url: https://auth.localhost:8443
routes: []
`}))
	x := NewIndex(c)
	put, err := ParsePushed("db.yaml", []byte(`routes: [{name: db, from: "tcp+https://db.localhost:5432", to: "tcp://db:5432", policy: any_authenticated_user}]`), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	step, err := x.Check(put, nil)
	if err != nil {
		t.Fatal(err)
	}
	if x.Service("db.localhost") {
		t.Error("the host has a service before the change is adopted")
	}
	x.Adopt(step)
	if got := x.Origin("db.localhost"); !x.Service("db.localhost") || x.Service("auth.localhost") || got.Origin() != "https://db.localhost:8443" {
		t.Errorf("service %v at %s", x.Service("db.localhost"), got)
	}
}
