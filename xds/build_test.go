package xds

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"doorward/authz/config"
)

// configOf loads routes, as YAML.
func configOf(t *testing.T, routes string) *config.Config {
	t.Helper()
	path := filepath.Join(t.TempDir(), "doorward.yaml")
	text := "idp: {issuer: \"https://idp.example.com\", client_id: doorward, client_secret: secret}\n" +
		"tls: {local_ca: true}\ncontrol: {groups: [eu, us]}\nauth_url: \"https://auth.example.com\"\nroutes:\n" + routes
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// input is a complete input; the certificate is the same for all hosts.
func input(t *testing.T, c *config.Config) Input {
	t.Helper()
	chain, err := os.ReadFile("testdata/in/cert.pem")
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile("testdata/in/key.pem")
	if err != nil {
		t.Fatal(err)
	}
	return Input{Config: c, Revision: revisionOf, Certificate: func(string) ([]byte, []byte, error) { return chain, key, nil }}
}

const (
	routeA  = `  - {name: a, from: "https://a.example.com", to: "http://up", policy: public}` + "\n"
	routeB  = `  - {name: b, from: "https://b.example.com", to: "http://up", policy: public}` + "\n"
	routeB2 = `  - {name: b, from: "https://b.example.com", to: "http://other", policy: public}` + "\n"
)

func TestBuildReportsEveryProblem(t *testing.T) {
	in := input(t, configOf(t, routeA+routeB))
	chain, _, _ := in.Certificate("")
	in.Certificate = func(host string) ([]byte, []byte, error) {
		if host == "a.example.com" {
			return nil, nil, errors.New("none for it")
		}
		return chain, chain, nil
	}
	in.Config.Listen.HTTPS = "edge.example.com:443"
	_, err := Build(in)
	const want = `listen.https: "edge.example.com:443": the host must be an IP address or empty
host "a.example.com": certificate: none for it
host "auth.example.com": certificate: tls: found a certificate rather than a key in the PEM for the private key
host "b.example.com": certificate: tls: found a certificate rather than a key in the PEM for the private key`
	if err == nil || err.Error() != want {
		t.Errorf("Build:\n%v\nwant\n%s", err, want)
	}
}

func TestBuildReadsFiles(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty.pem")
	if err := os.WriteFile(empty, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	rows := []struct {
		change func(*config.Route)
		want   string
	}{
		{func(r *config.Route) { r.TLSCAFile = filepath.Join(dir, "none.pem") }, "tls_custom_ca_file: open " + dir + "/none.pem: no such file or directory"},
		{func(r *config.Route) { r.TLSCAFile = empty }, "tls_custom_ca_file: " + empty + " holds no PEM certificate"},
		{func(r *config.Route) { r.TLSClientCertFile, r.TLSClientKeyFile = empty, empty }, "tls_client_cert_file: tls: failed to find any PEM data in certificate input"},
		{func(r *config.Route) { r.TLSServerName = strings.Repeat("x", 300) }, "https://up:443#d39d7eebfad5: invalid UpstreamTlsContext.Sni: value length must be at most 255 bytes"},
	}
	for _, row := range rows {
		c := configOf(t, `  - {name: a, from: "https://a.example.com", to: "https://up", policy: public}`+"\n")
		row.change(&c.Routes[0])
		_, err := Build(input(t, c))
		if want := `host "a.example.com": route "a": ` + row.want; err == nil || err.Error() != want {
			t.Errorf("Build:\n%v\nwant\n%s", err, want)
		}
	}
}

func TestBuildIsDeterministic(t *testing.T) {
	in := input(t, configOf(t, routeA+routeB))
	one, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Build(in)
	if err != nil {
		t.Fatal(err)
	}
	if c := changes(one, two); len(c) != 0 {
		t.Errorf("differ: %v", c)
	}
}

// TestBuildChangesOnlyWhatChanged: a change of one host makes no other resource differ, least of all the listener.
func TestBuildChangesOnlyWhatChanged(t *testing.T) {
	rows := []struct {
		name, before, after string
		want                []string
	}{
		{"another upstream", routeA + routeB, routeA + routeB2, []string{"CDS http://other:80", "RDS b.example.com"}},
		{"a host more", routeA, routeA + routeB,
			[]string{"RDS b.example.com", "SDS b.example.com", "SRDS b.example.com"}},
		{"a host less", routeA + routeB2, routeA,
			[]string{"CDS http://other:80", "RDS b.example.com", "SDS b.example.com", "SRDS b.example.com"}},
		{"another order in the file", routeA + routeB, routeB + routeA, nil},
	}
	for _, r := range rows {
		var b Builder
		before, err := b.Build(input(t, configOf(t, r.before)))
		if err != nil {
			t.Fatal(err)
		}
		b.Adopt(before)
		for _, build := range []func(Input) (*Change, error){Build, b.Build} {
			after, err := build(input(t, configOf(t, r.after)))
			if err != nil {
				t.Fatal(err)
			}
			got := make(map[string]bool)
			for _, c := range changes(before, after) {
				got[fmt.Sprint(c.kind, " ", c.name)] = true
			}
			if len(got) != len(r.want) {
				t.Errorf("%s: changed %v, want %v", r.name, got, r.want)
			}
			for _, w := range r.want {
				if !got[w] {
					t.Errorf("%s: %s did not change", r.name, w)
				}
			}
		}
	}
}

func TestBuilderKeepsWhatDidNotChange(t *testing.T) {
	var b Builder
	in := input(t, configOf(t, routeA+routeB))
	build := func() *Change {
		t.Helper()
		r, err := b.Build(in)
		if err != nil {
			t.Fatal(err)
		}
		b.Adopt(r)
		return r
	}
	same := func(k kind, host string, x, y *Change) bool {
		return x.parts[host].set[k][host] == y.parts[host].set[k][host]
	}
	one := build()
	in.Config = configOf(t, "\n"+routeA+routeB2)
	two := build()
	if !same(routeKind, "a.example.com", one, two) || same(routeKind, "b.example.com", one, two) {
		t.Error("made a anew, or kept b")
	}
	in.Revision = func(route string) string { return "new" }
	three := build()
	if same(routeKind, "a.example.com", two, three) {
		t.Error("kept a with another revision")
	}
	chain, _, _ := in.Certificate("")
	in.Certificate = func(string) ([]byte, []byte, error) { return chain, nil, nil }
	if _, err := b.Build(in); err == nil {
		t.Error("kept a with another certificate")
	}
}

func TestHeadersOfExtAuthz(t *testing.T) {
	f := extAuthz(nil)
	if f.AllowedHeaders != nil || f.GetGrpcService().InitialMetadata != nil {
		t.Errorf("without a set: %v", f)
	}
	f = extAuthz([]string{"cookie", "accept", "cookie"})
	if len(f.AllowedHeaders.Patterns) != 2 || f.GetGrpcService().InitialMetadata[0].Value != HeaderSet([]string{"accept", "cookie"}) {
		t.Errorf("with a set: %v", f)
	}
	if HeaderSet([]string{"a", "b"}) == HeaderSet([]string{"a"}) || HeaderSet([]string{}) == HeaderSet(nil) {
		t.Error("different sets have one name")
	}
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{
		":443": "0.0.0.0:443", "[::]:443": ":::443 ipv4", "127.0.0.1:8443": "127.0.0.1:8443", "[::1]:80": "::1:80", "localhost:80": "127.0.0.1:80",
	} {
		a, err := address(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		s := a.GetSocketAddress()
		got := fmt.Sprintf("%s:%d", s.Address, s.GetPortValue())
		if s.Ipv4Compat {
			got += " ipv4"
		}
		if got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
	for _, in := range []string{"443", "", ":http", ":65536", "a.example.com:443"} {
		if a, err := address(in); err == nil {
			t.Errorf("%q is taken for %v", in, a)
		}
	}
}

// TestUpdateComesToTheSame: after any sequence of updates, what is served is what a build of everything comes to.
func TestUpdateComesToTheSame(t *testing.T) {
	source := rand.New(rand.NewPCG(1, 2))
	var b Builder
	in := input(t, configOf(t, routeA))
	first, err := b.Build(in)
	if err != nil {
		t.Fatal(err)
	}
	b.Adopt(first)
	s := newServed()
	s.adopt(first)
	kept := map[string]string{"a": routeA}
	for i := range 200 {
		name := string(rune('a' + source.IntN(5)))
		if delete(kept, name); source.IntN(3) > 0 {
			port := []string{"", "", ":8443"}[source.IntN(3)]
			kept[name] = fmt.Sprintf("  - {name: %s, from: \"https://%s.example.com%s\", to: \"http://up%d\", policy: public}\n", name, name, port, source.IntN(3))
		}
		if i%50 == 49 {
			in.Headers = append(in.Headers, fmt.Sprintf("x-%d", i))
		}
		in.Config = configOf(t, strings.Join(slices.Collect(maps.Values(kept)), "")+"  []\n"[min(1, len(kept))*5:])
		var routes []config.Route
		for _, r := range in.Config.Routes {
			if r.Name == name {
				routes = append(routes, r)
			}
		}
		change, err := b.Update(in, map[string][]config.Route{name + ".example.com": routes})
		if err != nil {
			t.Fatal(err)
		}
		b.Adopt(change)
		s.adopt(change)
		whole, err := Build(in)
		if err != nil {
			t.Fatal(err)
		}
		want := newServed()
		want.adopt(whole)
		for k := range kinds {
			if got, want := versions(s.set[k]), versions(want.set[k]); !maps.Equal(got, want) {
				t.Fatalf("step %d, %s: %v, want %v", i, k, got, want)
			}
		}
		if !maps.EqualFunc(s.users, want.users, maps.Equal) {
			t.Fatalf("step %d: clusters are of %v, want %v", i, s.users, want.users)
		}
	}
}

func versions(of map[string]*resource) map[string]string {
	out := make(map[string]string)
	for name, res := range of {
		out[name] = res.version
	}
	return out
}
