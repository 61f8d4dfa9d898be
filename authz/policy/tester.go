package policy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"doorward/authz/config"
)

// TestConfig says which tests to run with which policies.
type TestConfig struct {
	Config                  // what Load would load
	Tests    []string       // files and directories whose tests run, beside the policies; all tests of Paths when empty
	Run      *regexp.Regexp // runs only tests whose name (grafana_test.test_viewers) it matches; nil runs all
	Coverage bool
}

// TestReport is what the tests came to.
type TestReport struct {
	Tests    []TestResult   `json:"tests"` // by place
	Coverage []FileCoverage `json:"coverage,omitempty"`
	Passed   int            `json:"passed"`
	Failed   int            `json:"failed"` // errors too
	Skipped  int            `json:"skipped"`
	Took     time.Duration  `json:"took_ns"`
}

// Outcomes of a test.
const (
	TestPass  = "pass"
	TestFail  = "fail"
	TestError = "error" // a built-in failed, two values for one rule, too long
	TestSkip  = "skip"  // its name begins with todo_test_
)

// TestResult is one rule test_* of a file *_test.rego.
type TestResult struct {
	Name    string        `json:"name"` // grafana_test.test_viewers
	File    string        `json:"file"`
	Line    int           `json:"line"`
	Outcome string        `json:"outcome"`
	Message string        `json:"message,omitempty"` // of an error
	Cases   []string      `json:"cases,omitempty"`   // that failed, of a rule test_x[case]
	Why     []BodyTrace   `json:"why,omitempty"`     // the bodies of the rule, which say where it failed
	Output  string        `json:"output,omitempty"`  // of print
	Took    time.Duration `json:"took_ns"`
}

// FileCoverage says which lines of a policy file the tests reached: those with a rule's head or an expression.
type FileCoverage struct {
	File    string `json:"file"`
	Lines   int    `json:"lines"`
	Covered int    `json:"covered"`
	Missing []int  `json:"missing"` // line numbers
}

// testTimeout bounds one test.
const testTimeout = 5 * time.Second

// Test compiles the policies as Load does, together with their tests, and runs these. The error is a config.Problems with what does not
// compile; a test that fails is none.
func Test(ctx context.Context, c TestConfig) (*TestReport, error) {
	run, problems := loadTests(ctx, c)
	if len(problems) > 0 {
		return nil, sorted(problems)
	}
	report := &TestReport{Tests: []TestResult{}}
	chosen := run.choose(c.Run)
	if chosen == "" {
		return report, nil
	}
	runner := tester.NewRunner().
		SetCompiler(run.set.compiler).
		SetStore(run.set.store).
		SetModules(run.modules).
		SetTimeout(testTimeout).
		SetCoverageRuns(nil).
		RaiseBuiltinErrors(true).
		Filter(chosen)
	covered := cover.New()
	if c.Coverage {
		runner.SetCoverageQueryTracer(covered)
	}
	started := time.Now()
	results, err := runner.RunTests(ctx, run.set.txn)
	if err != nil {
		return nil, sorted(problemsOf("", err, nil))
	}
	for r := range results {
		report.add(testResult(r))
	}
	report.Took = time.Since(started)
	slices.SortFunc(report.Tests, func(a, b TestResult) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Name, b.Name))
	})
	for i := range report.Tests {
		if t := &report.Tests[i]; t.Outcome == TestFail && len(t.Cases) == 0 {
			t.Why = run.set.why(ctx, t.Name)
		}
	}
	if c.Coverage {
		report.Coverage = coverage(covered.Report(run.policies()))
	}
	return report, ctx.Err()
}

// testRun is what there is to run.
type testRun struct {
	set     *Set                   // with a compiler that the runner compiles the modules with
	modules map[string]*ast.Module // all of them
	files   map[string]bool        // whose tests run
}

// loadTests reads and checks everything. What is wrong with the policies is the same as at load.
func loadTests(ctx context.Context, c TestConfig) (*testRun, config.Problems) {
	where := c.Tests
	if len(where) == 0 {
		where = c.Paths
	}
	tests, problems := readTests(where)
	all, more := read(c.Config)
	run := &testRun{files: map[string]bool{}}
	known := map[string]string{}
	for _, s := range all.sources {
		known[s.real] = s.file
	}
	for _, s := range tests {
		if file, twice := known[s.real]; twice {
			s.file = file
		} else {
			all.sources = append(all.sources, s)
		}
		run.files[s.file] = true
	}
	set, faults := load(ctx, all, c.Timeout)
	if problems = slices.Concat(problems, more, faults); len(problems) > 0 {
		return nil, problems
	}
	run.modules, problems = parseAll(all.sources)
	run.set = &Set{compiler: testCompiler(), store: set.store, txn: set.txn, timeout: set.timeout}
	return run, problems
}

// testCompiler is the compiler of policies, with print, and with what the runner puts into rules of the form test_x[case].
func testCompiler() *ast.Compiler {
	c := capabilities()
	c.Builtins = append(c.Builtins, ast.InternalTestCase)
	return newCompiler().WithEnablePrintStatements(true).WithCapabilities(c)
}

// choose returns a regular expression for the full names of the tests that run, "" for none.
func (r *testRun) choose(wanted *regexp.Regexp) string {
	var names []string
	for file, m := range r.modules {
		for _, rule := range m.Rules {
			name := headName(rule)
			if !r.files[file] || !strings.HasPrefix(strings.TrimPrefix(name, "todo_"), tester.TestPrefix) {
				continue
			}
			if wanted == nil || wanted.MatchString(packageName(m.Package.Path)+"."+name) {
				names = append(names, regexp.QuoteMeta(m.Package.Path.String()+"."+name))
			}
		}
	}
	if len(names) == 0 {
		return ""
	}
	return "^(" + strings.Join(compact(names), "|") + ")(#[0-9]+)?$" // OPA numbers tests of the same name
}

// policies are the operator's modules that are no tests.
func (r *testRun) policies() map[string]*ast.Module {
	modules := map[string]*ast.Module{}
	for file, m := range r.modules {
		if !isLibrary(m.Package.Path) && !config.IsTest(file) {
			modules[file] = m
		}
	}
	return modules
}

func (r *TestReport) add(t TestResult) {
	switch t.Outcome {
	case TestPass:
		r.Passed++
	case TestSkip:
		r.Skipped++
	default:
		r.Failed++
	}
	r.Tests = append(r.Tests, t)
}

func testResult(r *tester.Result) TestResult {
	t := TestResult{
		Name: strings.TrimPrefix(r.Package, "data.") + "." + r.Name, File: r.Location.File, Line: r.Location.Row,
		Outcome: TestPass, Output: string(r.Output), Took: r.Duration,
	}
	switch {
	case r.Skip:
		t.Outcome = TestSkip
	case r.Error != nil:
		t.Outcome, t.Message = TestError, testFault(r.Error)
	case r.Fail:
		t.Outcome = TestFail
	}
	for path, sub := range r.SubResults.Iter {
		if sub.Fail && len(sub.SubResults) == 0 {
			t.Cases = append(t.Cases, strings.Join(path, "/"))
		}
	}
	return t
}

func testFault(err error) string {
	if topdown.IsCancel(err) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Sprintf("it was given up after %v", testTimeout)
	}
	return located(err).Error()
}

// why explains a rule that is not true.
func (s *Set) why(ctx context.Context, name string) []BodyTrace {
	value := ast.VarTerm("value")
	body := ast.NewBody(ast.Equality.Expr(value, ast.NewTerm(packageRef(name))))
	qc := s.compiler.QueryCompiler()
	query, err := qc.Compile(ast.NewBody(ast.Equality.Expr(ast.VarTerm("test"), ast.ArrayComprehensionTerm(value, body))))
	if err != nil {
		return nil // the test has run, so it is there: its failure is told without a reason
	}
	t, result, _ := s.trace(ctx, query, qc, nil)
	pkg := name[:strings.LastIndex(name, ".")]
	for _, r := range t.explain(pkg, result) {
		return r.Bodies
	}
	return nil
}

// coverage counts lines: one with anything on it that was not reached is missing.
func coverage(report cover.Report) (files []FileCoverage) {
	for file, found := range report.Files {
		if strings.HasPrefix(file, libraryFiles) || config.IsTest(file) {
			continue
		}
		missing, all := map[int]bool{}, map[int]bool{}
		note := func(ranges []cover.Range, into map[int]bool) {
			for _, r := range ranges {
				for row := r.Start.Row; row <= r.End.Row; row++ {
					into[row], all[row] = true, true
				}
			}
		}
		note(found.NotCovered, missing)
		note(found.Covered, map[int]bool{})
		files = append(files, FileCoverage{
			File: file, Lines: len(all), Covered: len(all) - len(missing), Missing: slices.Sorted(maps.Keys(missing)),
		})
	}
	slices.SortFunc(files, func(a, b FileCoverage) int { return cmp.Compare(a.File, b.File) })
	return files
}
