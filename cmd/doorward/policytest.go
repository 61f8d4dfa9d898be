package main

import (
	"cmp"
	"fmt"
	"io"
	"regexp"
	"strings"
	"time"

	"doorward/authz/policy"

	"github.com/spf13/cobra"
)

func policyTestCommand() *cobra.Command {
	var source policySource
	var t policyTest
	cmd := &cobra.Command{
		Use:   "test [PATH...]",
		Short: "Run the tests of policies, the rules test_* in files *_test.rego",
		Long: "Test compiles the policies with the library and with their tests, as they would be loaded, and runs the tests.\n" +
			"Without PATH it takes the policies of the configuration; with PATH, files or directories, only what is there;\n" +
			"with --config too, the tests in PATH together with the policies of the configuration. A test that fails says\n" +
			"which expression it was, with the values that it had, and why the rules that it asks came out so. The exit\n" +
			"status is 0 when every test passed, 1 otherwise.",
		Example: "  doorward policy test\n" +
			"  doorward policy test --coverage policies\n" +
			"  doorward policy test --run viewers -v",
		ValidArgsFunction: regoFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat("format", t.format); err != nil {
				return err
			}
			c, loaded, err := source.load(cmd, args)
			if err != nil {
				return err
			}
			t.Config, t.where = c, strings.Join(c.Paths, ", ")
			if loaded != nil {
				t.Tests = args
				t.where = cmp.Or(strings.Join(args, ", "), t.where, "the configuration, which has no policies")
			}
			return t.run(cmd)
		},
	}
	source.add(cmd)
	cmd.Flags().StringVar(&t.pattern, "run", "", "only the tests whose name matches this regular expression")
	cmd.Flags().BoolVar(&t.Coverage, "coverage", false, "say which lines of the policies no test reaches")
	cmd.Flags().BoolVarP(&t.verbose, "verbose", "v", false, "print every test, not only those that failed")
	formatFlag(cmd, &t.format)
	return cmd
}

// policyTest is one run of `policy test`.
type policyTest struct {
	policy.TestConfig
	where   string // what is searched for tests, for errors
	pattern string
	format  string
	verbose bool
}

func (t *policyTest) run(cmd *cobra.Command) error {
	if t.pattern != "" {
		re, err := regexp.Compile(t.pattern)
		if err != nil {
			return fmt.Errorf("--run %q: %w", t.pattern, err)
		}
		t.Run = re
	}
	w := cmd.OutOrStdout()
	report, err := policy.Test(cmd.Context(), t.TestConfig)
	switch {
	case err != nil:
		return refuse(w, t.format, "no test was run", err)
	case len(report.Tests) == 0 && t.Run != nil:
		return fmt.Errorf("--run %q: no test in %s has such a name", t.pattern, t.where)
	case len(report.Tests) == 0:
		return fmt.Errorf("there are no tests in %s: a test is a rule test_* in a file *_test.rego", t.where)
	}
	if t.format == "json" {
		err = writeJSON(w, report)
	} else {
		err = t.print(w, report)
	}
	if err == nil && report.Failed > 0 {
		err = errReported
	}
	return err
}

func (t *policyTest) print(w io.Writer, report *policy.TestReport) error {
	var b strings.Builder
	for _, r := range report.Tests {
		if r.Outcome != policy.TestPass || t.verbose {
			printTest(&b, r, t.verbose)
		}
	}
	for _, c := range report.Coverage {
		printCoverage(&b, c)
	}
	fmt.Fprintf(&b, "%s: %d passed, %d failed", count(len(report.Tests), "test"), report.Passed, report.Failed)
	if report.Skipped > 0 {
		fmt.Fprintf(&b, ", %d skipped", report.Skipped)
	}
	fmt.Fprintf(&b, " (%v)\n", report.Took.Round(100*time.Microsecond))
	_, err := io.WriteString(w, onScreen(b.String()))
	return err
}

func printTest(b *strings.Builder, r policy.TestResult, timed bool) {
	took := ""
	if timed && r.Outcome != policy.TestSkip {
		took = fmt.Sprintf(" (%v)", r.Took.Round(10*time.Microsecond))
	}
	fmt.Fprintf(b, "%-5s %s:%d: %s%s\n", strings.ToUpper(r.Outcome), r.File, r.Line, r.Name, took)
	details := r.String()
	if r.Message != "" {
		details += r.Message + "\n"
	}
	for _, name := range r.Cases {
		details += fmt.Sprintf("case %q fails\n", name)
	}
	if r.Output != "" {
		details += "printed:\n" + indent(r.Output, "  ")
	}
	b.WriteString(indent(details, "    "))
}

func printCoverage(b *strings.Builder, c policy.FileCoverage) {
	percent := 100.0
	if c.Lines > 0 {
		percent = 100 * float64(c.Covered) / float64(c.Lines)
	}
	fmt.Fprintf(b, "%s: %.1f %% covered", c.File, percent)
	if len(c.Missing) > 0 {
		fmt.Fprintf(b, ", not line %s", lineRanges(c.Missing))
	}
	b.WriteString("\n")
}

// indent puts a prefix before each line.
func indent(text, prefix string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(prefix + line)
	}
	return b.String()
}
