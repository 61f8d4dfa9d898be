package config

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

const withAuthURL = `auth_url: https://auth.localhost
idp: {issuer: "https://idp.example.com", client_id: doorward, client_secret: secret}
routes:
  - {name: grafana, from: "https://grafana.localhost", to: "http://grafana:3000", policy: public}
`

// loaded is a configuration with its index.
func loaded(t *testing.T, text string) (*Config, *Index) {
	t.Helper()
	dir := write(t, map[string]string{"doorward.yaml": text})
	c, err := Load(filepath.Join(dir, "doorward.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return c, NewIndex(c)
}

func pushedOf(t *testing.T, text string) []Pushed {
	t.Helper()
	all, err := ParsePushed("wiki.yaml", []byte(text), "/etc/doorward")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestPushedFaults(t *testing.T) {
	_, index := loaded(t, withAuthURL)
	for _, row := range []struct{ text, want string }{
		{"routes: [{nam: x}]", `wiki.yaml:1:11: routes[0].nam: unknown key "nam"; did you mean "name"?`},
		{"", "wiki.yaml:1:1: the file is empty; if that is meant, write: routes: []"},
		{`routes: [{name: grafana, from: "https://x.localhost", to: "http://x", policy: public}]`,
			`wiki.yaml:1:17: routes[grafana].name: "grafana" is the name of the route at DIR/doorward.yaml:4:5; change it there, or give this one another name`},
		{`routes: [{name: x, from: "https://grafana.localhost", to: "http://x", policy: public}]`,
			`wiki.yaml:1:10: routes[x]: every path of grafana.localhost is matched by route "grafana" at DIR/doorward.yaml:4:5 too; give one of them another path`},
		{`routes: [{name: x, from: "https://grafana.localhost:8443", prefix: /x, to: "http://x", policy: public}]`,
			`wiki.yaml:1:26: routes[x].from: port 8443, but grafana.localhost is at port 443 at DIR/doorward.yaml:4:5; one host has one port`},
		{`routes: [{name: x, from: "https://x.example.com", to: "http://x", policy: public}]`,
			`wiki.yaml:1:26: routes[x].from: no certificate for x.example.com: add one that names it to tls.certificates, or set tls.acme to have one issued, or tls.local_ca: true to issue one from the local CA, or use a host below .localhost`},
		{`routes: [{name: x, from: "https://grafana.localhost", prefix: /x, to: "http://x", policy: public, groups: eu}]`,
			`wiki.yaml:1:107: routes[x].groups: "eu" is not one of control.groups; add it there or correct it` + "\n" +
				`wiki.yaml:1:107: routes[x].groups: are eu, but grafana.localhost has none at DIR/doorward.yaml:4:5; all routes of a host have the same groups`},
		{`routes: [{name: x, from: "https://x.localhost", to: "http://x"}]`,
			`wiki.yaml:1:10: routes[x].policy: required; name a Rego package, or one of the built-ins any_authenticated_user and public`},
	} {
		all, err := ParsePushed("wiki.yaml", []byte(row.text), "/etc/doorward")
		if err == nil {
			_, err = index.Check(all, nil)
		}
		want := strings.ReplaceAll(row.want, "DIR", filepath.Dir(index.config.Path))
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n%v\nwant\n%s", row.text, err, want)
		}
	}
}

// TestIndexAgreesWithLoad: after any sequence of changes, the index takes and refuses what a load of everything takes and refuses, and comes to
// the same routes in the same order.
func TestIndexAgreesWithLoad(t *testing.T) {
	c, index := loaded(t, withAuthURL)
	source := rand.New(rand.NewPCG(1, 2))
	kept := make(map[string]Document)
	taken, refused := 0, 0
	for range 400 {
		name := fmt.Sprintf("r%d", source.IntN(6))
		if source.IntN(10) == 0 {
			name = "grafana"
		}
		then := maps.Clone(kept)
		var put []Pushed
		var remove []string
		if source.IntN(3) == 0 {
			remove = []string{name}
			delete(then, name)
		} else {
			host := []string{"a.localhost", "b.localhost", "grafana.localhost", "auth.localhost", "c.example.com", "a.localhost:8443"}[source.IntN(6)]
			match := []string{"prefix: /a", "prefix: /b", "path: /c", "regex: /d.*", "regex: /e.*", "path: /.pomerium/x", "timeout: no"}[source.IntN(7)]
			text := fmt.Sprintf("routes: [{name: %s, from: \"https://%s\", to: \"http://x\", policy: public, %s}]", name, host, match)
			all, err := ParsePushed("x.yaml", []byte(text), "/")
			if err != nil {
				continue
			}
			put = all
			then[name] = Document{name, all[0].Text}
		}
		var documents []Document
		for _, name := range slices.Sorted(maps.Keys(then)) {
			documents = append(documents, then[name])
		}
		want, loadErr := Load(c.Path, documents...)
		step, err := index.Check(put, remove)
		if (err == nil) != (loadErr == nil) && name != "grafana" {
			t.Fatalf("put %v, remove %v: the index says %v, a load says %v", put, remove, err, loadErr)
		}
		if err != nil || loadErr != nil {
			refused++
			continue
		}
		taken++
		index.Adopt(step)
		kept = then
		if fresh := NewIndex(want); !reflect.DeepEqual(hostsOf(index), hostsOf(fresh)) {
			t.Fatalf("put %v, remove %v: the index has\n%v\na load comes to\n%v", put, remove, hostsOf(index), hostsOf(fresh))
		}
	}
	if taken < 50 || refused < 50 {
		t.Errorf("%d taken and %d refused: too few to say anything", taken, refused)
	}
}

// hostsOf are the routes of each host, in their order, by what they are.
func hostsOf(x *Index) map[string][]Route {
	out := make(map[string][]Route)
	for host, routes := range x.byHost {
		for _, r := range routes {
			one := *r
			one.Source = Position{}
			out[host] = append(out[host], one)
		}
	}
	return out
}

func TestIndexNeedsASignInHost(t *testing.T) {
	_, index := loaded(t, "routes:\n  - {name: grafana, from: \"https://grafana.localhost\", to: \"http://grafana:3000\", policy: public}\n")
	_, err := index.Check(pushedOf(t, `routes: [{name: x, from: "https://x.localhost", to: "http://x", policy: public}]`), nil)
	want := "wiki.yaml:1:26: routes[x].from: there are 2 hosts with it, so auth_url is required: name the one that signs in with the provider in " +
		index.config.Path + ", for example auth_url: https://x.localhost"
	if err == nil || err.Error() != want {
		t.Errorf("%v\nwant %s", err, want)
	}
	_, index = loaded(t, "routes: []\n")
	step, err := index.Check(pushedOf(t, `routes: [{name: x, from: "https://x.localhost", to: "http://x", policy: public}]`), nil)
	if err != nil || !step.Whole {
		t.Errorf("the first host: %+v, %v", step, err)
	}
}

func TestPushedTextIsComplete(t *testing.T) {
	all := pushedOf(t, `routes:
  - name: x # the x
    from: https://x.localhost
    to: &u [http://x, http://y]
    policy: public
    labels: {a: "1"}
    tls_custom_ca_file: ca.pem
  - {name: y, from: "https://y.localhost", to: *u, policy: public}
`)
	if all[0].Route.TLSCAFile != "/etc/doorward/ca.pem" {
		t.Errorf("a path: %s", all[0].Route.TLSCAFile)
	}
	const want = `name: y
from: "https://y.localhost"
to: ['http://x', 'http://y']
policy: public
`
	if got := string(all[1].Text); got != want {
		t.Errorf("kept as\n%s\nwant\n%s", got, want)
	}
}

// TestAliasesMakeNoMemory: little text cannot become much.
func TestAliasesMakeNoMemory(t *testing.T) {
	t.Parallel()
	const message = "has more than 1048576 bytes when each alias is written out, or all routes together have more than 67108864; push them in several parts"
	route := func(labels int) string {
		text := `&r {name: a, from: "https://a.localhost", to: "http://app:8080", policy: public, labels: {k: &a "` + strings.Repeat("x", 100_000) + `"`
		for i := range labels {
			text += fmt.Sprintf(", l%d: *a", i)
		}
		return text + "}}"
	}
	for name, row := range map[string]struct{ text, want string }{
		"a few in one route": {route(2), "<nil>"},
		"many in one route":  {route(20), "x.yaml:1:10: routes[a]: " + message},
		"many of one route":  {route(2) + strings.Repeat(", *r", 300), "x.yaml:1:101016: routes[a]: " + message},
	} {
		if _, err := ParsePushed("x.yaml", []byte("routes: ["+row.text+"]"), "/"); fmt.Sprint(err) != row.want {
			t.Errorf("%s: %.300v, want %s", name, err, row.want)
		}
	}
}
