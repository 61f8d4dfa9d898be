package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"doorward/authz/admin"

	"github.com/spf13/cobra"
)

func routeCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "route",
		Short: "Push routes to the running doorward, and see what became of them",
		Long: "Routes stand in the configuration's files, or are pushed to the running doorward, which keeps them. A file of routes to push is\n" +
			"one with a list `routes`, as those in routes_dir.",
	}
	cmd.AddCommand(routeApplyCommand(), routeDiffCommand(), routeListCommand(), routeGetCommand(), routeDeleteCommand())
	return cmd
}

// pushFlags are those of commands that change routes.
type pushFlags struct {
	running  runningFlags
	output   string
	wait     time.Duration
	validate string
}

func (f *pushFlags) add(cmd *cobra.Command) {
	f.running.add(cmd)
	cmd.Flags().DurationVar(&f.wait, "wait", 10*time.Second, "how long to wait for each Envoy's answer; 0s for not at all")
	cmd.Flags().StringVar(&f.validate, "validate", "auto", "auto has an Envoy binary validate the change first, where doorward finds one; off does not")
	words(cmd, "validate", "auto", "off")
	outputFlag(cmd, &f.output)
}

func (f *pushFlags) check() error {
	if f.validate != "auto" && f.validate != "off" {
		return fmt.Errorf("--validate %q: it is auto or off", f.validate)
	}
	if f.wait < 0 || f.wait > maxWait {
		return fmt.Errorf("--wait %s: it is at most %s", f.wait, maxWait)
	}
	return checkOutput(f.output)
}

func (f *pushFlags) query() url.Values {
	q := url.Values{"wait": {f.wait.String()}}
	if f.validate == "auto" {
		q.Set("validate", "envoy")
	}
	return q
}

// apply is the request that changes routes to those of files.
func (f *pushFlags) apply(cmd *cobra.Command, files []string, prune bool, query url.Values) (admin.Request, error) {
	body, err := f.readDocuments(cmd.InOrStdin(), files)
	query.Set("prune", fmt.Sprint(prune))
	return applying(query, body), err
}

// applying is the request of several changes as one.
func applying(query url.Values, body []byte) admin.Request {
	return admin.Request{Method: http.MethodPost, Path: routesPath + "/apply", Query: query, Type: "application/json", Body: body}
}

func routeApplyCommand() *cobra.Command {
	var flags pushFlags
	var files []string
	var dryRun, prune bool
	cmd := &cobra.Command{
		Use:   "apply -f FILE|DIR|-",
		Short: "Push routes, and wait until each Envoy has taken them",
		Long: "Apply creates and changes routes as one change: all of it is checked before anything happens, and one mistake refuses all of it.\n" +
			"It prints what changes, and then what each Envoy answered. The exit status is 0 when every connected Envoy has taken all of it, 1 when\n" +
			"it was refused or an Envoy has rejected a part of it, and 3 when it was taken and kept, and an Envoy has not acknowledged it yet\n" +
			"or none is connected. With --wait 0s nobody waits, and 0 says that it was taken.",
		Args: filesByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			query := flags.query()
			query.Set("dry_run", fmt.Sprint(dryRun))
			request, err := flags.apply(cmd, files, prune, query)
			if err != nil {
				return err
			}
			return flags.send(cmd, request)
		},
	}
	flags.add(cmd)
	filesFlag(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check and print what would change, and change nothing")
	cmd.Flags().BoolVar(&prune, "prune", false, "remove every pushed route that the files do not have")
	return cmd
}

// filesByFlag refuses arguments: cobra would take them for a command.
func filesByFlag(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("name the files with -f: %s -f %s", cmd.CommandPath(), strings.Join(args, " -f "))
	}
	return nil
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "file", "f", nil, "a file of routes, a directory of such files, or - for standard input; several times for several")
	_ = cmd.MarkFlagRequired("file")                        // fails only for a flag that does not exist
	_ = cmd.MarkFlagFilename("file", "yaml", "yml", "json") // the same
}

func routeDiffCommand() *cobra.Command {
	var flags pushFlags
	var files []string
	var prune bool
	cmd := &cobra.Command{
		Use:   "diff -f FILE|DIR|-",
		Short: "Print what apply would change",
		Long: "Diff is apply --dry-run without validation by an Envoy. The exit status is 0 when nothing would change, 2 when\n" +
			"something would, and 1 after an error.",
		Args: filesByFlag,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			request, err := flags.apply(cmd, files, prune, url.Values{"dry_run": {"true"}})
			if err != nil {
				return err
			}
			var answer pushAnswer
			if err := flags.ask(cmd, request, &answer); err != nil {
				return err
			}
			if err := printChange(cmd.OutOrStdout(), flags.output, answer); err != nil {
				return err
			}
			for _, c := range answer.Changes {
				if c.Action != actionUnchanged {
					return errDiffers
				}
			}
			return nil
		},
	}
	flags.running.add(cmd)
	outputFlag(cmd, &flags.output)
	flags.validate = "off"
	filesFlag(cmd, &files)
	cmd.Flags().BoolVar(&prune, "prune", false, "as apply --prune")
	return cmd
}

func routeDeleteCommand() *cobra.Command {
	var flags pushFlags
	var dryRun bool
	cmd := &cobra.Command{
		Use:               "delete NAME...",
		Short:             "Remove pushed routes, as one change",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: flags.running.routeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			body, err := json.Marshal(applied{Delete: args})
			if err != nil {
				return err
			}
			query := flags.query()
			query.Set("dry_run", fmt.Sprint(dryRun))
			return flags.send(cmd, applying(query, body))
		},
	}
	flags.add(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "print what would change, and change nothing")
	return cmd
}

// routeNames completes the names of the running doorward's routes.
func (f *runningFlags) routeNames(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	client, err := f.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var list struct {
		Routes []routeState `json:"routes"`
	}
	if err := client.Get(cmd.Context(), routesPath, nil, &list); err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	names := make([]string, len(list.Routes))
	for i, r := range list.Routes {
		names[i] = r.Name + "\t" + r.From
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
