package policy

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// readmeOutcomes are what the policies of policies/README.md decide, by package: what the text around them says.
var readmeOutcomes = map[string][]struct{ who, request, want string }{
	"grafana": {
		{"engineering grafana-admins", "GET /", `allow claims {"grafana":{"role":"Admin"}} headers {"x-team":"engineering"}`},
		{"engineering", "GET /", `allow claims {"grafana":{"role":"Viewer"}} headers {"x-team":"engineering"}`},
		{"unverified engineering", "GET /", `deny "Your e-mail address is not verified."`},
		{"sales", "GET /", `deny`},
	},
	"one_group":  {{"engineering", "GET /", `allow`}, {"sales", "GET /", `deny`}},
	"one_domain": {{"sales", "GET /", `allow`}, {"unverified sales", "GET /", `deny`}, {"a@evil.test@example.com", "GET /", `deny`}},
	"grafana_roles": {
		{"grafana-admins", "GET /", `allow claims {"grafana":{"role":"Admin"}}`},
		{"sales", "GET /", `allow claims {"grafana":{"role":"Viewer"}}`},
		{"", "GET /", `deny "You are in no group. Ask an administrator for access."`},
	},
	"wiki": {
		{"stranger", "GET /public/x", `allow`},
		{"stranger", "POST /public/x", `deny`},
		{"stranger", "GET /public-secret", `deny`},
		{"viewers", "GET /x", `allow`},
		{"viewers", "DELETE /x", `deny`},
		{"admins", "DELETE /x", `allow`},
	},
	"envoy.authz": {
		{"stranger", "GET /people/1", `allow headers {"x-checked":"yes"}`},
		{"stranger", "POST /people", `deny status 404 body "There is no such page."`},
		{"sales", "GET /other", `deny status 404 body "There is no such page."`},
	},
	"legacy": {
		{"a b", "GET /", `allow headers {"x-webauth-groups":"a,b","x-webauth-user":"u@example.com"}`},
		{"unverified a", "GET /", `deny`},
	},
}

// fence matches a code block with its language.
var fence = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```$")

// TestREADME loads each policy of policies/README.md by itself, and holds it to what is said of it. A block that nothing here tries is a fault.
func TestREADME(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(policiesFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	tried := map[string]bool{}
	for _, block := range fence.FindAllStringSubmatch(string(text), -1) {
		name := packageLine(block[2])
		rows := readmeOutcomes[name]
		if block[1] != "rego" || len(rows) == 0 {
			t.Errorf("no test tries this block:\n%s", block[0])
			continue
		}
		tried[name] = true
		p, err := loadText(t, block[2]).Policy(name)
		if err != nil {
			t.Error(err)
			continue
		}
		for _, row := range rows {
			if got := said(p.Decide(t.Context(), readmeInput(row.who, row.request))); got != row.want {
				t.Errorf("package %s: %s of %q\ngot  %s\nwant %s", name, row.request, row.who, got, row.want)
			}
		}
	}
	for name := range readmeOutcomes {
		if !tried[name] {
			t.Errorf("policies/README.md has no package %s", name)
		}
	}
	for _, block := range indentation.FindAllString(fence.ReplaceAllString(string(text), ""), -1) {
		if !strings.HasPrefix(block, "    policies/data.json ") {
			t.Errorf("no test tries this block:\n%s", block)
			continue
		}
		tryListing(t, block)
	}
}

// indentation matches a code block that is indented.
var indentation = regexp.MustCompile(`(?m)(^    .*\n)+`)

// tryListing makes the files that a block lists, each with its text beside it, and has the policy among them decide.
func tryListing(t *testing.T, block string) {
	dir := t.TempDir()
	files, name, column := map[string]string{}, "", 0
	for line := range strings.Lines(block) {
		line = line[4:]
		if first, rest, _ := strings.Cut(line, " "); first != "" {
			name, column = first, len(line)-len(strings.TrimLeft(rest, " "))
		}
		files[name] += line[column:]
	}
	decide := func(user string) bool {
		for name, text := range files {
			path := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		set, err := Load(t.Context(), Config{Paths: []string{filepath.Join(dir, "policies")}})
		if err != nil {
			t.Fatalf("%s\n%v", block, err)
		}
		p, err := set.Policy("wiki")
		if err != nil {
			t.Fatal(err)
		}
		return p.Decide(t.Context(), &Input{User: &User{ID: user}, Session: &Session{}}).Allow
	}
	if !decide("mallory") {
		t.Error("with open: true, mallory is denied")
	}
	files["policies/data.json"] = `{"open": false}`
	if !decide("alice") || decide("mallory") {
		t.Error("with open: false, alice is denied, who is among the tools, or mallory is not")
	}
}

// readmeInput is a request of somebody: a stranger, an address, or somebody at u@example.com with these groups.
func readmeInput(who, request string) *Input {
	method, path, _ := strings.Cut(request, " ")
	in := &Input{Request: Request{Method: method, Path: path, Target: path}}
	groups, unverified := strings.CutPrefix(who, "unverified ")
	switch {
	case who == "stranger":
		return in
	case strings.Contains(who, "@"):
		in.User = &User{Email: who, EmailVerified: true}
	default:
		in.User = &User{Email: "u@example.com", EmailVerified: !unverified, Groups: strings.Fields(groups)}
	}
	in.Session = &Session{}
	return in
}

// said is a decision in one line.
func said(d Decision) string {
	if d.Err != nil {
		return d.Err.Error()
	}
	line := "deny"
	if d.Allow {
		line = "allow"
	}
	add := func(name string, value any) {
		if text, err := json.Marshal(value); err != nil || string(text) != "null" && string(text) != "{}" {
			line += name + string(text)
		}
	}
	if !d.Allow {
		for _, reason := range d.Reasons {
			add(" ", reason)
		}
		if d.OwnDenial() {
			add(" status ", d.Status)
			add(" body ", d.Body)
		}
		return line
	}
	add(" claims ", d.Claims)
	add(" headers ", d.Headers)
	return line
}
