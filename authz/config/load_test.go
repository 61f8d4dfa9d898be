package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// smallest is DESIGN's smallest useful file, on a host that needs no certificate.
const smallest = `
idp:
  issuer: https://keycloak.example.com/realms/main
  client_id: doorward
  client_secret_file: secrets/oidc
routes:
  - name: grafana
    from: https://grafana.localhost
    to: http://grafana:3000
    policy: any_authenticated_user
`

func mustLoad(t testing.TB, dir string) *Config {
	t.Helper()
	c, err := Load(filepath.Join(dir, "doorward.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	dir := write(t, map[string]string{"doorward.yaml": smallest, "secrets/oidc": "hush\n"})
	c := mustLoad(t, dir)
	timeout, idle := Duration(30*time.Second), Duration(5*time.Minute)
	want := &Config{
		IDP: IDPs{{
			Name: "default", Issuer: mustURL(t, "https://keycloak.example.com/realms/main"), ClientID: "doorward", ClientSecret: "hush",
			ClientSecretFile: filepath.Join(dir, "secrets/oidc"), Scopes: []string{"openid", "profile", "email"}, GroupsClaim: "groups", GroupsOverage: "refuse",
		}},
		TLS:       TLS{Profile: "intermediate", MinVersion: "1.2"},
		Listen:    Listen{HTTPS: ":443", HTTP: ":80"},
		AuthURL:   mustURL(t, "https://grafana.localhost"),
		DataDir:   filepath.Join(dir, "data"),
		SocketDir: filepath.Join(dir, "data/run"),
		Session:   Session{Lifetime: Duration(14 * time.Hour), RefreshInterval: Duration(10 * time.Minute), MaxStreams: 100},
		JWT: JWT{
			Header: "X-Pomerium-Jwt-Assertion", Lifetime: Duration(5 * time.Minute), SizeBudget: 4096, ConsumerCache: Duration(time.Hour),
			RotateEvery: Duration(2160 * time.Hour),
		},
		Paths:       Paths{Prefix: "/.pomerium", JWKS: "/.well-known/pomerium/jwks.json"},
		Edge:        Edge{EscapedSlashes: "reject", UnderscoreHeaders: "reject"},
		DecisionLog: DecisionLog{To: "stderr", MaxSize: 100 << 20, Keep: 5, SampleAllowed: 1},
		Routes: []Route{{
			Name: "grafana", From: mustURL(t, "https://grafana.localhost"), To: Targets{{UpstreamURL{mustURL(t, "http://grafana:3000")}, 1}},
			Policy: "any_authenticated_user", PolicyBodyBytes: 8192, Unauthenticated: Login, Timeout: &timeout, IdleTimeout: &idle,
			Source: Position{filepath.Join(dir, "doorward.yaml"), 7, 5},
		}},
		Path: filepath.Join(dir, "doorward.yaml"),
	}
	got := *c
	got.Checksum, got.files, got.root, got.covers = "", nil, place{}, nil
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got:\n%+v\nwant:\n%+v", &got, want)
	}
	if !c.Routes[0].PassIdentity() || c.Routes[0].Anonymous() || c.Routes[0].Public() {
		t.Error("the route's answers do not follow from its keys")
	}
}

func TestDefaultPoliciesAreThoseBesideTheFile(t *testing.T) {
	dir := write(t, map[string]string{"doorward.yaml": "routes: []", "policies/a.rego": "package a"})
	if got := mustLoad(t, dir).Policies; !slices.Equal(got, []string{filepath.Join(dir, "policies")}) {
		t.Errorf("policies are %q", got)
	}
	put(t, filepath.Join(dir, "doorward.yaml"), "policies: []\nroutes: []")
	if got := mustLoad(t, dir).Policies; len(got) != 0 {
		t.Errorf("policies are %q although none were asked for", got)
	}
}

// everything has every key, so that the names of keys cannot change unnoticed.
const everything = `
idp:
  name: main
  issuer: http://idp.localhost:9000/
  client_id: 12345
  client_secret: hush
  scopes: [openid, email, "https://graph.example.com/.default"]
  groups_claim: roles
  trust_email: true
  ca_file: fixtures/next.pem
tls:
  certificates:
    - {cert_file: fixtures/app.pem, key_file: fixtures/app.key}
  local_ca: false
listen: {https: "127.0.0.1:8443", http: off, internal: "[::1]:8080", metrics: "127.0.0.1:9464"}
decision_log: {to: decisions.log, max_size: 1GiB, keep: 0, sample_allowed: 0.25, mask: [email, path]}
auth_url: https://Auth.Localhost:8443/
data_dir: /var/lib/doorward
socket_dir: run
policies: [rules, extra.txt]
routes_dir: routes
session: {lifetime: 8h}
jwt: {header: X-Identity, signing_key_file: fixtures/sec1.key, lifetime: 1m, consumer_cache: 5m, rotate_every: 0s, jwks_file: jwks.json}
paths: {prefix: /auth, jwks: /keys.json}
trusted_hops: 2
escaped_slashes: keep
underscore_headers: keep
routes:
  - name: app
    from: HTTPS://App.Example.com:8443/
    to:
      - https://10.0.0.1
      - {url: "https://[fd00::1]:8443", weight: 3}
      - {url: https://my_app.internal}
    labels: {tier: 1, team: web}
    prefix: /api/
    policy: acme.app
    allow_anonymous: true
    unauthenticated: 401
    pass_identity_headers: false
    prefix_rewrite: /
    timeout: 0
    idle_timeout: 1h30m
    allow_websockets: true
    set_request_headers: {X-Tenant: "a %b", Authorization: Basic eDp5}
    remove_request_headers: [Cookie]
    set_response_headers: {Strict-Transport-Security: max-age=63072000}
    remove_response_headers: [Server]
    host_rewrite: app.internal:8443
    tls_custom_ca_file: fixtures/app.pem
    tls_server_name: app.internal
    tls_client_cert_file: fixtures/app.pem
    tls_client_key_file: fixtures/app.key
  - name: exact
    from: https://a.wild.example.com:8443
    to: [http://app:8080]
    path: "/a/b_c~d"
    policy: public
    regex_rewrite_pattern: ^/(.*)$
    regex_rewrite_substitution: /\1/\\
    preserve_host_header: true
  - name: self
    from: https://app.example.com:8443
    to: https://localhost
    regex: /(v[0-9]+)/[^/]*
    policy: any_authenticated_user
    unauthenticated: 403
    tls_skip_verify: true
`

func TestEverything(t *testing.T) {
	files := newFixtures(t)
	files["doorward.yaml"] = everything
	files["rules/a.rego"], files["extra.txt"] = "package a", "package b"
	files["routes/b.yml"] = "routes:\n  - {name: gone, from: https://app.example.com:8443, path: /old, policy: public, " +
		"redirect: {host: new.example.com, path: /new?from=old, status: 308, strip_query: true}}\n"
	files["routes/a.yaml"] = "routes:\n  - {name: robots, from: https://app.example.com:8443, path: /robots.txt, policy: public, " +
		"response: {body: \"Disallow: /\"}}\n"
	files["routes/sub/c.yaml"], files["routes/.d.yaml"] = "not read", "not read"
	dir := write(t, files)
	c := mustLoad(t, dir)
	in := func(name string) string { return filepath.Join(dir, name) }
	for _, row := range []struct{ what, got, want any }{
		{"client_id", c.IDP[0].ClientID, "12345"},
		{"issuer", c.IDP[0].Issuer.String(), "http://idp.localhost:9000/"},
		{"listen", c.Listen, Listen{"127.0.0.1:8443", "", "[::1]:8080", "127.0.0.1:9464"}},
		{"auth_url", c.AuthURL.Origin(), "https://auth.localhost:8443"},
		{"socket_dir", c.SocketDir, in("run")},
		{"policies", c.Policies, []string{in("rules"), in("extra.txt")}},
		{"jwt", c.JWT, JWT{"X-Identity", in("fixtures/sec1.key"), Duration(time.Minute), 4096, Duration(5 * time.Minute), 0, in("jwks.json")}},
		{"paths", c.Paths, Paths{"/auth", "/keys.json"}},
		{"edge", c.Edge, Edge{2, "keep", "keep"}},
		{"decision_log", c.DecisionLog, DecisionLog{in("decisions.log"), 1 << 30, 0, 0.25, []string{"email", "path"}}},
		{"names", names(c), []string{"app", "exact", "self", "robots", "gone"}},
		{"host", c.Routes[0].Host(), "app.example.com"},
		{"to", fmt.Sprint(c.Routes[0].To), "[{https://10.0.0.1 1} {https://[fd00::1]:8443 3} {https://my_app.internal 1}]"},
		{"labels", c.Routes[0].Labels, map[string]string{"tier": "1", "team": "web"}},
		{"unauthenticated", []Unauthenticated{c.Routes[0].Unauthenticated, c.Routes[2].Unauthenticated}, []Unauthenticated{"401", "403"}},
		{"pass_identity_headers", c.Routes[0].PassIdentity(), false},
		{"timeout", *c.Routes[0].Timeout, Duration(0)},
		{"idle_timeout", *c.Routes[0].IdleTimeout, Duration(90 * time.Minute)},
		{"path", c.Routes[1].Path, "/a/b_c~d"},
		{"response", *c.Routes[3].Response, Response{200, "Disallow: /"}},
		{"redirect", *c.Routes[4].Redirect, Redirect{"new.example.com", "/new?from=old", "", 308, true}},
		{"source", c.Routes[4].Source, Position{in("routes/b.yml"), 2, 5}},
	} {
		if !reflect.DeepEqual(row.got, row.want) {
			t.Errorf("%s is %v, want %v", row.what, row.got, row.want)
		}
	}
	hosts := map[string]string{}
	for name, origin := range c.Hosts() {
		hosts[name] = origin.String()
	}
	if want := map[string]string{
		"app.example.com":    "https://app.example.com:8443",
		"a.wild.example.com": "https://a.wild.example.com:8443",
		"auth.localhost":     "https://auth.localhost:8443",
	}; !maps.Equal(hosts, want) {
		t.Errorf("hosts are %v, want %v", hosts, want)
	}
	want := []string{in("doorward.yaml"), in("extra.txt"), in("fixtures/app.key"), in("fixtures/app.pem"), in("fixtures/next.pem"),
		in("fixtures/sec1.key"), in("routes"), in("routes/a.yaml"), in("routes/b.yml"), in("rules"), in("rules/a.rego")}
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("files are:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func names(c *Config) (all []string) {
	for _, r := range c.Routes {
		all = append(all, r.Name)
	}
	return all
}

// Each file that is named counts for the checksum, and nothing else does.
func TestChecksum(t *testing.T) {
	files := newFixtures(t)
	files["doorward.yaml"] = everything
	for _, name := range []string{"rules/a.rego", "rules/deep/b.rego", "extra.txt"} {
		files[name] = "package a"
	}
	files["rules/data.json"], files["rules/deep/data.yaml"] = "{}", "a: 1"
	files["routes/a.yaml"] = "routes: []"
	dir := write(t, files)
	before := mustLoad(t, dir).Checksum
	for name, counts := range map[string]bool{
		"doorward.yaml": true, "routes/a.yaml": true, "rules/a.rego": true, "rules/deep/b.rego": true, "extra.txt": true,
		"rules/data.json": true, "rules/deep/data.yaml": true, "rules/users.json": false,
		"rules/a_test.rego": false, "rules/readme.md": false, "routes/a.yaml.swp": false, "policies/c.rego": false,
	} {
		put(t, filepath.Join(dir, name), files[name]+"\n# changed")
		if changed := mustLoad(t, dir).Checksum != before; changed != counts {
			t.Errorf("a change of %s: the checksum changed %v, want %v", name, changed, counts)
		}
		if _, there := files[name]; there {
			put(t, filepath.Join(dir, name), files[name])
		}
	}
	put(t, filepath.Join(dir, "fixtures/app.pem"), files["fixtures/app.pem"]+"\n")
	if mustLoad(t, dir).Checksum == before {
		t.Error("a change of a certificate does not change the checksum")
	}
	if again := write(t, files); mustLoad(t, again).Checksum != before {
		t.Error("the checksum depends on where the files are")
	}
}

// A Kubernetes volume shows its files as links into a hidden directory.
func TestKubernetesVolume(t *testing.T) {
	dir := write(t, map[string]string{
		"doorward.yaml":          "routes_dir: mount\npolicies: [mount]\nroutes: []",
		"mount/..2026/a.yaml":    "routes:\n  - {name: a, from: https://a.localhost, to: http://a, policy: public}\n",
		"mount/..2026/a.rego":    "package a",
		"mount/..2026/gone.yaml": "routes: []",
	})
	for link, to := range map[string]string{"..data": "..2026", "a.yaml": "..data/a.yaml", "a.rego": "..data/a.rego", "loop": "."} {
		if err := os.Symlink(to, filepath.Join(dir, "mount", link)); err != nil {
			t.Fatal(err)
		}
	}
	c := mustLoad(t, dir)
	if got := names(c); !slices.Equal(got, []string{"a"}) {
		t.Errorf("routes are %q", got)
	}
	want := []string{"doorward.yaml", "mount", "mount/a.rego", "mount/a.yaml"}
	for i := range want {
		want[i] = filepath.Join(dir, want[i])
	}
	if got := c.Files(); !slices.Equal(got, want) {
		t.Errorf("files are %q, want %q", got, want)
	}
}

func TestUnreadable(t *testing.T) {
	dir := write(t, map[string]string{"large.yaml": "# " + strings.Repeat("x", maxFile), "dir/x": ""})
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"none.yaml":  "does not exist; create it or correct the path",
		"dir":        "is not a regular file; name a file",
		"pipe.yaml":  "is not a regular file; name a file",
		"large.yaml": "is larger than 4 MiB; split it or name another file",
		"dir/x/y":    "cannot be read: not a directory",
	} {
		_, err := Load(filepath.Join(dir, name))
		if want = filepath.Join(dir, name) + ": " + want; err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
	}
}

// What a file comes to with its aliases is bounded, however it is nested.
func TestAliasesAreBounded(t *testing.T) {
	route := "{name: a, from: https://a.localhost, to: http://a, policy: public}"
	rows := map[string]string{
		"nested":  "routes:\n" + nested(30),
		"wide":    "routes: [&a {labels: {" + many(2_000, "k%d: v") + "}}, " + many(2_000, "*a") + "]",
		"targets": "routes: [{to: &t [" + many(2_000, "http://a") + "]}, " + many(2_000, "{to: *t}") + "]",
		"routes":  "routes: [&r " + route + ", " + many(200_000, "*r") + "]",
		"empty":   "routes: [" + many(200_000, "{}") + "]",
		"faulty":  "routes: [" + many(200_000, "1") + "]",
		"deep":    "routes: " + strings.Repeat("[", 200_000),
		"keys":    "x: {" + many(100_000, "k%d: v") + "}\nroutes: [{labels: {" + many(100_000, "k%d: v") + "}}]",
	}
	const bound = "the file comes to more than 1000000 values"
	says := map[string]string{"wide": bound, "targets": bound, "routes": bound, "empty": bound, "faulty": "there are more than 1000 problems"}
	for name, text := range rows {
		t.Run(name, func(t *testing.T) {
			dir := write(t, map[string]string{"doorward.yaml": text})
			_, err := Load(filepath.Join(dir, "doorward.yaml"))
			var problems Problems
			if !errors.As(err, &problems) || len(problems) > maxProblems+1 {
				t.Errorf("%d problems: %.300v", len(problems), err)
			}
			if want, ok := says[name]; ok && !strings.Contains(err.Error(), want) {
				t.Errorf("it does not say %q: %.300v", want, err)
			}
		})
	}
	dir := write(t, map[string]string{"doorward.yaml": "routes:\n  - &a {name: a, from: https://a.localhost, to: &to [http://a], policy: public}\n" +
		"  - {name: b, from: https://a.localhost, prefix: /b, to: *to, policy: public}\n"})
	if c := mustLoad(t, dir); c.Routes[1].To[0].URL.String() != "http://a" {
		t.Errorf("an alias came to %v", c.Routes[1].To)
	}
}

// nested is lists in lists: each alias stands for twice what the one before does.
func nested(depth int) string {
	var b strings.Builder
	b.WriteString("  - &l0 [x, x]\n")
	for i := 1; i < depth; i++ {
		fmt.Fprintf(&b, "  - &l%d [*l%d, *l%d]\n", i, i-1, i-1)
	}
	return b.String()
}

func many(n int, form string) string {
	all := make([]string, n)
	for i := range all {
		all[i] = strings.Replace(form, "%d", fmt.Sprint(i), 1)
	}
	return strings.Join(all, ", ")
}

func TestTenThousandRoutes(t *testing.T) {
	var b strings.Builder
	b.WriteString("auth_url: https://auth.localhost\nroutes:\n")
	for i := range 10_000 {
		fmt.Fprintf(&b, "  - name: r%d\n    from: https://h%d.localhost\n    to: http://app:8080\n    policy: public\n    allow_websockets: true\n", i, i)
	}
	dir := write(t, map[string]string{"doorward.yaml": b.String()})
	c := mustLoad(t, dir)
	if len(c.Routes) != 10_000 || len(c.Hosts()) != 10_001 {
		t.Errorf("%d routes on %d hosts", len(c.Routes), len(c.Hosts()))
	}
}

func TestProblemsAsJSON(t *testing.T) {
	got, err := json.Marshal(Problems{{Position{"/a.yaml", 3, 5}, "routes[a].from", "must be https"}})
	want := `[{"file":"/a.yaml","line":3,"column":5,"field":"routes[a].from","message":"must be https"}]`
	if err != nil || string(got) != want {
		t.Errorf("%s %v, want %s", got, err, want)
	}
	if got, want := (Problem{Message: "m"}).String(), "m"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
