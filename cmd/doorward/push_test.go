package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/config"
)

// pushes are planes without an Envoy, for what is pushed to them.
type pushes struct {
	*planes
	t   *testing.T
	dir string
}

const pushBase = `auth_url: https://auth.localhost
decision_log: {to: off}
idp: {issuer: "https://idp.example.com", client_id: doorward, client_secret: secret}
routes:
  - {name: fixed, from: "https://fixed.localhost", to: "http://app:8080", policy: public}
`

func newPushes(t *testing.T) *pushes {
	t.Helper()
	dir, err := os.MkdirTemp("", "dw") // the sockets' paths are short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &pushes{t: t, dir: dir}
	p.write("doorward.yaml", pushBase)
	p.write("policies/p.rego", "package p\n\nallow if input.request.headers[\"x-a\"]\n")
	p.open()
	return p
}

func (p *pushes) write(name, text string) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600)); err != nil {
		p.t.Fatal(err)
	}
}

// open starts, or starts again, with what is in the directory.
func (p *pushes) open() {
	p.t.Helper()
	if p.planes != nil {
		p.closeDecisions()
		p.store.Close()
	}
	c, err := config.Load(filepath.Join(p.dir, "doorward.yaml"))
	if err != nil {
		p.t.Fatal(err)
	}
	if p.planes, err = open(p.t.Context(), c, slog.New(slog.DiscardHandler)); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.closeDecisions(); p.store.Close() })
	if err := p.start(p.t.Context(), c); err != nil {
		p.t.Fatal(err)
	}
}

// edit writes the configuration and has it applied.
func (p *pushes) edit(text string) {
	p.t.Helper()
	p.write("doorward.yaml", text)
	c, err := p.load(filepath.Join(p.dir, "doorward.yaml"))
	if err == nil {
		err = p.apply(p.t.Context(), c)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func pushedRoute(name, more string) string {
	return fmt.Sprintf("{name: %s, from: \"https://%s.localhost\", to: \"http://app:8080\", %s}", name, name, more)
}

func (p *pushes) try(change push, routes ...string) (*pushResult, error) {
	change.Put = append(change.Put, routeDocument{File: "x.yaml", Text: []byte("routes: [" + strings.Join(routes, ", ") + "]")})
	return p.push(p.t.Context(), change)
}

func (p *pushes) must(change push, routes ...string) *pushResult {
	p.t.Helper()
	result, err := p.try(change, routes...)
	if err != nil {
		p.t.Fatal(err)
	}
	return result
}

// shows wants the routes, as name status [reason].
func (p *pushes) shows(want ...string) {
	p.t.Helper()
	var got []string
	for _, s := range p.routeStates() {
		got = append(got, strings.TrimSpace(s.Name+" "+s.Status+" "+s.Reason))
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		p.t.Errorf("the routes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (r *pushResult) says() string {
	var said []string
	for _, c := range r.Changes {
		said = append(said, c.Action+" "+c.Name)
	}
	return strings.Join(said, ", ")
}

func TestPush(t *testing.T) {
	p := newPushes(t)
	if got := p.must(push{DryRun: true}, pushedRoute("a", "policy: public")).says(); got != "create a" {
		t.Errorf("a dry run: %s", got)
	}
	p.shows("fixed served")
	p.must(push{}, pushedRoute("a", "policy: public"), pushedRoute("b", "policy: p, allow_anonymous: true"))
	p.shows("a served", "b served", "fixed served")
	if p.origin("a.localhost").IsZero() || p.authz.Current().Revision("b") == "" {
		t.Error("a pushed route is not known to both planes")
	}
	if got := p.must(push{}, pushedRoute("a", "policy: public"), pushedRoute("b", "policy: public")).says(); got != "unchanged a, update b" {
		t.Errorf("the same and another: %s", got)
	}
	p.open()
	p.shows("a served", "b served", "fixed served")
	if got := p.must(push{Prune: true}, pushedRoute("c", "policy: public")).says(); got != "delete a, delete b, create c" {
		t.Errorf("prune: %s", got)
	}
	p.shows("c served", "fixed served")
	if got := p.must(push{Delete: []string{"c"}}).says(); got != "delete c" {
		t.Errorf("delete: %s", got)
	}
	p.open()
	p.shows("fixed served")
	if !p.origin("c.localhost").IsZero() || p.authz.Current().Revision("c") != "" {
		t.Error("a route that is gone is known")
	}
}

func TestPushIsRefusedAsAWhole(t *testing.T) {
	p := newPushes(t)
	p.must(push{}, pushedRoute("a", "policy: public"))
	etag := p.must(push{DryRun: true}, pushedRoute("a", "policy: public")).Changes[0].ETag
	for _, row := range []struct {
		change push
		routes []string
		want   string
	}{
		{push{}, []string{pushedRoute("b", "policy: public"), pushedRoute("c", "policy: nobody")},
			`x.yaml:1: routes[c].policy: there is no policy "nobody"; there are: any_authenticated_user, p, public`},
		{push{}, []string{pushedRoute("b", "policy: public"), pushedRoute("b", "policy: public, prefix: /x")},
			`x.yaml:1:96: routes[b].name: "b" is the name of the route at x.yaml:1:10 too; rename one of them`},
		{push{}, []string{pushedRoute("a", "policy: public"), pushedRoute("a", "policy: public, prefix: /x")},
			`x.yaml:1:96: routes[a].name: "a" is the name of the route at x.yaml:1:10 too; rename one of them`},
		{push{Delete: []string{"fixed"}}, nil, `route "fixed" stands in ` + p.dir + `/doorward.yaml:5:5; change it there`},
		{push{Delete: []string{"none"}}, nil, `there is no such pushed route: "none"`},
		{push{Expect: map[string]string{"a": ""}}, nil, `route "a" is another one by now (its ETag is "` + etag + `"): read it again`},
		{push{Expect: map[string]string{"z": etag}}, nil, `there is no pushed route "z" any more: read it again`},
	} {
		if _, err := p.try(row.change, row.routes...); err == nil || err.Error() != row.want {
			t.Errorf("%v %v:\n%v\nwant\n%s", row.change, row.routes, err, row.want)
		}
	}
	p.shows("a served", "fixed served")
	p.must(push{Expect: map[string]string{"a": etag, "b": ""}}, pushedRoute("b", "policy: public"))
	p.open()
	p.shows("a served", "b served", "fixed served")
}

// TestPushedRoutesThatDoNotFit: a route that the files have no place for any more is set aside with its reason; the others are served, and it is
// too once it fits again.
func TestPushedRoutesThatDoNotFit(t *testing.T) {
	p := newPushes(t)
	p.must(push{}, pushedRoute("a", "policy: public"), pushedRoute("b", "policy: p, allow_anonymous: true"), pushedRoute("c", "policy: public"))
	p.write("doorward.yaml", pushBase+"  - {name: c, from: \"https://other.localhost\", to: \"http://app:8080\", policy: public}\n")
	p.write("policies/p.rego", "package q\n\nallow := true\n")
	p.open()
	p.shows("a served", `b rejected pushed route b:1: routes[b].policy: there is no policy "p"; there are: any_authenticated_user, public, q`,
		`c rejected pushed route c:1:7: routes[c].name: "c" is the name of the route at `+p.dir+`/doorward.yaml:6:5; change it there, or give this one another name`,
		"c served", "fixed served")
	noPolicy := `b rejected pushed route b:1: routes[b].policy: there is no policy "p"; there are: any_authenticated_user, public, q`
	p.edit(pushBase) // c fits again, and b, which does not, keeps it from nothing
	p.shows("a served", noPolicy, "c served", "fixed served")
	p.write("policies/p.rego", "package p\n\nallow := true\n")
	p.edit(pushBase)
	p.shows("a served", "b served", "c served", "fixed served")
	p.must(push{Delete: []string{"c"}})
	p.shows("a served", "b served", "fixed served")
}

// TestOnePushedRouteThatDoesNotFit: it takes nothing from the others, not even for a moment, and can be removed.
func TestOnePushedRouteThatDoesNotFit(t *testing.T) {
	p := newPushes(t)
	wildcard := `{name: b, from: "https://*.apps.localhost", to: "http://app:8080", policy: public}`
	p.must(push{}, pushedRoute("a", "policy: public"), wildcard, pushedRoute("c", "policy: public"), pushedRoute("d", "policy: p, allow_anonymous: true"))
	p.write("doorward.yaml", pushBase+"  - {name: c, from: \"https://other.localhost\", to: \"http://app:8080\", policy: public}\n")
	p.write("policies/p.rego", "package q\n\nallow := true\n")
	p.open()
	want := []string{
		"a served", "b served",
		`c rejected pushed route c:1:7: routes[c].name: "c" is the name of the route at ` + p.dir + `/doorward.yaml:6:5; change it there, or give this one another name`,
		"c served",
		`d rejected pushed route d:1: routes[d].policy: there is no policy "p"; there are: any_authenticated_user, public, q`,
		"fixed served",
	}
	p.shows(want...)
	if n := len(p.loaded.Routes); n != 4 {
		t.Errorf("the first configuration that is served has %d routes, want those of the file and the pushed ones that fit", n)
	}
	for name, k := range p.kept { // as if it were not known which do not fit
		k.aside = ""
		p.kept[name] = k
	}
	p.restore(t.Context())
	p.shows(want...)
	p.must(push{Prune: true}, pushedRoute("a", "policy: public"))
	p.shows("a served", "c served", "fixed served")
	p.open()
	p.shows("a served", "c served", "fixed served")
	if p.kept["c"].text != nil {
		t.Error("a route that was removed is kept")
	}
}

// TestFilesOfPushedRoutes: what a pushed route names is looked at from the push on.
func TestFilesOfPushedRoutes(t *testing.T) {
	p := newPushes(t)
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	t.Cleanup(group.Wait) // before the store is closed
	t.Cleanup(cancel)
	group.Go(func() { _ = p.watch(ctx, p.loaded) })
	ca, err := os.ReadFile(filepath.Join(p.dir, "data/ca/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	named := filepath.Join(t.TempDir(), "upstream.pem")
	name := func(text string) {
		if err := os.WriteFile(named, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	name(string(ca))
	time.Sleep(5 * pollEvery) // until the files of the start have been looked at
	p.must(push{}, `{name: a, from: "https://a.localhost", to: "https://app:8443", policy: public, tls_custom_ca_file: `+named+`}`)
	revision := p.authz.Current().Revision("a")
	time.Sleep(5 * pollEvery)
	name(string(ca) + "\n")
	for end := time.Now().Add(10 * time.Second); p.authz.Current().Revision("a") == revision; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("another file is not noticed")
		}
	}
}
