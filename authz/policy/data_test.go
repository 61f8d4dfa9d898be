package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
)

// loadDir loads files of a new directory, and returns the problems without its name.
func loadDir(t *testing.T, files map[string]string) (*Set, string) {
	t.Helper()
	dir := write(t, files)
	s, err := Load(t.Context(), Config{Paths: []string{dir}})
	var problems config.Problems
	if err != nil && !errors.As(err, &problems) {
		t.Fatal(err)
	}
	return s, strings.ReplaceAll(report(problems), dir+"/", "")
}

// TestDataIsWhereItsDirectoryIs loads documents of every kind, and a policy per place that must find what it says.
func TestDataIsWhereItsDirectoryIs(t *testing.T) {
	files := map[string]string{
		"data.json":              `{"users": {"alice": {"role": "admin"}}, "big": 12345678901234567890123}`,
		"users/data.yaml":        "bob: {role: viewer}\ncarol: {role: viewer, tags: [a, b]}\n",
		"admins/data.yml":        "[alice, bob]",
		"deep/er/data.json":      `"text"`,
		"with space/data.json":   `{"a.b": 1}`,
		"team/policy.rego":       "package team\nlocal := data.team.members",
		"team/data.json":         `{"members": ["x"]}`,
		"ignored.json":           `{"nothing": 1}`,
		"users/more.yaml":        "nothing: 1",
		".hidden/data.json":      `{"nothing": 1}`,
		"volume/..2026/data.yml": "nothing: 1",
	}
	conditions := []string{
		`data.users.alice.role == "admin"`,
		`data.users[input.user.name].role == "admin"`,
		`data.users.carol.tags[1] == "b"`,
		`"bob" in data.admins`,
		`data.admins[0] == "alice"`,
		`data.deep.er == "text"`,
		`data["with space"]["a.b"] == 1`,
		`data.team.local == ["x"]`,
		`data.big + 1 == 12345678901234567890124`,
		`object.get(data.users, "nobody", {"role": "none"}).role == "none"`,
		`count(data.users) == 3`,
		`{name | some name; data.users[name].role == "viewer"} == {"bob", "carol"}`,
		`every name, _ in data.users { name in {"alice", "bob", "carol"} }`,
		`not data.users[input.user.id]`,
		`data.users.alice.role == "none" with data.users.alice as {"role": "none"}`,
		`{p | walk(data.deep, [p, "text"])} == {["er"]}`,
		`data.team == {"local": ["x"], "members": ["x"]}`,
	}
	for i, c := range conditions {
		files[fmt.Sprintf("%d.rego", i)] = fmt.Sprintf("package p%d\nallow if %s", i, c)
	}
	s, problems := loadDir(t, files)
	if problems != "" {
		t.Fatal(problems)
	}
	in := alice()
	in.User.Name = "alice"
	for i, c := range conditions {
		p, err := s.Policy(fmt.Sprintf("p%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(t.Context(), in); !d.Allow {
			t.Errorf("%s is not so: %v", c, d.Err)
		}
	}
}

// TestTheDataOfTheREADME runs the example of policies/README.md as it is printed there.
func TestTheDataOfTheREADME(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(policiesFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, example, found := strings.Cut(string(text), "\n    policies/data.json")
	example, _, _ = strings.Cut("    policies/data.json"+example, "\n\n")
	files, name := map[string]string{}, ""
	for line := range strings.Lines(example) {
		line = strings.TrimSpace(line)
		if below, named := strings.CutPrefix(line, "policies/"); named {
			name, line, _ = strings.Cut(below, " ")
		}
		files[name] += strings.TrimSpace(line) + "\n"
	}
	if !found || len(files) != 3 {
		t.Fatalf("the example is %q", example)
	}
	for _, row := range []struct {
		open, user string
		want       bool
	}{{"true", "eve", true}, {"false", "bob", true}, {"false", "eve", false}} {
		files["data.json"] = strings.Replace(files["data.json"], "true", row.open, 1)
		s, problems := loadDir(t, files)
		if problems != "" {
			t.Fatal(problems)
		}
		p, err := s.Policy("wiki")
		if err != nil {
			t.Fatal(err)
		}
		in := alice()
		in.User.ID = row.user
		if d := p.Decide(t.Context(), in); d.Allow != row.want {
			t.Errorf("%v: it says %v", row, d)
		}
	}
}

func TestANamedDocumentIsAtTheTop(t *testing.T) {
	dir := write(t, map[string]string{"users.json": `{"users": {"a": 1}}`, "more.yaml": "more: [1]", "p.rego": "package p\nallow if data.users.a == data.more[0]"})
	s, err := Load(t.Context(), Config{Paths: []string{dir + "/p.rego", dir + "/users.json", dir + "/more.yaml", dir + "/users.json"}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Policy("p"); err != nil || !p.Decide(t.Context(), alice()).Allow {
		t.Error("it does not allow", err)
	}
}

// TestDataFaults has the files of a directory per row and every problem found in it.
func TestDataFaults(t *testing.T) {
	many := map[string]string{}
	for i := range maxDocuments + 1 {
		many[fmt.Sprintf("%04d/data.json", i)] = "1"
	}
	for _, row := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{"data.json": `{"a": {"b": 1}}`, "a/data.yaml": "c: 2\nb: 1"},
			`data.json:1:8: data.a.b is in a/data.yaml:2:4 too; keep one of them`},
		{map[string]string{"a/data.json": `[1]`, "a/data.yaml": "b: 1"}, `a/data.yaml:1:1: data.a is in a/data.json:1:1 too; keep one of them`},
		{map[string]string{"a/b/data.json": `1`, "a/data.json": `[]`}, `a/data.json:1:1: data.a is in a/b/data.json too; keep one of them`},
		{map[string]string{"data.json": `[1]`}, "data.json:0:0: must be an object, since it is `data` itself; put it into a directory with the name that it is to have"},
		{map[string]string{"data.json": `{"a": 1, "a": 2}`}, `data.json:1:10: duplicate name "a"; remove one of them`},
		{map[string]string{"a/data.yaml": "x: yes"}, `a/data.yaml:1:4: yes is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
		{map[string]string{"doorward/user/data.json": `{"email": "x"}`}, `doorward/user/data.json:1:1: data.doorward is the library's; choose another name`},
		{map[string]string{"data.json": `{"a": 1, "doorward": {}}`}, `data.json:1:10: data.doorward is the library's; choose another name`},

		// Rules where documents are.
		{map[string]string{"p.rego": "package p\nallow if users.a\nusers := {\"a\": true}", "p/data.json": `{"other": 1, "users": {"b": true}}`},
			`p.rego:3:1: the rule data.p.users is where p/data.json:1:14 has data.p.users; move one of them`},
		{map[string]string{"p.rego": "package p\nallow if users.a\nusers[x] := true if some x in [\"a\"]", "data.json": `{"p": {"users": {"b": true}}}`},
			`p.rego:3:1: the rule data.p.users is where data.json:1:8 has data.p.users; move one of them`},
		{map[string]string{"p.rego": "package p.q\nallow := true", "data.json": `{"p": 1}`}, `p.rego:2:1: the rule data.p.q.allow is where data.json:1:2 has data.p; move one of them`},
		{map[string]string{"p.rego": "package p\nallow if false", "data.json": `{"p": {"allow": true}}`}, `p.rego:2:1: the rule data.p.allow is where data.json:1:8 has data.p.allow; move one of them`},

		// What does not exist.
		{map[string]string{"p.rego": "package p\nallow if data.user[input.user.id]", "data.json": `{"users": {}}`}, `p.rego:2:10: there is no data.user; did you mean data.users?`},
		{map[string]string{"p.rego": "package p\nallow if data.users.alice.rol", "data.json": `{"users": {"alice": {"role": 1}}}`},
			`p.rego:2:10: there is no data.users.alice.rol; did you mean data.users.alice.role?`},
		{map[string]string{"p.rego": "package p\nallow if data.users.alice.role.name", "data.json": `{"users": {"alice": {"role": 1}}}`},
			`p.rego:2:10: there is no data.users.alice.role.name`},
		{map[string]string{"p.rego": "package p\nallow if data.list.first", "data.json": `{"list": [1]}`}, `p.rego:2:10: there is no data.list.first`},
		{map[string]string{"p.rego": "package p\nimport data.user\nallow if user.a", "data.json": `{"users": {}}`}, "p.rego:2:1: there is no data.user to import; did you mean data.users?\n" +
			"p.rego:3:10: there is no data.user; did you mean data.users?"},
		{map[string]string{"p.rego": "package p\nimport data.users\nallow if users[input.user.id].x\nok if data.list[7]", "data.json": `{"users": {}, "list": []}`}, ``},

		{map[string]string{"p.rego": "package p\nallow if data.users[input.user.id]", "users.yaml": "a: true"},
			`p.rego:2:10: there is no data.users; users.yaml is not read: only files named data.json, data.yaml and data.yml are`},

		{many, "1000/data.json:0:0: there are more than 1000 data documents; put more into each"},
	} {
		if _, got := loadDir(t, row.files); got != row.want {
			t.Errorf("%.300s\ngot  %s\nwant %s", fmt.Sprint(row.files), got, row.want)
		}
	}
}

// compileWith loads package p with data.
func compileWith(t testing.TB, data map[string]any, rego string) *Policy {
	t.Helper()
	set, problems := load(t.Context(), corpusOf(t, data, source{file: "p.rego", text: "package p\n" + rego}), 0)
	if len(problems) > 0 {
		t.Fatal(rego, problems)
	}
	p, err := set.Policy("p")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sample is some data, with one part replaced if a path is given.
func sample(value any, path ...string) map[string]any {
	data := map[string]any{
		"users":  map[string]any{"alice": map[string]any{"role": "admin", "tags": []any{"a", "b"}}, "bob": map[string]any{"role": "viewer"}},
		"flags":  map[string]any{"open": true},
		"unread": map[string]any{"x": 1},
		"p":      map[string]any{"extra": "x"},
	}
	if len(path) > 0 {
		at := data
		for _, name := range path[:len(path)-1] {
			at = at[name].(map[string]any)
		}
		at[path[len(path)-1]] = value
	}
	return data
}

// TestTheDigestCoversTheDataThatIsRead has what a policy is known to read of the data, and every place whose change is another digest.
func TestTheDigestCoversTheDataThatIsRead(t *testing.T) {
	places := []string{"users.alice.role", "users.alice.tags", "users.bob.role", "users.carol", "flags.open", "unread.x", "p.extra"}
	for _, row := range []struct{ rego, reads, covers string }{
		{`allow := true`, "", ""},
		{`allow if data.users.alice.role == "admin"`, "data.users.alice.role", "users.alice.role"},
		{`allow if data.users.alice.tags[0] == "a"`, "data.users.alice.tags", "users.alice.tags"},
		{`allow if data.users.alice.tags[_] == "a"`, "data.users.alice.tags", "users.alice.tags"},
		{`allow if data.users[input.user.id].role == "admin"`, "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{`allow if { x := "alice"; data.users[x].role == "admin" }`, "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{`allow if { some u in data.users; u.role == "admin" }`, "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{`allow if { u := data.users.alice; u.role == "admin" }`, "data.users.alice", "users.alice.role users.alice.tags"},
		{`allow if data.users.alice.role == data.flags.open`, "data.flags.open data.users.alice.role", "users.alice.role flags.open"},
		{`allow if { data.users.alice.role == "x"; data.users.alice }`, "data.users.alice", "users.alice.role users.alice.tags"},
		{"import data.users as u\nallow if u.bob.role == \"x\"", "data.users.bob.role", "users.bob.role"},
		{"allow if f(data.users)\nf(u) if u.bob.role == \"x\"", "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{"allow if who.bob.role == \"x\"\nwho := data.users", "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{`allow if walk(data.users, [["bob", "role"], "x"])`, "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{`allow if walk(data.flags, [_, input.user.name])`, "data.flags", "flags.open"},
		{`allow if object.get(data.users, ["bob", "role"], "x") == "x"`, "data.users", "users.alice.role users.alice.tags users.bob.role users.carol"},
		{"allow if q with data.users.bob.role as \"x\"\nq if data.flags.open", "data.flags.open", "flags.open"},
		{"allow if q with data.users.bob.role as \"x\"\nq if data.users.bob.role == \"x\"", "data.users.bob.role", "users.bob.role"},
		{"allow if q with input.user.name as data.flags.open\nq if input.user.name", "data.flags.open", "flags.open"},
		{"allow := true\nclaims := {\"x\": data.flags.open}", "data.flags.open", "flags.open"},
		{"allow := true\nclaims[k] := v if some k, v in data.flags", "data.flags", "flags.open"},
		{"allow := true\ndeny contains \"x\" if not data.flags.open", "data.flags.open", "flags.open"},
		{`allow if data.p.extra == "x"`, "data.p.extra", "p.extra"},
		{"allow if data.q.p[input.user.name]", "data.q.p", ""},
		{"allow := true\nunused if data.flags.open", "", ""},
	} {
		data := func(value any, path ...string) map[string]any {
			d := sample(value, path...)
			if strings.Contains(row.rego, "data.q") {
				d["q"] = map[string]any{"p": map[string]any{}}
			}
			return d
		}
		before := compileWith(t, data(nil), row.rego)
		if got := strings.Join(before.Reads().Data, " "); got != row.reads {
			t.Errorf("%s reads %s, want %s", row.rego, got, row.reads)
		}
		var covers []string
		for _, place := range places {
			if compileWith(t, data([]any{"new"}, strings.Split(place, ".")...), row.rego).Digest() != before.Digest() {
				covers = append(covers, place)
			}
		}
		if got := strings.Join(covers, " "); got != row.covers {
			t.Errorf("%s\ncovers %s\nwant   %s", row.rego, got, row.covers)
		}
	}
}

// TestTheContentCounts holds that the form of a document, and how it is spread over files, is not part of a digest, and that what it says is.
func TestTheContentCounts(t *testing.T) {
	digest := func(files map[string]string) string {
		files["p.rego"] = "package p\nallow if data.users[input.user.id]"
		s, problems := loadDir(t, files)
		if problems != "" {
			t.Fatal(problems)
		}
		p, err := s.Policy("p")
		if err != nil {
			t.Fatal(err)
		}
		return p.Digest()
	}
	want := digest(map[string]string{"data.json": `{"users": {"a": [1, "b"], "c": {"d": null}}}`})
	for _, same := range []map[string]string{
		{"users/data.json": `{"c": {"d": null}, "a": [1, "b"]}`},
		{"users/data.yaml": "a: [1, b]\nc: {d: null}"},
		{"users/a/data.json": `[1, "b"]`, "users/c/data.yaml": "d: null", "other/data.json": "1"},
	} {
		if digest(same) != want {
			t.Errorf("%v has another digest", same)
		}
	}
	for _, other := range []string{
		`{"a": [1, "b"], "c": {"d": false}}`, `{"a": ["1", "b"], "c": {"d": null}}`, `{"a": ["b", 1], "c": {"d": null}}`,
		`{"a": [1, "b"], "c": {"d": null}, "e": {}}`, `{"a": [1, "b"], "c": {}, "d": null}`, `{"a": [1, "b", []], "c": {"d": null}}`, `{}`,
	} {
		if digest(map[string]string{"users/data.json": other}) == want {
			t.Errorf("%s has the same digest", other)
		}
	}
}

// directory is a document of many users.
func directory(n int) map[string]any {
	users := make(map[string]any, n)
	for i := range n {
		users[fmt.Sprintf("user%06d@example.com", i)] = map[string]any{"role": "viewer", "teams": []any{"a", "b"}, "name": fmt.Sprintf("User %d", i)}
	}
	return map[string]any{"users": users}
}

// TestALargeDocumentIsNotCopied holds that a decision allocates the same whether a document has ten entries or a hundred thousand.
func TestALargeDocumentIsNotCopied(t *testing.T) {
	lookups := []string{
		`allow if data.users[input.user.email].role == "viewer"`,
		`allow if object.get(data.users, input.user.email, {"role": "x"}).role == "viewer"`,
		"allow if people[input.user.email].role == \"viewer\"\npeople := data.users",
		"allow if f(data.users)\nf(u) if u[input.user.email].role == \"viewer\"",
	}
	var sources []source
	for i, rego := range lookups {
		sources = append(sources, source{file: fmt.Sprint(i), text: fmt.Sprintf("package p%d\n%s", i, rego)})
	}
	small, problems := load(t.Context(), corpusOf(t, directory(10), sources...), time.Second)
	large, more := load(t.Context(), corpusOf(t, directory(100_000), sources...), time.Second)
	if len(problems)+len(more) > 0 {
		t.Fatal(problems, more)
	}
	in := alice()
	in.User.Email = "user000003@example.com"
	for i, rego := range lookups {
		few, many := allocated(t, small.policies[fmt.Sprint("p", i)], in), allocated(t, large.policies[fmt.Sprint("p", i)], in)
		t.Logf("%.0f bytes with 10 entries, %.0f with 100,000: %s", few, many, rego)
		if many > few*1.5+1024 {
			t.Errorf("%s\nallocates %.0f bytes with 10 entries and %.0f with 100,000", rego, few, many)
		}
	}
}

// allocated is how many bytes a decision that allows allocates.
func allocated(t *testing.T, p *Policy, in *Input) float64 {
	t.Helper()
	const runs = 200
	var before, after runtime.MemStats
	if d := p.Decide(t.Context(), in); !d.Allow {
		t.Fatal(p.Name(), d.Err)
	}
	runtime.ReadMemStats(&before)
	for range runs {
		p.Decide(t.Context(), in)
	}
	runtime.ReadMemStats(&after)
	return float64(after.TotalAlloc-before.TotalAlloc) / runs
}

func TestPathsOfDocumentsAreSortedAndCovered(t *testing.T) {
	p := compileWith(t, sample(nil), "allow if { data.users.bob; data.users; data.flags.open; data.users.alice.role }")
	if got, want := p.Reads().Data, []string{"data.flags.open", "data.users"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestTooLargeADocument(t *testing.T) {
	dir := write(t, map[string]string{"data.yaml": "a: " + strings.Repeat("x", config.MaxSize("data.yaml"))})
	_, err := Load(t.Context(), Config{Paths: []string{dir}})
	if want := filepath.Join(dir, "data.yaml") + ": has 4194307 bytes; it may have 4194304"; errorText(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
