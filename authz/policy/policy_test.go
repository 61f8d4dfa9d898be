package policy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
)

// loadSource loads one policy file with the library.
func loadSource(t testing.TB, text string) (*Set, config.Problems) {
	t.Helper()
	set, problems := load(t.Context(), corpusOf(t, nil, source{file: "p.rego", text: text}), 10*time.Second)
	return set, sorted(problems)
}

// saidOfAlice is what a policy p says of alice. One that is refused when it is loaded says what it is refused for: what is written out needs no request
// to be read.
func saidOfAlice(t testing.TB, text string) Decision {
	t.Helper()
	if _, problems := loadSource(t, "package p\n"+text); len(problems) > 0 {
		return Decision{Err: fmt.Errorf("policy p: %s", problems[0].Message)}
	}
	return compilePackage(t, text).Decide(t.Context(), alice())
}

// corpusOf is the library with some files and documents, which have no files.
func corpusOf(t testing.TB, data map[string]any, sources ...source) *corpus {
	t.Helper()
	r := newReader(false)
	r.library()
	if problems := r.documents.merge(dataFile{name: "data.json", value: data}); len(problems) > 0 {
		t.Fatal(problems)
	}
	if err := r.documents.seal(); err != nil {
		t.Fatal(err)
	}
	r.sources = append(r.sources, sources...)
	return &r.corpus
}

func loadText(t testing.TB, text string) *Set {
	t.Helper()
	s, problems := loadSource(t, text)
	if len(problems) > 0 {
		t.Fatalf("%v\n%s", problems, text)
	}
	return s
}

// compilePackage loads "package p" and the text, and returns the policy p.
func compilePackage(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := loadText(t, "package p\n"+text).Policy("p")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// alice asks for a page of Grafana.
func alice() *Input {
	return withHeaders(&Input{
		User: &User{
			ID: "alice-id", Email: "alice@example.com", EmailVerified: true, Name: "Alice",
			Groups: []string{"engineering", "grafana-admins"},
			Claims: map[string]any{"department": "tools", "level": 3.0, "teams": []any{"a", "b"}},
		},
		Session: &Session{ID: "5e5510", Created: 1000, Expires: 2000, AuthTime: 1500, AMR: []string{"pwd", "otp"}, ACR: "silver", Version: 1},
		Request: Request{Method: "GET", Scheme: "https", Host: "grafana.example.com", Path: "/d/x", Query: "org=1&var=a&var=b%20c&flag", ClientIP: "192.0.2.7"},
		Route:   Route{Name: "grafana", Host: "grafana.example.com", Labels: map[string]string{"team": "tools"}, Revision: "r1"},
	}, map[string]string{"x-team": "tools", "accept": "text/html"})
}

// stranger asks for the same without a session.
func stranger() *Input {
	in := alice()
	in.User, in.Session = nil, nil
	return in
}

func withHeaders(in *Input, headers map[string]string) *Input {
	in.Request.Headers = func(name string) (string, bool) { v, ok := headers[name]; return v, ok }
	in.Request.Names = func() []string { return slices.Sorted(maps.Keys(headers)) }
	return in
}

func TestAllow(t *testing.T) {
	for _, row := range []struct {
		rego  string
		allow bool
	}{
		{`allow := true`, true},
		{`allow := false`, false},
		{`allow if false`, false},
		{`allow if input.user.name == "Alice"`, true},
		{`allow if input.user.name == "Bob"`, false},
		{`default allow := true`, true},
		{`allow := true
		  deny contains "no" if input.user.name == "Alice"`, false},
		{`allow := true
		  deny contains "no" if input.user.name == "Bob"`, true},
		{`deny contains "no" if input.user.name == "Bob"
		  allow if count(deny) == 0`, true},
		{`allow if helper
		  helper if input.user.email == "alice@example.com"
		  broken := 1 / input.session.created
		  worse := to_number(input.user.name)`, true}, // rules that nothing needs are not evaluated
	} {
		d := compilePackage(t, row.rego).Decide(t.Context(), alice())
		if d.Err != nil || d.Allow != row.allow {
			t.Errorf("%s\ngot %t, error %v", row.rego, d.Allow, d.Err)
		}
	}
}

func TestBuiltInPolicies(t *testing.T) {
	s := loadText(t, "package p\nallow := true")
	for _, row := range []struct {
		name            string
		alice, stranger bool
	}{
		{"public", true, true},
		{"any_authenticated_user", true, false},
	} {
		p, err := s.Policy(row.name)
		if err != nil {
			t.Fatal(err)
		}
		if p.Name() != row.name || len(p.Digest()) != 64 {
			t.Errorf("%s: name %q, digest %q", row.name, p.Name(), p.Digest())
		}
		if got := p.Decide(t.Context(), alice()); got.Allow != row.alice || got.Err != nil {
			t.Errorf("%s lets alice: %+v", row.name, got)
		}
		if got := p.Decide(t.Context(), stranger()); got.Allow != row.stranger || got.Err != nil {
			t.Errorf("%s lets a stranger: %+v", row.name, got)
		}
	}
}

// TestNegationsAndStrangers shows why no rule runs without a session: each of these says yes to a stranger, because input.user is undefined. What
// keeps strangers out is the caller, which does not ask.
func TestNegationsAndStrangers(t *testing.T) {
	for _, rego := range []string{
		`allow if not blocked
		 blocked if input.user.name == "Bob"`,
		`allow if count({g | some g in input.user.groups; g == "blocked"}) == 0`,
		`allow if object.get(input, ["user", "name"], "") != "Bob"`,
		`default allow := true
		 allow := false if input.user.name == "Bob"`,
	} {
		p := compilePackage(t, rego)
		if d := p.Decide(t.Context(), stranger()); !d.Allow {
			t.Errorf("a stranger is kept out, so the row shows nothing: %s", rego)
		}
		in := alice()
		in.User.Name, in.User.Groups = "Bob", []string{"blocked"}
		if d := p.Decide(t.Context(), in); d.Allow || d.Err != nil {
			t.Errorf("Bob gets in, error %v: %s", d.Err, rego)
		}
	}
}

func TestStrangerIsUndefined(t *testing.T) {
	p := compilePackage(t, `allow if not input.user
		deny contains "session" if input.session`)
	if d := p.Decide(t.Context(), stranger()); !d.Allow {
		t.Errorf("input.user or input.session is there: %+v", d)
	}
	if d := p.Decide(t.Context(), alice()); d.Allow || len(d.Reasons) != 1 {
		t.Errorf("input.user or input.session is missing: %+v", d)
	}
}

func TestDeny(t *testing.T) {
	long := strings.Repeat("é", 300)
	for _, row := range []struct {
		rego string
		want []string
	}{
		{`deny contains "b"
		  deny contains "a"`, []string{"a", "b"}},
		{`deny contains sprintf("not %s", [input.user.name])`, []string{"not Alice"}},
		{`deny contains "two\nlines\u0000\u202e"`, []string{"two lines  "}},
		{`deny contains "` + long + `"`, []string{long[:512]}},
		{`deny contains "x` + long + `"`, []string{"x" + long[:510]}},
		{`deny := set()`, nil},
		{`deny contains "no" if false`, nil},
		{`deny contains sprintf("%03d", [n]) if some n in numbers.range(1, 100)`, strings.Fields(
			"001 002 003 004 005 006 007 008 009 010 011 012 013 014 015 016")},
	} {
		d := compilePackage(t, "allow := true\n"+row.rego).Decide(t.Context(), alice())
		if d.Err != nil || !slices.Equal(d.Reasons, row.want) || d.Allow != (row.want == nil) {
			t.Errorf("%s\ngot %+v", row.rego, d)
		}
	}
}

func TestPolicyByName(t *testing.T) {
	s := loadText(t, `package acme.grafana
		allow := true`)
	for _, row := range []struct{ name, want string }{
		{"acme.grafana", ""},
		{"acme.grafan", `there is no policy "acme.grafan"; there are: acme.grafana, any_authenticated_user, public; did you mean acme.grafana?`},
		{"acme", "package acme has no rule `allow`, so it is no policy; there are: acme.grafana, any_authenticated_user, public"},
		{"doorward.user", "package doorward.user has no rule `allow`, so it is no policy; there are: acme.grafana, any_authenticated_user, public"},
		{"pubic", `there is no policy "pubic"; there are: acme.grafana, any_authenticated_user, public; did you mean public?`},
		{"", `there is no policy ""; there are: acme.grafana, any_authenticated_user, public`},
	} {
		_, err := s.Policy(row.name)
		if got := errorText(err); got != row.want {
			t.Errorf("%q:\ngot  %s\nwant %s", row.name, got, row.want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestDigestNamesAllThatDecides(t *testing.T) {
	digest := func(texts ...string) string {
		var sources []source
		for _, text := range texts {
			sources = append(sources, source{file: text, text: text})
		}
		s, problems := load(t.Context(), corpusOf(t, nil, sources...), 0)
		if len(problems) > 0 {
			t.Fatal(problems)
		}
		p, err := s.Policy("p")
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	uses := "package p\nallow if data.lib.ok"
	one := digest(uses, "package lib\nok := true")
	for _, row := range []struct {
		name string
		same bool
		got  string
	}{
		{"another order", true, digest("package lib\nok := true", uses)},
		{"another package", true, digest(uses, "package lib\nok := true", "package other\nallow := true")},
		{"another helper", false, digest(uses, "package lib\nok := false")},
		{"another policy", false, digest("package p\nallow if data.lib.ok == true", "package lib\nok := true")},
		{"a part of the package in another file", false, digest(uses, "package lib\nok := true", "package p\ndeny contains \"x\"")},
	} {
		if (row.got == one) != row.same {
			t.Errorf("%s: same digest is %t", row.name, row.got == one)
		}
	}
}

func TestErrNamesPolicy(t *testing.T) {
	d := compilePackage(t, `allow := true
		claims := {"n": to_number(input.user.name)}`).Decide(t.Context(), alice())
	want := `policy p: p.rego:3: to_number: strconv.ParseFloat: parsing "Alice": invalid syntax`
	if got := errorText(d.Err); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if d.Allow || d.Claims != nil {
		t.Errorf("a faulty decision says more than that: %+v", d)
	}
	if errors.Unwrap(d.Err) == nil {
		t.Error("the cause is lost")
	}
}
