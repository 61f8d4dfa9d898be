package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// brief writes what is read in one line: the parts, with * for all claims or headers.
func brief(r Reads) string {
	var parts []string
	add := func(prefix string, list []string, skip string) {
		for _, name := range list {
			if name != skip {
				parts = append(parts, prefix+name)
			}
		}
	}
	add("user.", r.User, "claims")
	add("claims.", r.Claims, "")
	add("session.", r.Session, "")
	add("", r.Request, "headers")
	add("headers.", r.Headers, "")
	add("route.", r.Route, "")
	if r.AllClaims {
		parts = append(parts, "claims.*")
	}
	if r.AllHeaders {
		parts = append(parts, "headers.*")
	}
	add("", r.Plugin, "")
	if r.Body {
		parts = append(parts, "(body)")
	}
	if r.Certificate {
		parts = append(parts, "client_certificate")
	}
	if r.Uncacheable != "" {
		parts = append(parts, "("+r.Uncacheable+")")
	}
	return strings.Join(parts, " ")
}

const (
	everyUser    = "user.email user.email_verified user.groups user.id user.name"
	everySession = "session.acr session.amr session.auth_time session.created session.expires session.id"
	everyRequest = "client_ip host method path query scheme"
	everyRoute   = "route.host route.labels route.name"
	everything   = everyUser + " " + everySession + " " + everyRequest + " " + everyRoute + " claims.* headers.* client_certificate"

	everySource = "attributes.source.address.socketAddress.address attributes.source.address.socketAddress.ipv4Compat attributes.source.address.socketAddress.namedPort " +
		"attributes.source.address.socketAddress.networkNamespaceFilepath attributes.source.address.socketAddress.portValue attributes.source.address.socketAddress.protocol " +
		"attributes.source.address.socketAddress.resolverName attributes.source.certificate attributes.source.labels attributes.source.principal attributes.source.service"
	bodyRead = "headers.content-length headers.content-type headers.x-envoy-auth-partial-body"
)

func TestReads(t *testing.T) {
	for _, row := range []struct{ rego, want string }{
		{`allow := true`, ""},
		{`allow if input.user.email == "x"`, "user.email"},
		{`allow if "x" in input.user.groups`, "user.groups"},
		{`allow if input.user.claims.department == "x"`, "claims.department"},
		{`allow if input.user.claims.a.b[0] == "x"`, "claims.a"},
		{`allow if input.user.claims[_] == "x"`, "claims.*"},
		{`allow if input.user.claims == {}`, "claims.*"},
		{`allow if input.session.expires > 5`, "session.expires"},
		{`allow if input.route.labels.team == "x"`, "route.labels"},
		{`allow if startswith(input.request.path, "/x")`, "path"},
		{`allow if input.request.query.a[0] == "x"`, "query"},
		{`allow if input.request.headers["x-a"]`, "headers.x-a"},
		{`allow if input["request"]["headers"].accept`, "headers.accept"},
		{`allow if input.user`, ""}, // only whether there is one, which every key says
		{"allow := true\nunused if input.request.path == \"/\"", ""},

		// Names that are not constant.
		{`allow if { some h; input.request.headers[h] == "x" }`, "headers.*"},
		{`allow if input.request.headers[input.user.name] == "x"`, "user.name headers.*"},
		{`allow if { some k; input.request[k] == "x" }`, everyRequest + " headers.*"},
		{`allow if { some k; input[k].name == "x" }`, everything},
		{`allow if walk(input.request, [["path"], "/"])`, everyRequest + " headers.*"},
		{`allow if count(input.request.headers) == 0`, "headers.*"},
		{`allow if "x" in object.keys(input.request.headers)`, "headers.*"},
		{`allow if json.marshal(input) == "x"`, everything},

		// Documents that are passed on, and looked into later.
		{"import input.request as r\nallow if r.method == \"GET\"", "method"},
		{`allow if { r := input.request; h := r.headers; r.method == "GET"; h["x-a"] == "x" }`, "method headers.x-a"},
		{`allow if { x := input; x.user.name == "x" }`, "user.name"},
		{"allow if f(input.request)\nf(r) if r.method == \"GET\"", "method"},
		{"allow if f(input.request)\nf(r) if g(r.headers)\ng(h) if h[\"x-a\"] == \"x\"", "headers.x-a"},
		{"allow if f(input.request, \"a\")\nf(r, name) if r.headers[name]", "headers.*"},
		{"allow if f(input.user) == \"x\"\nf(u) := u.name if { u.email } else := u.id", "user.email user.id user.name"},
		{"allow if who.name == \"x\"\nwho := input.user", "user.name"},
		{"allow if data.p.who.name == \"x\"\nwho := input.user", "user.name"},
		{"allow if of(input.request).path == \"/\"\nof(x) := x", "path"},
		{"allow if { u := who; u.name }\nwho := input.user if { input.request.path } else := input.user", "user.name path"},
		{`allow if object.get(input.request.headers, "x-a", "") == "x"`, "headers.x-a"},
		{`allow if object.get(input, ["request", "headers", "x-a"], "") == "x"`, "headers.x-a"},
		{`allow if object.get(input.user, "claims", {}).a == "x"`, "claims.a"},

		// Documents that are looked at as a whole.
		{`allow if input.request.headers == {"a": "b"}`, "headers.*"},
		{`allow if { {"name": n} = input.user.claims; n == "x" }`, "claims.*"},
		{`allow if { r := input.request; r == input.user.claims.r }`, "claims.r " + everyRequest + " headers.*"},
		{`allow if { x := [input.route]; x[0].name == "x" }`, everyRoute},
		{`allow if { x := {"r": input.route}; x.r.name == "x" }`, everyRoute},
		{`allow if { some x in [input.route]; x.name == "x" }`, everyRoute},
		{`allow if { x := [y | y := input.route]; x[0].name == "x" }`, everyRoute},
		{`allow if { x := {"k": y | y := input.route}; x.k.name == "x" }`, everyRoute},
		{`allow if { every v in input.request.headers { v != "x" } }`, "headers.*"},
		{`allow if object.get(input.user.claims, "r", input.route).name == "x"`, "claims.r " + everyRoute},
		{"allow if f(input.user.claims)\nf({\"name\": n}) if n == \"x\"", "claims.*"},
		{"allow if f(input.route, input.user.claims)\nf(x, x)", everyRoute + " claims.*"},
		{"allow if f(input.route)\nf(x) if x == input.user.claims.r", "claims.r " + everyRoute},
		{"allow if who.name == \"x\"\nwho := input.route\nwho := input.user.claims if input.request.path", "path " + everyRoute + " claims.*"},
		{"allow if s[input.user.claims.r]\ns contains input.route", "claims.r " + everyRoute},
		{"allow if o.r.name\no[k] := input.route if some k in [\"r\"]", everyRoute},
		{"allow := true\nclaims := input.user.claims", "claims.*"},
		{"allow := true\nclaims := {\"u\": input.route}", everyRoute},
		{"allow if f(input.route) == input.user.claims.r\nf(x) := x", "claims.r " + everyRoute},

		// Variables that something else gives a value, so that an equality compares.
		{`allow if { every v in input.user.claims.list { v == input.request.headers } }`, "claims.list headers.*"},
		{`allow if { walk(input.user.claims.list, [_, v]); v == input.request.headers }`, "claims.list headers.*"},
		{`allow if { some v; input.user.claims.list[v]; v == input.request.headers }`, "claims.list headers.*"},
		{`allow if { some v in input.user.claims.list; v == input.request.headers }`, "claims.list headers.*"},
		{`allow if { [v, 1] = input.user.claims.list; v == input.request.headers }`, "claims.list headers.*"},
		{"allow if f(input.user.claims.list)\nf(v) if v == input.request.headers", "claims.list headers.*"},
		{"allow if { v = f(1); v == input.request.headers }\nf(x) := input.user.claims.list", "claims.list headers.*"},

		// with
		{"allow if q with input.user as {\"name\": \"x\"}\nq if input.user.name == \"x\"", "user.name"},
		{"allow if q with input.user.name as input.request.path\nq if input.user.name == \"x\"", "user.name path"},
		{"allow if q with input as {\"user\": input.user}\nq if input.user.name == \"x\"", everyUser + " claims.*"},
		{"allow if f(input.route) with g as h\nf(x) if g(x)\ng(x) if x.name\nh(x) if x.host", everyRoute},
		{"allow if f(input.route) with g as count\nf(x) if g(x)\ng(x) := 1 if x.name", everyRoute},

		// Other packages.
		{"import data.doorward.user\nallow if user.in_group(\"x\")", "user.groups"},
		{"import data.doorward.user\nallow if user.email_in([\"x\"])", "user.email user.email_verified"},
		{"import data.doorward.request\nallow if request.under(\"/x\")", "path"},
		{"allow if data.doorward.user[input.request.method]", "user.email user.email_verified user.groups method claims.*"},

		// What OPA's Envoy plugin gives.
		{`allow if input.attributes.request.http.method == "GET"`, "attributes.request.http.method"},
		{"import input.attributes.request.http\nallow if glob.match(\"/people/*\", [\"/\"], http.path)", "attributes.request.http.path"},
		{`allow if input.attributes.request.http.headers["x-a"] == "x"`, `headers.x-a attributes.request.http.headers["x-a"]`},
		{`allow if input.attributes.request.http.headers[":path"] == "x"`, `attributes.request.http.headers[":path"]`},
		{`allow if { h := input.attributes.request.http; h.headers.authorization == "x" }`, `headers.authorization attributes.request.http.headers["authorization"]`},
		{`allow if { some h; input.attributes.request.http.headers[h] == "x" }`, "headers.* attributes.request.http.headers"},
		{`allow if object.get(input.attributes.request.http.headers, "x-a", "") == "x"`, `headers.x-a attributes.request.http.headers["x-a"]`},
		{`allow if input.attributes.source.address.socketAddress.address == "x"`, "attributes.source.address.socketAddress.address"},
		{`allow if input.attributes.source`, "attributes.source"},
		{`allow if { s := input.attributes.source; json.marshal(s) == "x" }`, everySource},
		{"allow if f(input.attributes)\nf(a) if a.destination.principal == \"x\"", "attributes.destination.principal"},
		{`allow if input.attributes.metadataContext.filterMetadata.x == "x"`, "attributes.metadataContext"},
		{`allow if input.parsed_path[0] == "x"`, "parsed_path"},
		{`allow if input.parsed_path = ["x"]`, "parsed_path"},
		{`allow if input.parsed_query.a[0] == "x"`, "parsed_query"},
		{`allow if input.parsed_body.a == "x"`, bodyRead + " parsed_body (body)"},
		{`allow if not input.truncated_body`, bodyRead + " truncated_body (body)"},
		{`allow if input.attributes.request.http.body == "x"`, bodyRead + " attributes.request.http.body (body)"},
		{`allow if input.source_principal == "x"`, "source_principal"},
		{`allow if input.version.ext_authz == "v3"`, "version"},
		{`allow if input.client_certificate.subject == "x"`, "client_certificate"},
		{`allow if input.attributes.request.time.seconds > 5`, "attributes.request.time (p.rego:2: input.attributes.request.time is another one for each request)"},
		{"allow := true\n\nclaims := {\"id\": input.attributes.request.http.id}", "attributes.request.http.id (p.rego:4: input.attributes.request.http.id is another one for each request)"},

		// Built-ins that depend on more than their arguments.
		{`allow if time.now_ns() > input.session.expires`, "session.expires (p.rego:2: time.now_ns reads the clock)"},
		{"allow := true\ndeny contains \"x\" if f(1)\nf(x) if rand.intn(\"a\", x) == 1", "(p.rego:4: rand.intn draws random numbers)"},
		{`allow if uuid.rfc4122("a") == "x"`, "(p.rego:2: uuid.rfc4122 draws random numbers)"},
		{`allow if io.jwt.decode_verify(input.request.headers.a, {"secret": "x"})[0]`, "headers.a (p.rego:2: io.jwt.decode_verify reads the clock)"},
		{"allow if f(\"a\", 1) with f as rand.intn\nf(x, y) := 1", "(p.rego:2: rand.intn draws random numbers)"},
		{"import data.doorward.hours\nallow if hours.on_weekday(\"UTC\")", "(library:doorward/hours.rego:35: time.now_ns reads the clock)"},
		{"allow := true\nunused if time.now_ns() > 5", ""},
		{`allow if time.clock([input.session.expires, "UTC"])[0] > 8`, "session.expires"},
		{`allow if { print(time.now_ns()); input.user.name == "x" }`, "user.name"},
	} {
		_, problems := loadSource(t, "package p\n"+row.rego)
		if len(problems) > 0 {
			t.Errorf("%s\n%s", row.rego, report(problems))
			continue
		}
		if got := brief(compilePackage(t, row.rego).Reads()); got != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", row.rego, got, row.want)
		}
	}
}

// TestThePluginsPartsAreNamed: a policy that reads its input whole is given what only the plugin's policies know when it names any of that,
// and then all of it.
func TestThePluginsPartsAreNamed(t *testing.T) {
	for _, row := range []struct {
		rego string
		want bool
	}{
		{`allow if json.marshal(input) == "x"`, false},
		{`allow if { some k; input[k].name == "x" }`, false},
		{`allow if { json.marshal(input) == "x"; input.version.ext_authz == "v3" }`, true},
		{`allow if { x := [input]; x[0].parsed_body.a == "x" }`, true},
		{`allow if { some k; input[k].a == "x"; k == "parsed_body" }`, true},
		{"allow if f(input) with f as g\nf(x) if x.attributes.source\ng(x) if x.user", true},
	} {
		r := compilePackage(t, row.rego).Reads()
		if r.Body != row.want || (len(r.Plugin) > 0) != row.want || r.Uncacheable != "" != row.want {
			t.Errorf("%s\nreads %+v", row.rego, r)
		}
	}
}

// TestEveryBuiltInIsClassified fails when another version of OPA has other built-ins, so that somebody looks at them.
func TestEveryBuiltInIsClassified(t *testing.T) {
	deprecated := map[string]bool{"internal.test_case": true}
	usable := map[string]bool{}
	for name := range strings.FieldsSeq(deterministic) {
		usable[name] = true
	}
	for _, b := range everyBuiltin() {
		_, isUnsteady := unsteady[b.Name]
		_, isForbidden := forbidden[b.Name]
		classes := 0
		for _, is := range []bool{usable[b.Name], isUnsteady, isForbidden} {
			if is {
				classes++
			}
		}
		if classes != 1 && !b.IsDeprecated() && !deprecated[b.Name] {
			t.Errorf("%s is in %d of the lists", b.Name, classes)
		}
		if b.Nondeterministic && usable[b.Name] && b.Name != "rego.metadata.rule" {
			t.Errorf("OPA says that %s is not deterministic", b.Name)
		}
		delete(usable, b.Name)
	}
	if len(usable) > 0 {
		t.Errorf("there are no such built-ins: %s", fmt.Sprint(usable))
	}
}

func everyBuiltin() []*ast.Builtin { return ast.CapabilitiesForThisVersion().Builtins }
