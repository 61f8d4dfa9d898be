package policy

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
)

const policiesFolder = "../../policies"

// regoFiles are the Rego files of the library and the examples, with their tests.
func regoFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(policiesFolder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".rego" {
			return err
		}
		text, err := os.ReadFile(path)
		files[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestRego runs the library's tests, with the compiler that policies get: the same built-ins, and the type of input.
func TestRego(t *testing.T) {
	modules := map[string]*ast.Module{}
	for file, text := range regoFiles(t) {
		if filepath.Base(filepath.Dir(file)) != "doorward" {
			continue
		}
		m, err := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			t.Fatal(err)
		}
		modules[file] = m
	}
	guardBuiltins()
	store := inmem.New()
	txn := storage.NewTransactionOrDie(t.Context(), store)
	defer store.Abort(t.Context(), txn)
	results, err := tester.NewRunner().
		SetCompiler(newCompiler()).
		SetStore(store).
		SetModules(modules).
		SetTimeout(time.Second).
		RunTests(t.Context(), txn)
	if err != nil {
		t.Fatal(err)
	}
	run := 0
	for r := range results {
		run++
		if !r.Pass() {
			t.Errorf("%s: %s.%s: %v", r.Location, r.Package, r.Name, r.Error)
		}
	}
	if run < 60 {
		t.Errorf("only %d Rego tests were found", run)
	}
}

// TestEveryLibraryFileHasTests holds the library to its form: documentation, tests, and the canonical format.
func TestEveryLibraryFileHasTests(t *testing.T) {
	files := regoFiles(t)
	for file, text := range files {
		formatted, err := format.SourceWithOpts(file, []byte(text), format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Error(err)
		} else if string(formatted) != text {
			t.Errorf("%s is not formatted as `opa fmt` would", file)
		}
		if strings.HasSuffix(file, "_test.rego") {
			continue
		}
		if !strings.HasPrefix(text, "# METADATA\n# title: ") {
			t.Errorf("%s does not begin with its documentation", file)
		}
		if filepath.Base(filepath.Dir(file)) == "doorward" && files[strings.TrimSuffix(file, ".rego")+"_test.rego"] == "" {
			t.Errorf("%s has no tests", file)
		}
	}
}

// TestExamples runs the tests of the examples as `doorward policy test` does.
func TestExamples(t *testing.T) {
	report, err := Test(t.Context(), TestConfig{Config: Config{Paths: []string{filepath.Join(policiesFolder, "examples")}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Tests {
		if r.Outcome != TestPass {
			t.Errorf("%s:%d: %s: %s\n%s%s", r.File, r.Line, r.Name, r.Outcome, r.Message, r)
		}
	}
	if report.Passed < 40 {
		t.Errorf("only %d tests of examples passed", report.Passed)
	}
}

// TestExamplesLoad loads the examples as a route file would. Each is a policy with tests of its own, and is named in the README.
func TestExamplesLoad(t *testing.T) {
	folder := filepath.Join(policiesFolder, "examples")
	s, err := Load(t.Context(), Config{Paths: []string{folder}})
	if err != nil {
		t.Fatal(err)
	}
	readme, err := os.ReadFile(filepath.Join(policiesFolder, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	files := regoFiles(t)
	examples := 0
	for file := range files {
		base := filepath.Base(file)
		if filepath.Base(filepath.Dir(file)) != "examples" || strings.HasSuffix(file, "_test.rego") {
			continue
		}
		examples++
		if _, err := s.Policy("examples." + strings.TrimSuffix(base, ".rego")); err != nil {
			t.Error(err)
		}
		if !strings.Contains(files[strings.TrimSuffix(file, ".rego")+"_test.rego"], "\ntest_") {
			t.Errorf("%s has no tests", file)
		}
		if !strings.Contains(string(readme), "`"+base+"`") {
			t.Errorf("policies/README.md does not name %s", base)
		}
	}
	if examples < 10 {
		t.Errorf("only %d examples were found", examples)
	}
}
