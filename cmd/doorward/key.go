package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"doorward/authz/admin"
	"doorward/authz/token"

	"github.com/spf13/cobra"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "key",
		Short: "List, rotate, withdraw and export the keys that sign identity JWTs",
		Long: "A key is published before it signs (next), signs (active), and stays published until what it signed has expired\n" +
			"(retired). Keys follow each other as jwt.rotate_every says, when another file is put in the place of\n" +
			"jwt.signing_key_file, or when one is told to; applications that cache the JWKS for no longer than\n" +
			"jwt.consumer_cache notice nothing of it.",
	}
	cmd.AddCommand(keyListCommand(), keyRotateCommand(), keyRetireCommand(), keyExportCommand())
	return cmd
}

func keyListCommand() *cobra.Command {
	var running runningFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the published keys",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat("output", output); err != nil {
				return err
			}
			report, err := askKeys(&running, func(c *admin.Client, report *token.Report) error {
				return c.Get(cmd.Context(), "/v1/keys", nil, report)
			})
			if err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), report)
			}
			return printKeys(cmd.OutOrStdout(), report, time.Now())
		},
	}
	running.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func keyRotateCommand() *cobra.Command {
	var running runningFlags
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Publish a new key, which signs as soon as no application can hold a key set without it",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			report, err := askKeys(&running, func(c *admin.Client, report *token.Report) error {
				return c.Post(cmd.Context(), "/v1/keys/rotate", nil, report)
			})
			if err != nil {
				return err
			}
			ids := make(map[token.State]string)
			for _, k := range report.Keys {
				ids[k.State] = k.ID
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is published and signs from %s; %s signs until then\n", ids[token.Next], stamp(report.Rotates), ids[token.Active])
			return nil
		},
	}
	running.add(cmd)
	return cmd
}

func keyRetireCommand() *cobra.Command {
	var running runningFlags
	var force bool
	cmd := &cobra.Command{
		Use:   "retire KID",
		Short: "Withdraw a key at once, because it has leaked",
		Long: "Retire is for a key that has leaked: it signs nothing more and is no longer published, and the next key takes its place.\n" +
			"Where that breaks something, the command says what and does nothing unless there is --force; rotate breaks nothing.\n" +
			"KID is the key's id or at least its first six characters. One that begins with a hyphen comes after --.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var id string
			report, err := askKeys(&running, func(c *admin.Client, report *token.Report) error {
				err := c.Get(cmd.Context(), "/v1/keys", nil, report)
				if err == nil {
					id, err = keyID(*report, args[0])
				}
				if err != nil {
					return err
				}
				*report = token.Report{}
				return c.Post(cmd.Context(), "/v1/keys/"+id+"/retire", url.Values{"force": {strconv.FormatBool(force)}}, report)
			})
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is withdrawn: it signs nothing more and is not published any more\n", id)
			for _, k := range report.Keys {
				if k.State == token.Active {
					fmt.Fprintf(cmd.OutOrStdout(), "%s signs\n", k.ID)
				}
			}
			return printDoubts(cmd.OutOrStdout(), report, time.Now())
		},
	}
	running.add(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "also when it breaks something")
	return cmd
}

func keyExportCommand() *cobra.Command {
	var running runningFlags
	var out string
	cmd := &cobra.Command{
		Use:   "export [-o FILE]",
		Short: "Print the published key set, for applications that read it from a file",
		Long: "Export prints the JWKS, as it is served: public keys only. An application that reads it from a file has to read it again\n" +
			"before a new key signs; jwt.jwks_file keeps such a file up to date, and jwt.consumer_cache says how long the application\n" +
			"goes without reading it again. Grafana reads jwk_set_file only when it starts.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := running.client()
			if err != nil {
				return err
			}
			var set json.RawMessage
			if err := client.Get(cmd.Context(), "/v1/keys/jwks", nil, &set); err != nil {
				return err
			}
			if out != "" {
				return replaceFile(out, set)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s\n", set)
			return err
		},
	}
	running.add(cmd)
	cmd.Flags().StringVarP(&out, "out", "o", "", "write to this file instead, whole and readable by all")
	return cmd
}

// askKeys asks the running program and returns the state of the keys that it answered with.
func askKeys(running *runningFlags, ask func(*admin.Client, *token.Report) error) (token.Report, error) {
	var report token.Report
	client, err := running.client()
	if err == nil {
		err = ask(client, &report)
	}
	return report, err
}

// keyID completes the id of a key, of which at least six characters are given.
func keyID(report token.Report, given string) (string, error) {
	ids := make(map[string]bool)
	for _, k := range report.Keys {
		if k.ID == given || len(given) >= 6 && strings.HasPrefix(k.ID, given) {
			ids[k.ID] = true
		}
	}
	switch found := slices.Collect(maps.Keys(ids)); len(found) {
	case 0:
		return "", fmt.Errorf("no key has the id %q; doorward key list shows those that there are", given)
	case 1:
		return found[0], nil
	default:
		return "", fmt.Errorf("several keys begin with %q: give more of it", given)
	}
}

func printKeys(w io.Writer, report token.Report, now time.Time) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "KID\tSTATE\tSOURCE\tSINCE\tUNTIL\tWHAT FOR")
	for _, k := range report.Keys {
		since, until, what := k.Signs, k.Retired, "signs"
		switch k.State {
		case token.Next:
			since, until, what = k.Published, k.Signs, "published before it signs"
		case token.Retired:
			since, until, what = k.Retired, k.Gone, "verifies what it signed"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.State, k.Source, stamp(since), stamp(until), what)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if !report.Rotates.IsZero() {
		fmt.Fprintf(w, "another key signs from %s\n", stamp(report.Rotates))
	}
	return printDoubts(w, report, now)
}

// printDoubts prints what may go wrong with the keys as they are.
func printDoubts(w io.Writer, report token.Report, now time.Time) (err error) {
	for _, k := range report.Keys {
		if k.State == token.Active && k.Trusted.After(now) {
			_, err = fmt.Fprintf(w, "applications that cached a key set without it may refuse what %s signs until %s, or until they are restarted\n", k.ID, stamp(k.Trusted))
		}
	}
	if report.Problem != "" {
		_, err = fmt.Fprintf(w, "problem: %s\n", report.Problem)
	}
	return err
}

// stamp is a moment in tables and sentences; a dash is one that is not known.
func stamp(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
