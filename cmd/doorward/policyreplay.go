package main

import (
	"doorward/authz/config"

	"github.com/spf13/cobra"
)

func policyReplayCommand() *cobra.Command {
	var r replaying
	cmd := &cobra.Command{
		Use:   "replay FIXTURES...",
		Short: "Decide captured requests anew, and say which would be decided otherwise",
		Long: "Replay reads files of captured requests, one JSON object a line (- is standard input), decides each by the routes and\n" +
			"policies of the configuration as they are in the files now, and prints those whose outcome, reasons, claims or\n" +
			"headers differ from what was captured. --policies decides by other policies with the same routes. The exit status\n" +
			"is 0 however much differs; with --fail-on-change it is 1 when anything does.",
		Example: "  doorward policy replay captured.jsonl\n" +
			"  doorward policy replay --policies next --fail-on-change captured.jsonl",
		Args: cobra.MinimumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"jsonl", "json", "ndjson"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error { return r.run(cmd, args) },
	}
	configFlag(cmd, &r.config)
	cmd.Flags().StringSliceVar(&r.policies, "policies", nil, "files and directories of policies, instead of the configuration's")
	_ = cmd.MarkFlagDirname("policies")
	cmd.Flags().BoolVar(&r.fail, "fail-on-change", false, "exit with status 1 when a decision would change")
	formatFlag(cmd, &r.format)
	return cmd
}

// replaying is one run of `policy replay`.
type replaying struct {
	config, format string
	policies       []string
	fail           bool
}

func (o *replaying) run(cmd *cobra.Command, files []string) error {
	if err := checkFormat("format", o.format); err != nil {
		return err
	}
	c, err := config.Load(o.config)
	if err != nil {
		return err
	}
	if len(o.policies) > 0 {
		c.Policies = o.policies
	}
	w := cmd.OutOrStdout()
	_, g, err := compiled(cmd.Context(), c)
	if err != nil {
		return refuse(w, o.format, "nothing was replayed", err)
	}
	r := newReplay(g)
	for _, file := range files {
		if err := r.file(cmd.Context(), cmd.InOrStdin(), file); err != nil {
			return err
		}
	}
	r.end()
	if o.format == "json" {
		err = writeJSON(w, r)
	} else {
		err = r.print(w)
	}
	if err == nil && o.fail && len(r.Changed) > 0 {
		err = errReported
	}
	return err
}
