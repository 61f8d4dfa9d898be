package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"doorward/authz/config"
	"doorward/authz/policy"

	"github.com/spf13/cobra"
)

func policyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "policy",
		Short: "Test, try and understand policies",
		Long: "Policies are tried here without a request and without the running program: from the files as they are now, by\n" +
			"the same compiler, with the same library and the same bounds as in doorward up.",
	}
	cmd.AddCommand(policyTestCommand(), policyFmtCommand(), policyCheckCommand(), policyEvalCommand(), policyDepsCommand(), policyReplayCommand())
	return cmd
}

// policySource says where a command takes policies from: the configuration, paths, or both.
type policySource struct{ path string }

func (s *policySource) add(cmd *cobra.Command) { configFlag(cmd, &s.path) }

// load returns what to load, and the configuration, which is nil when only the paths count.
func (s *policySource) load(cmd *cobra.Command, paths []string) (policy.Config, *config.Config, error) {
	if len(paths) > 0 && !cmd.Flags().Changed("config") {
		return policy.Config{Paths: paths}, nil, nil
	}
	c, err := config.Load(s.path)
	if err != nil {
		return policy.Config{}, nil, err
	}
	load, missing, err := offlineBundles(cmd.Context(), c)
	if err != nil {
		return policy.Config{}, nil, err
	}
	for _, warning := range missing {
		cmd.PrintErrln("warning: " + warning)
	}
	load.Paths = relative(load.Paths)
	return load, c, nil
}

// relative shortens the paths that are below the working directory: places in them are shown.
func relative(paths []string) []string {
	dir, err := os.Getwd()
	if err != nil {
		return paths
	}
	short := slices.Clone(paths)
	for i, path := range paths {
		if below, err := filepath.Rel(dir, path); err == nil && filepath.IsLocal(below) {
			short[i] = below
		}
	}
	return short
}

// formatFlag is --format, or -o, of the commands that scripts read.
func formatFlag(cmd *cobra.Command, format *string) {
	cmd.Flags().StringVarP(format, "format", "o", "text", "text or json")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// checkFormat refuses another value of a flag than text and json.
func checkFormat(flag, format string) error {
	if format != "text" && format != "json" {
		return fmt.Errorf("--%s %q: it is text or json", flag, format)
	}
	return nil
}

// regoFiles completes Rego files and directories.
func regoFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"rego"}, cobra.ShellCompDirectiveFilterFileExt
}

func writeJSON(w io.Writer, v any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}

// refuse prints problems as check does, and returns errReported.
func refuse(w io.Writer, format, what string, err error) error {
	found := problems(err)
	if format == "json" {
		if err := writeJSON(w, struct {
			OK       bool             `json:"ok"`
			Problems []config.Problem `json:"problems"`
		}{false, found}); err != nil {
			return err
		}
		return errReported
	}
	for _, p := range found {
		fmt.Fprintln(w, onScreen(p.String()))
	}
	fmt.Fprintf(w, "%s: %s\n", what, count(len(found), "problem"))
	return errReported
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// lineRanges writes line numbers as 3, 7-9.
func lineRanges(lines []int) string {
	var parts []string
	for i := 0; i < len(lines); {
		end := i
		for end+1 < len(lines) && lines[end+1] == lines[end]+1 {
			end++
		}
		if part := fmt.Sprint(lines[i]); end > i {
			parts = append(parts, fmt.Sprintf("%s-%d", part, lines[end]))
		} else {
			parts = append(parts, part)
		}
		i = end + 1
	}
	return strings.Join(parts, ", ")
}

// routesOf are the names of the routes that use a policy, in the order of the file.
func routesOf(c *config.Config, policy string) []string {
	names := []string{}
	for _, r := range c.Routes {
		if r.Policy == policy && !slices.Contains(names, r.Name) {
			names = append(names, r.Name)
		}
		if shadow := r.Name + " (shadow)"; r.ShadowPolicy == policy && !slices.Contains(names, shadow) {
			names = append(names, shadow)
		}
	}
	return names
}
