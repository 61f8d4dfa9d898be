package authz

import (
	"fmt"
	"strings"
	"testing"

	"doorward/authz/config"
)

// TestWildcardRoute: a route of a wildcard serves each name with one label in the place of the star, and no token is another host's.
func TestWildcardRoute(t *testing.T) {
	r := routeTo(t, "grafana", "any_authenticated_user")
	var err error
	if r.From, err = config.ParseFrom("https://*.apps.example.com"); err != nil {
		t.Fatal(err)
	}
	d := newDoor(t, nil, r)
	for range 2 { // the second time what was kept
		for _, name := range []string{"one", "two", "xn--bcher-kva"} {
			a := d.ask(cookie, signedIn("alice"))
			a.host = name + ".apps.example.com"
			a.sni = a.host
			got := headerOf(d.check(a).GetOkResponse().GetHeaders(), "x-pomerium-jwt-assertion")
			if want := fmt.Sprintf("jwt iss=%s aud=%[1]s ", a.host); !strings.HasPrefix(got, want) {
				t.Errorf("%s: %s, want %s", a.host, got, want)
			}
		}
	}
	if d.minter.minted != 3 {
		t.Errorf("%d tokens minted, want one for each host", d.minter.minted)
	}
	for _, row := range []struct{ host, sni string }{
		{"one.apps.example.com", "two.apps.example.com"}, {"apps.example.com", "apps.example.com"}, {"a.b.apps.example.com", "a.b.apps.example.com"},
		{"*.apps.example.com", "*.apps.example.com"}, {".apps.example.com", ".apps.example.com"}, {"one_.apps.example.com", "one_.apps.example.com"},
		{"one.apps.example.com.evil.com", "one.apps.example.com.evil.com"}, {"oneapps.example.com", "oneapps.example.com"}, {"one.apps.example.com", ""},
		{"-.apps.example.com", "-.apps.example.com"}, {"a\x00.apps.example.com", "a\x00.apps.example.com"},
	} {
		a := d.ask(cookie, signedIn("alice"))
		a.host, a.sni = row.host, row.sni
		if got := status(d.check(a)); got != 421 {
			t.Errorf("%q over a connection for %q: %d, want 421", row.host, row.sni, got)
		}
	}
}
