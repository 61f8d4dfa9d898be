package policy

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// TestExplain holds the explanations of policies, asked by alice. Each file of testdata/explain has the policy, and its explanation;
// UPDATE_EXPLAIN=1 writes the latter anew.
func TestExplain(t *testing.T) {
	files, err := filepath.Glob("testdata/explain/*.txtar")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := compilePackage(t, string(a.Files[0].Data))
			got := explained(p, alice())
			if again := explained(p, alice()); again != got {
				t.Errorf("is explained in two ways:\n%s\n%s", got, again)
			}
			if os.Getenv("UPDATE_EXPLAIN") == "1" {
				a.Files[1].Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(a), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if want := string(a.Files[1].Data); got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// explained is an explanation without the lines of the library, which change with it.
func explained(p *Policy, in *Input) string {
	return libraryLines.ReplaceAllString(p.Explain(context.Background(), in).String(), "$1:N")
}

var libraryLines = regexp.MustCompile(`(library:[a-z/]+\.rego):[0-9]+`)

// TestExplainTellsTheDecision holds what an explanation has beside the rules.
func TestExplainTellsTheDecision(t *testing.T) {
	x := compilePackage(t, `allow := true
deny contains "no" if input.request.path == "/d/x"`).Explain(t.Context(), alice())
	if x.Decision.Allow || len(x.Decision.Reasons) != 1 || x.Decision.Reasons[0] != "no" || x.Policy != "p" {
		t.Errorf("%+v", x)
	}
	s := loadText(t, "package p\nallow := true")
	for name, want := range map[string]string{
		"public":                 "public is built in: it lets everybody in and runs no rule\n",
		"any_authenticated_user": "any_authenticated_user is built in: it lets in whoever has a session and runs no rule\n",
	} {
		p, err := s.Policy(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := p.Explain(t.Context(), alice()).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// TestExplainIsBounded explains policies that do not end, that enter more bodies than are told, and that hold long values.
func TestExplainIsBounded(t *testing.T) {
	for name, row := range map[string]struct{ rego, want string }{
		"steps":  {`allow if { some i, j in numbers.range(1, 100000); i + j < 0 }`, "the explanation is not complete: it needs more than 250000 steps"},
		"frames": {"allow if { some i in numbers.range(1, 5000); f(i) }\nf(x) if x < 0", "the explanation is not complete: it has more than 4000 bodies"},
		"long":   {`allow if concat("", [input.user.name | some i in numbers.range(1, 9000)]) == "x"`, "AliceAlic..."},
	} {
		x := compilePackage(t, row.rego).Explain(t.Context(), alice())
		text := x.String()
		if !strings.Contains(text, row.want) || len(text) > 10_000 {
			t.Errorf("%s: %d bytes: %.2000s", name, len(text), text)
		}
	}
}
