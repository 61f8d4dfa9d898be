package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"

	"doorward/authz/admin"
	"doorward/xds"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"
)

func outputFlag(cmd *cobra.Command, output *string) {
	cmd.Flags().StringVarP(output, "output", "o", "table", "table, json or yaml")
	words(cmd, "output", "table", "json", "yaml")
}

// words completes a flag whose values are words.
func words(cmd *cobra.Command, flag string, values ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
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
			fmt.Fprintln(table, "NODE\tGROUP\tVIA\tCERTIFICATE UNTIL\tVERSION\tCONNECTED\tCURRENT\tLAST ACKNOWLEDGED\tREJECTED")
			for _, e := range list.Envoys {
				var last []string
				for _, kind := range xds.Kinds() {
					if at, ok := e.Acked[kind]; ok {
						last = append(last, kind+" "+at.UTC().Format(time.TimeOnly))
					}
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%t\t%s\t%d\n", dash(e.Node), dash(e.Group), e.Via, stamp(e.Certificate), dash(e.Version), stamp(e.Connected), e.Current, dash(strings.Join(last, ", ")), len(e.Rejected))
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
			fmt.Fprintln(table, "HOST\tSOURCE\tUNTIL\tRENEWAL\tNAMES\tPROBLEM")
			for _, c := range list.Certificates {
				until := stamp(c.NotAfter)
				if c.Pending {
					until = "pending"
				}
				fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", c.Host, dash(c.Source), until, stamp(c.Renewal), dash(cmp.Or(few(c.Names), "-")), dash(c.Problem))
			}
			return table.Flush()
		},
	}
	running.add(list)
	outputFlag(list, &output)
	cmd.AddCommand(list)
	return cmd
}
