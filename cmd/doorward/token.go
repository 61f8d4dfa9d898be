package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"doorward/authz/bearer"

	"github.com/spf13/cobra"
)

func tokenCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "token",
		Short: "Create, list and revoke service tokens",
		Long: "A service token lets a program in where a route has bearer: {service_tokens: true}, as Authorization: Bearer dw_... Policies see it\n" +
			"as the user service:NAME, with the groups that it was given. It is shown once; what is kept is its hash.",
	}
	cmd.AddCommand(tokenCreateCommand(), tokenListCommand(), tokenRevokeCommand())
	return cmd
}

func tokenCreateCommand() *cobra.Command {
	var running runningFlags
	var routes, groups []string
	var expires string
	cmd := &cobra.Command{
		Use:   "create NAME --routes ROUTE,... [--groups GROUP,...] [--expires 90d]",
		Short: "Print a new token, which cannot be shown again",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			life, err := parseLife(expires)
			if err != nil {
				return err
			}
			client, err := running.client()
			if err != nil {
				return err
			}
			var made newToken
			what := url.Values{"name": args, "route": routes, "group": groups, "life": {life.String()}}
			if err := client.Post(cmd.Context(), "/v1/tokens", what, &made); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), made.Token)
			return err
		},
	}
	running.add(cmd)
	cmd.Flags().StringSliceVar(&routes, "routes", nil, "the routes that take it")
	cmd.Flags().StringSliceVar(&groups, "groups", nil, "what policies see as its user's groups")
	cmd.Flags().StringVar(&expires, "expires", "90d", "how long it is good for, at most 366d")
	_ = cmd.MarkFlagRequired("routes") // fails only for a flag that does not exist
	return cmd
}

// parseLife reads whole days, as 90d, or a duration as Go writes it.
func parseLife(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, fmt.Errorf("--expires %q: write it as 90d or 12h", s)
	}
	return d, nil
}

func tokenListCommand() *cobra.Command {
	var running runningFlags
	var output string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "Print the tokens that are good",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat("output", output); err != nil {
				return err
			}
			client, err := running.client()
			if err != nil {
				return err
			}
			var list tokenList
			if err := client.Get(cmd.Context(), "/v1/tokens", nil, &list); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			return printTokens(cmd.OutOrStdout(), list.Tokens)
		},
	}
	running.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printTokens(w io.Writer, list []bearer.ServiceToken) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "NAME\tROUTES\tGROUPS\tSESSION\tSINCE\tUNTIL\tLAST USED")
	for _, t := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n",
			t.Name, strings.Join(t.Routes, ","), dash(strings.Join(t.Groups, ",")), t.Session, stamp(t.Created), stamp(t.Expires), stamp(t.Used))
	}
	return table.Flush()
}

func tokenRevokeCommand() *cobra.Command {
	var running runningFlags
	cmd := &cobra.Command{
		Use:   "revoke NAME",
		Short: "End a token, on every route and at once",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := running.client()
			if err != nil {
				return err
			}
			if err := client.Post(cmd.Context(), "/v1/tokens/"+url.PathEscape(args[0])+"/revoke", nil, &struct{}{}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked\n", args[0])
			return err
		},
	}
	running.add(cmd)
	return cmd
}
