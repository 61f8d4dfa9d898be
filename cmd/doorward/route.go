package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"doorward/authz/admin"
	"doorward/xds"

	"github.com/rogpeppe/go-internal/diff"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
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

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "table, json or yaml")
}

func checkOutput(output string) error {
	switch output {
	case "table", "json", "yaml":
		return nil
	}
	return fmt.Errorf("--output %q: it is table, json or yaml", output)
}

// write prints for scripts.
func write(w io.Writer, output string, v any) error {
	if output == "json" {
		return writeJSON(w, v)
	}
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var plain any
	if err := yaml.Unmarshal(text, &plain); err != nil {
		return err
	}
	out, err := yaml.Dump(plain, yaml.WithV4Defaults())
	if err == nil {
		_, err = w.Write(out)
	}
	return err
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
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			body, err := flags.readDocuments(cmd.InOrStdin(), files)
			if err != nil {
				return err
			}
			query := flags.query()
			query.Set("prune", fmt.Sprint(prune))
			query.Set("dry_run", fmt.Sprint(dryRun))
			return flags.send(cmd, admin.Request{Method: http.MethodPost, Path: routesPath + "/apply", Query: query, Type: "application/json", Body: body})
		},
	}
	flags.add(cmd)
	filesFlag(cmd, &files)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "check and print what would change, and change nothing")
	cmd.Flags().BoolVar(&prune, "prune", false, "remove every pushed route that the files do not have")
	return cmd
}

func filesFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVarP(files, "file", "f", nil, "a file of routes, a directory of such files, or - for standard input; several times for several")
	_ = cmd.MarkFlagRequired("file") // fails only for a flag that does not exist
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
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.check(); err != nil {
				return err
			}
			body, err := flags.readDocuments(cmd.InOrStdin(), files)
			if err != nil {
				return err
			}
			query := url.Values{"dry_run": {"true"}, "prune": {fmt.Sprint(prune)}}
			var answer pushAnswer
			if err := flags.ask(cmd, admin.Request{Method: http.MethodPost, Path: routesPath + "/apply", Query: query, Type: "application/json", Body: body}, &answer); err != nil {
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

// readDocuments makes the body of a change out of files. Relative paths in them are relative to each file; for a doorward on another machine to its own
// configuration.
func (f *pushFlags) readDocuments(stdin io.Reader, files []string) ([]byte, error) {
	var body applied
	for _, name := range files {
		found, err := documentFiles(name)
		if err != nil {
			return nil, err
		}
		for _, path := range found {
			d := appliedDocument{File: path}
			var text []byte
			if path == "-" {
				d.File = "standard input"
				if d.Dir, err = os.Getwd(); err == nil {
					text, err = io.ReadAll(stdin)
				}
			} else if d.Dir, err = filepath.Abs(filepath.Dir(path)); err == nil {
				text, err = os.ReadFile(path)
			}
			if err != nil {
				return nil, err
			}
			if d.Text = string(text); f.running.server != "" {
				d.Dir = ""
			}
			body.Documents = append(body.Documents, d)
		}
	}
	return json.Marshal(body)
}

// documentFiles are the files that a name stands for: itself, or the YAML files of a directory.
func documentFiles(name string) ([]string, error) {
	if name == "-" {
		return []string{name}, nil
	}
	info, err := os.Stat(name)
	if err != nil || !info.IsDir() {
		return []string{name}, err
	}
	entries, err := os.ReadDir(name)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, e := range entries {
		if ext := filepath.Ext(e.Name()); !strings.HasPrefix(e.Name(), ".") && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
			files = append(files, filepath.Join(name, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s has no file that ends in .yaml, .yml or .json", name)
	}
	return files, nil
}

// ask sends a change and reads the answer. Problems of the documents are printed as check prints them.
func (f *pushFlags) ask(cmd *cobra.Command, r admin.Request, answer *pushAnswer) error {
	client, err := f.running.client()
	if err != nil {
		return err
	}
	r.Within = f.wait + time.Minute // a large change takes its time
	err = client.Send(cmd.Context(), r, answer)
	var no *admin.Refusal
	if !errors.As(err, &no) || no.Body == nil {
		return err
	}
	var detail refusedChange
	if json.Unmarshal(no.Body, &detail) != nil || len(detail.Problems) == 0 {
		return err
	}
	if f.output != "table" {
		err = write(cmd.OutOrStdout(), f.output, detail)
	} else {
		for _, p := range detail.Problems {
			fmt.Fprintln(cmd.ErrOrStderr(), shown(p.String(), "\n"))
		}
		_, err = fmt.Fprintf(cmd.ErrOrStderr(), "%s; nothing is changed\n", count(len(detail.Problems), "problem"))
	}
	if err != nil {
		return err
	}
	return errReported
}

// send sends a change and prints what became of it.
func (f *pushFlags) send(cmd *cobra.Command, r admin.Request) error {
	var answer pushAnswer
	if err := f.ask(cmd, r, &answer); err != nil {
		return err
	}
	if err := printChange(cmd.OutOrStdout(), f.output, answer); err != nil {
		return err
	}
	states := make(map[string]bool)
	for _, a := range answer.Envoys {
		states[a.State] = true
	}
	switch {
	case states[xds.Rejected]:
		return errReported
	case states[xds.Waiting], answer.alone():
		return errNotYetDone
	}
	return nil
}

// alone says that Envoys were to be waited for and none is connected.
func (a pushAnswer) alone() bool { return a.Envoys != nil && len(a.Envoys) == 0 }

func printChange(w io.Writer, output string, answer pushAnswer) error {
	if output != "table" {
		return write(w, output, answer)
	}
	var b strings.Builder
	did := make(map[string][]string)
	for _, c := range answer.Changes {
		did[c.Action] = append(did[c.Action], c.Name)
		if c.Action != actionUnchanged {
			_, changed, _ := strings.Cut(string(diff.Diff("route "+c.Name, []byte(c.Before), "route "+c.Name, []byte(c.After))), "\n")
			b.WriteString(changed)
		}
	}
	would := ""
	if !answer.Applied {
		would = "would "
	}
	for _, action := range []string{actionCreate, actionUpdate, actionDelete} {
		if names := did[action]; len(names) > 0 {
			fmt.Fprintf(&b, "%s%s %s\n", would, action, few(names))
		}
	}
	if n := len(did[actionUnchanged]); n > 0 {
		fmt.Fprintf(&b, "%s as before\n", count(n, "route"))
	} else if len(answer.Changes) == 0 {
		fmt.Fprintln(&b, "no routes")
	}
	for _, a := range answer.Envoys {
		printEnvoyAnswer(&b, a)
	}
	if answer.alone() {
		fmt.Fprintln(&b, "no Envoy is connected; each gets it when it comes")
	}
	_, err := io.WriteString(w, shown(b.String(), "\n\t"))
	return err
}

// few names some of many.
func few(names []string) string {
	const some = 10
	if len(names) > some {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:some], ", "), len(names)-some)
	}
	return strings.Join(names, ", ")
}

func printEnvoyAnswer(w io.Writer, a xds.Answer) {
	switch a.State {
	case xds.Acknowledged:
		fmt.Fprintf(w, "envoy %s: acknowledged after %s\n", a.Node, a.Took.Round(time.Millisecond))
	case xds.Waiting:
		fmt.Fprintf(w, "envoy %s: has not acknowledged %s within %s; it is still on its way\n", a.Node, a.Waiting, a.Took.Round(time.Millisecond))
	case xds.Gone:
		fmt.Fprintf(w, "envoy %s: gone\n", a.Node)
	}
	for _, r := range a.Rejected {
		fmt.Fprintf(w, "envoy %s: rejected %s %q and keeps its last good version: %s\n", a.Node, r.Type, r.Resource, r.Message)
	}
}

func routeListCommand() *cobra.Command {
	var running runningFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print all routes and what became of them",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Routes []routeState `json:"routes"`
			}
			if err := get(cmd, &running, output, routesPath, &list); err != nil || output != "table" {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "NAME\tFROM\tMATCH\tTO\tPOLICY\tSOURCE\tSTATUS\tREASON")
			for _, r := range list.Routes {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", dash(r.Name), dash(r.From), dash(r.Match), dash(r.To), dash(r.Policy), dash(r.Source), r.Status, dash(r.Reason))
			}
			return table.Flush()
		},
	}
	running.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

// get asks an endpoint and, for scripts, prints its answer.
func get(cmd *cobra.Command, running *runningFlags, output, path string, answer any) error {
	if err := checkOutput(output); err != nil {
		return err
	}
	client, err := running.client()
	if err != nil {
		return err
	}
	if err := client.Send(cmd.Context(), admin.Request{Method: http.MethodGet, Path: path, Within: time.Minute}, answer); err != nil {
		return err
	}
	if output == "table" {
		return nil
	}
	return write(cmd.OutOrStdout(), output, answer)
}

func routeGetCommand() *cobra.Command {
	var running runningFlags
	var output string
	cmd := &cobra.Command{
		Use:               "get NAME",
		Short:             "Print one route and what became of it",
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: running.routeNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			var r routeState
			if err := get(cmd, &running, output, routesPath+"/"+url.PathEscape(args[0]), &r); err != nil || output != "table" {
				return err
			}
			var p printer
			p.line("route", "%s", r.Name)
			p.line("from", "%s", r.From)
			p.line("match", "%s", r.Match)
			p.line("to", "%s", r.To)
			p.line("policy", "%s", r.Policy)
			p.line("source", "%s", r.Source)
			p.line("revision", "%s", r.Revision)
			p.line("etag", "%s", r.ETag)
			p.line("status", "%s", strings.TrimSuffix(r.Status+": "+r.Reason, ": "))
			if r.Document != "" {
				p.WriteString("\n" + r.Document)
			}
			_, err := io.WriteString(cmd.OutOrStdout(), onScreen(p.String()))
			return err
		},
	}
	running.add(cmd)
	outputFlag(cmd, &output)
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
			return flags.send(cmd, admin.Request{Method: http.MethodPost, Path: routesPath + "/apply", Query: query, Type: "application/json", Body: body})
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

func envoyListCommand() *cobra.Command {
	var running runningFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the connected Envoys, and what each has acknowledged and rejected",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Envoys []xds.Envoy `json:"envoys"`
			}
			if err := get(cmd, &running, output, envoysPath, &list); err != nil || output != "table" {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "NODE\tVERSION\tCONNECTED\tCURRENT\tLAST ACKNOWLEDGED\tREJECTED")
			for _, e := range list.Envoys {
				var last []string
				for _, kind := range xds.Kinds() {
					if at, ok := e.Acked[kind]; ok {
						last = append(last, kind+" "+at.UTC().Format(time.TimeOnly))
					}
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%t\t%s\t%d\n", dash(e.Node), dash(e.Version), stamp(e.Connected), e.Current, dash(strings.Join(last, ", ")), len(e.Rejected))
			}
			for _, e := range list.Envoys {
				for _, r := range e.Rejected {
					fmt.Fprintf(table, "%s rejected %s %s at %s: %s\n", dash(e.Node), r.Type, dash(r.Resource), stamp(r.Time), dash(r.Message))
				}
			}
			return table.Flush()
		},
	}
	running.add(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func certCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "cert", Short: "The hosts' certificates"}
	var running runningFlags
	var output string
	list := &cobra.Command{
		Use:   "list",
		Short: "Print each host's certificate",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var list struct {
				Certificates []certificateState `json:"certificates"`
			}
			if err := get(cmd, &running, output, certsPath, &list); err != nil || output != "table" {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(table, "HOST\tSOURCE\tUNTIL\tNAMES\tPROBLEM")
			for _, c := range list.Certificates {
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\n", c.Host, dash(c.Source), stamp(c.NotAfter), dash(cmp.Or(few(c.Names), "-")), dash(c.Problem))
			}
			return table.Flush()
		},
	}
	running.add(list)
	outputFlag(list, &output)
	cmd.AddCommand(list)
	return cmd
}
