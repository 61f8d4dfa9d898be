package main

import (
	"cmp"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"doorward/authz/config"
	"doorward/authz/policy"

	"github.com/spf13/cobra"
)

func policyCheckCommand() *cobra.Command {
	var source policySource
	var format string
	cmd := &cobra.Command{
		Use:   "check [PATH...]",
		Short: "Say whether policies compile, and which routes use them",
		Long: "Check compiles the policies of the configuration, or those in PATH alone, and reports the problems that doorward\n" +
			"check reports of them. The exit status is 0 when there are none, 1 otherwise.",
		ValidArgsFunction: regoFiles,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat("format", format); err != nil {
				return err
			}
			if len(args) > 0 && cmd.Flags().Changed("config") {
				return fmt.Errorf("give --config or PATH, not both: the policies of the configuration are those of its key policies")
			}
			load, c, err := source.load(cmd, args)
			if err != nil {
				return err
			}
			var set *policy.Set
			if c != nil {
				set, _, err = compiled(cmd.Context(), c)
			} else {
				set, err = policy.Load(cmd.Context(), load)
			}
			what := cmp.Or(strings.Join(args, ", "), source.path)
			if err != nil {
				return refuse(cmd.OutOrStdout(), format, what, err)
			}
			return printPolicies(cmd.OutOrStdout(), format, listPolicies(set, c))
		},
	}
	source.add(cmd)
	formatFlag(cmd, &format)
	return cmd
}

// policyRow is one policy that a route can name.
type policyRow struct {
	Policy string   `json:"policy"`
	Files  []string `json:"files"`            // none for what is built in
	Routes []string `json:"routes,omitempty"` // that use it; absent without a configuration
}

// listPolicies are the set's policies. What is built in and not used is left out.
func listPolicies(set *policy.Set, c *config.Config) []policyRow {
	rows := []policyRow{}
	for _, name := range set.Names() {
		row := policyRow{Policy: name, Files: set.Files(name)}
		if c != nil {
			row.Routes = routesOf(c, name)
		}
		if len(row.Files) > 0 || len(row.Routes) > 0 {
			rows = append(rows, row)
		}
	}
	return rows
}

func printPolicies(w io.Writer, format string, rows []policyRow) error {
	if format == "json" {
		return writeJSON(w, struct {
			OK       bool        `json:"ok"`
			Policies []policyRow `json:"policies"`
		}{true, rows})
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "POLICY\tFILES\tROUTES")
	for _, r := range rows {
		fmt.Fprintf(t, "%s\t%s\t%s\n", r.Policy, cmp.Or(strings.Join(r.Files, ", "), "(built in)"), cmp.Or(strings.Join(r.Routes, ", "), "-"))
	}
	return t.Flush()
}
