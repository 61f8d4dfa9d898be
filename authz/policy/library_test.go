package policy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
)

// libraryCalls calls each documented rule of the library, with what a policy that does reads: no more than it needs.
var libraryCalls = []struct{ call, reads string }{
	{`certificate.dns_name_in(["a.example.com"])`, "client_certificate"},
	{`certificate.fingerprint_in(["ab:cd"])`, "client_certificate"},
	{`certificate.issuer_in(["CN=a"])`, "client_certificate"},
	{`certificate.spiffe_id`, "client_certificate"},
	{`certificate.uri_in(["spiffe://example.com/a"])`, "client_certificate"},
	{`cors.is_preflight`, preflightReads},
	{`cors.preflight_from(["https://app.example.com"])`, preflightReads},
	{`fault.raise("no")`, ""},
	{`fault.unless_list("here", 1)`, ""},
	{`grafana.orgs({"Main Org.": ["staff"]})`, "user.groups"},
	{`grafana.role({"Admin": ["admins"]})`, "user.groups"},
	{`hours.between("UTC", "08:00", "18:00")`, readsClock},
	{`hours.on("UTC", ["Monday"])`, readsClock},
	{`hours.on_weekday("UTC")`, readsClock},
	{`request.at("/x")`, "path"},
	{`request.client_in(["192.0.2.0/24"])`, "client_ip"},
	{`request.is_read`, "method"},
	{`request.method_in(["GET"])`, "method"},
	{`request.reads_under_any(["/x"])`, "method path"},
	{`request.segments`, "path"},
	{`request.under("/x")`, "path"},
	{`request.under_any(["/x"])`, "path"},
	{`session.acr_in(["gold"])`, "session.acr"},
	{`session.amr_has_any(["otp"])`, "session.amr"},
	{`session.auth_age < 5`, "session.auth_time " + readsClock},
	{`session.authenticated_within(60)`, "session.auth_time " + readsClock},
	{`user.claim_has("teams", "x")`, "claims.*"},
	{`user.claim_is("department", "x")`, "claims.*"},
	{`user.email`, "user.email user.email_verified"},
	{`user.email_domain`, "user.email user.email_verified"},
	{`user.email_in(["example.com"])`, "user.email user.email_verified"},
	{`user.in_all_groups(["x"])`, "user.groups"},
	{`user.in_any_group(["x"])`, "user.groups"},
	{`user.in_group("x")`, "user.groups"},
}

const (
	preflightReads = "method headers.access-control-request-method headers.authorization headers.origin " +
		"headers.x-http-method headers.x-http-method-override headers.x-method-override"
	readsClock = "(time.now_ns reads the clock)"
)

// positionOf is a file and line before a reason.
var positionOf = regexp.MustCompile(`\(\S+\.rego:\d+: `)

// calling is a policy that allows when a call of the library holds.
func calling(call string) string {
	name, _, _ := strings.Cut(call, ".")
	return "import data.doorward." + name + "\nallow if " + call
}

func TestLibraryReads(t *testing.T) {
	for _, row := range libraryCalls {
		got := positionOf.ReplaceAllString(brief(compilePackage(t, calling(row.call)).Reads()), "(")
		if got != row.reads {
			t.Errorf("%s reads\n     %s\nwant %s", row.call, got, row.reads)
		}
	}
}

// TestLibraryIsDocumented wants every rule that has documentation, and so is for policies to use, in the table of policies/README.md, and here.
func TestLibraryIsDocumented(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(policiesFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "## The library")
	found := map[string]bool{}
	for file, source := range regoFiles(t) {
		if filepath.Base(filepath.Dir(file)) != "doorward" || strings.HasSuffix(file, "_test.rego") {
			continue
		}
		m, err := ast.ParseModuleWithOpts(file, source, ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			t.Fatal(err)
		}
		pkg := strings.TrimPrefix(packageName(m.Package.Path), "doorward.")
		for _, r := range m.Rules {
			if len(r.Annotations) > 0 {
				found[pkg+"."+usage(r)] = true
			}
		}
	}
	for name := range found {
		if !strings.Contains(table, "| `"+name+"` |") {
			t.Errorf("policies/README.md has no line for `%s`", name)
		}
		bare, _, _ := strings.Cut(name, "(")
		if !slices.ContainsFunc(libraryCalls, func(c struct{ call, reads string }) bool {
			return regexp.MustCompile(`^` + bare + `\b`).MatchString(c.call)
		}) {
			t.Errorf("what %s reads is not held by a test", name)
		}
	}
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]*)` \\|").FindAllStringSubmatch(table, -1) {
		if !found[row[1]] {
			t.Errorf("policies/README.md documents `%s`, which is not in the library", row[1])
		}
	}
}

// usage is how a rule is used: its name, and its arguments if it has any.
func usage(r *ast.Rule) string {
	name := r.Head.Ref().String()
	if len(r.Head.Args) == 0 {
		return name
	}
	var args []string
	for _, a := range r.Head.Args {
		args = append(args, a.String())
	}
	return name + "(" + strings.Join(args, ", ") + ")"
}

// TestLibraryFaults gives the library what cannot be meant. Where a mistake would be undefined, a deny rule would let the request pass.
func TestLibraryFaults(t *testing.T) {
	const noList = ": must be given an array or a set, not "
	for _, row := range []struct{ call, path, want string }{
		{`user.email_in("example.com")`, "/", "user.email_in" + noList + "example.com"},
		{`user.in_any_group("x")`, "/", "user.in_any_group" + noList + "x"},
		{`user.in_all_groups("x")`, "/", "user.in_all_groups" + noList + "x"},
		{`user.in_any_group({"x": "y"})`, "/", "user.in_any_group" + noList + "{"},
		{`request.method_in("GET")`, "/", "request.method_in" + noList + "GET"},
		{`request.under_any("/x")`, "/", "request.under_any" + noList + "/x"},
		{`request.reads_under_any("/x")`, "/", "request.under_any" + noList + "/x"},
		{`request.client_in("192.0.2.0/24")`, "/", "request.client_in" + noList + "192.0.2.0/24"},
		{`request.client_in(["office"])`, "/", "net.cidr_contains: invalid CIDR address: office/32"},
		{`request.client_in(["192.0.2.0/33"])`, "/", "net.cidr_contains: invalid CIDR address: 192.0.2.0/33"},
		{`request.under("x")`, "/", "request.under or request.at: the path 'x' does not begin with a slash"},
		{`request.under("")`, "/", "request.under or request.at: the path '' does not begin with a slash"},
		{`request.under("/admin")`, "/admin%2Fusers", "the path holds an escaped slash where it is compared"},
		{`request.under("/admin")`, "/admin%5Cusers", "the path holds an escaped slash where it is compared"},
		{`request.under("/admin")`, "/%2Fadmin", "the path holds an escaped slash where it is compared"},
		{`request.at("/admin/users")`, "/admin%2Fusers", "the path holds an escaped slash where it is compared"},
		{`request.under("/admin/a%2Fb")`, "/admin/a%2Fb", "the path holds an escaped slash where it is compared"},
		{`request.at("/admin/a%2Fb")`, "/admin/a%2Fb", "the path holds an escaped slash where it is compared"},
		{`request.under("/admin")`, "/%zz", "urlquery.decode"},
		{`session.amr_has_any("otp")`, "/", "session.amr_has_any" + noList + "otp"},
		{`session.acr_in("gold")`, "/", "session.acr_in" + noList + "gold"},
		{`session.authenticated_within("60")`, "/", "session.authenticated_within: 60 is no number of seconds"},
		{`session.authenticated_within(null)`, "/", "session.authenticated_within: null is no number of seconds"},
		{`certificate.dns_name_in("a")`, "/", "certificate.dns_name_in" + noList + "a"},
		{`certificate.fingerprint_in("ab")`, "/", "certificate.fingerprint_in" + noList + "ab"},
		{`certificate.issuer_in("CN=a")`, "/", "certificate.issuer_in" + noList + "CN=a"},
		{`certificate.uri_in("a")`, "/", "certificate.uri_in" + noList + "a"},
		{`cors.preflight_from("https://app.example.com")`, "/", "cors.preflight_from" + noList + "https://app.example.com"},
		{`hours.between("UTC", "8:00", "18:00")`, "/", "hours.between: 8:00 is no time of day; write it as 08:00"},
		{`hours.between("UTC", "08:00", "24:30")`, "/", "hours.between: 24:30 is no time of day"},
		{`hours.between("Berlin", "08:00", "18:00")`, "/", "time.clock: unknown time zone Berlin"},
		{`hours.on("UTC", ["friday"])`, "/", "hours.on: friday is no day"},
		{`hours.on("UTC", "Friday")`, "/", "hours.on" + noList + "Friday"},
		{`hours.on_weekday("Mars")`, "/", "time.weekday: unknown time zone Mars"},
		{`fault.raise("on purpose")`, "/", `policy p: on purpose`},
	} {
		for _, rego := range []string{calling(row.call), strings.Replace(calling(row.call), "allow if ", "allow := true\ndeny contains \"x\" if ", 1)} {
			in := alice()
			in.Request.Path = row.path
			d := compilePackage(t, rego).Decide(t.Context(), in)
			if d.Allow || d.Err == nil || !strings.Contains(d.Err.Error(), row.want) {
				t.Errorf("%s\nallows %v, and says %v\nwant %s", rego, d.Allow, d.Err, row.want)
			}
		}
	}
}

// TestLibraryFailsForNothingElse asks what does not hold, or does, and is no mistake.
func TestLibraryFailsForNothingElse(t *testing.T) {
	for _, row := range []struct {
		call, path string
		allow      bool
	}{
		{`fault.unless_list("here", ["x"])`, "/", false},
		{`fault.unless_list("here", {"x"})`, "/", false},
		{`user.in_any_group({"sales"})`, "/", false},
		{`request.under("/admin")`, "/x%2Fy", false},
		{`request.under("/admin")`, "/admin/x%2Fy", true},
		{`request.under("/admin")`, "/%61dmin", true},
		{`request.under_any(["/a", "/b"])`, "/c", false},
		{`request.at("/admin")`, "/x%5Cy", false},
		{`request.client_in(["198.51.100.0/24", "2001:db8::1"])`, "/", false},
		{`hours.between("UTC", "00:00", "24:00")`, "/", true},
		{`hours.between("UTC", "24:00", "00:00")`, "/", false},
		{`hours.on("UTC", ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"])`, "/", true},
		{`hours.on("UTC", [])`, "/", false},
		{`hours.on("UTC", ["Monday"]) with time.now_ns as 1767351600000000000`, "/", false}, // a Friday
		{`session.authenticated_within(1)`, "/", false},
		{`session.acr_in({"gold"})`, "/", false},
		{`cors.preflight_from(["https://app.example.com"])`, "/", false},
		{`grafana.role({"Admin": ["sales"]}) == "Admin"`, "/", false},
	} {
		in := alice()
		in.Request.Path = row.path
		if d := compilePackage(t, calling(row.call)).Decide(t.Context(), in); d.Err != nil || d.Allow != row.allow {
			t.Errorf("%s of %s allows %v, %v; want %v", row.call, row.path, d.Allow, d.Err, row.allow)
		}
	}
}
