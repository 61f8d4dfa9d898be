package policy

import (
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// opaGlob is OPA's own glob.match, as it is before guardBuiltins replaces it.
var opaGlob = topdown.GetBuiltin("glob.match")

func opaMatch(pattern string, separators *ast.Term, text string) (matched bool, err error) {
	err = opaGlob(topdown.BuiltinContext{}, []*ast.Term{ast.StringTerm(pattern), separators, ast.StringTerm(text)}, func(t *ast.Term) error {
		matched = t.Value.Compare(ast.Boolean(true)) == 0
		return nil
	})
	return matched, err
}

func TestGlobRows(t *testing.T) {
	for _, row := range []struct {
		pattern, separators, text string
		want                      bool
	}{
		{"*.example.com", ".", "a.example.com", true},
		{"*.example.com", ".", "a.b.example.com", false},
		{"**.example.com", ".", "a.b.example.com", true},
		{"/api/*/x", "/", "/api/a/x", true},
		{"/api/*/x", "/", "/api/a/b/x", false},
		{"/api/*/x", "/", "/api/a/x/", false},
		{"/api/*/x", "", "/api/a/b/x", true},
		{"a?c", "", "abc", true},
		{"[a-c]x", "", "bx", true},
		{"[!a-c]x", "", "bx", false},
		{"{a,b*}", "", "bcd", true},
		{`\*`, "", "*", true},
		{`\*`, "", "a", false},
		{"a.c", "", "abc", false},
		{"a\nb*", "", "a\nbc\nd", true},
	} {
		expression, err := globExpression(row.pattern, []rune(row.separators))
		if err != nil {
			t.Fatal(err)
		}
		if got := regexp.MustCompile(expression).MatchString(row.text); got != row.want {
			t.Errorf("%q matches %q (%q): %t", row.pattern, row.text, row.separators, got)
		}
	}
}

// TestGlobIsOPAs compares with OPA's matching on short texts, where it ends.
func TestGlobIsOPAs(t *testing.T) {
	g := rand.New(rand.NewPCG(1, 2))
	random := func(alphabet string, most int) string {
		var b strings.Builder
		for range g.IntN(most + 1) {
			b.WriteByte(alphabet[g.IntN(len(alphabet))])
		}
		return b.String()
	}
	matches, failures := 0, 0
	for range 200_000 {
		pattern, text := random(`aab./*?[]!-{},\`, 8), random("aab./-,!", 6)
		separators, runes := ast.NullTerm(), []rune{}
		if g.IntN(2) == 0 {
			separators, runes = ast.ArrayTerm(ast.StringTerm("/"), ast.StringTerm(".")), []rune{'/', '.'}
		}
		want, wantErr := opaMatch(pattern, separators, text)
		expression, err := globExpression(pattern, runes)
		if (err != nil) != (wantErr != nil) {
			t.Fatalf("%q: error %v, and OPA's %v", pattern, err, wantErr)
		}
		if err != nil {
			failures++
			continue
		}
		got := regexp.MustCompile(expression).MatchString(text)
		if got != want {
			t.Fatalf("%q matches %q with %q: %t, and for OPA %t", pattern, text, runes, got, want)
		}
		if got {
			matches++
		}
	}
	if matches < 1000 || failures < 1000 {
		t.Errorf("only %d matches and %d failures were seen", matches, failures)
	}
}
