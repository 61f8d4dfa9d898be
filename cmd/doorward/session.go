package main

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"text/tabwriter"
	"time"

	"doorward/authz/admin"

	"github.com/spf13/cobra"
)

func sessionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "session",
		Short: "List and revoke sessions",
		Long: "A session is one sign-in of one person in one browser, for all hosts. It is named by its hash, as in decisions and on the\n" +
			"person's own page; the cookie that opens it is nowhere to be seen.",
	}
	cmd.AddCommand(sessionListCommand(), sessionRevokeCommand())
	return cmd
}

// sessionInfo is one session in the admin API.
type sessionInfo struct {
	ID       string    `json:"id"` // hash
	User     string    `json:"user"`
	Email    string    `json:"email"`
	Provider string    `json:"provider"`
	Agent    string    `json:"agent"`
	Created  time.Time `json:"created"`
	Expires  time.Time `json:"expires"`
	Groups   []string  `json:"groups"`
}

func sessionListCommand() *cobra.Command {
	var running runningFlags
	var user, output string
	var limit int
	cmd := &cobra.Command{
		Use:   "list [--user ID|EMAIL]",
		Short: "Print the live sessions",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat("output", output); err != nil {
				return err
			}
			client, err := running.client()
			if err != nil {
				return err
			}
			var list struct {
				Sessions []sessionInfo `json:"sessions"`
				More     bool          `json:"more"`
			}
			if err := client.Get(cmd.Context(), "/v1/sessions", url.Values{"user": {user}, "limit": {fmt.Sprint(limit)}}, &list); err != nil {
				return err
			}
			if output == "json" {
				return writeJSON(cmd.OutOrStdout(), list)
			}
			return printSessions(cmd.OutOrStdout(), list.Sessions, list.More)
		},
	}
	running.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "only of this user, by id or e-mail")
	cmd.Flags().IntVar(&limit, "limit", 1000, "how many at most")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	return cmd
}

func printSessions(w io.Writer, list []sessionInfo, more bool) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "SESSION\tUSER\tE-MAIL\tPROVIDER\tBROWSER\tSINCE\tUNTIL")
	for _, s := range list {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.ID, dash(s.User), dash(s.Email), dash(s.Provider), dash(s.Agent), stamp(s.Created), stamp(s.Expires))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if more {
		_, err := fmt.Fprintln(w, "there are more: --user or --limit chooses")
		return err
	}
	return nil
}

// dash makes an empty cell of a table visible, and keeps control characters that a provider sent out of a terminal.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return shown(s, "")
}

func sessionRevokeCommand() *cobra.Command {
	var running runningFlags
	var user string
	var all bool
	cmd := &cobra.Command{
		Use:   "revoke SESSION... | --user ID|EMAIL | --all",
		Short: "End sessions, on every host and at once",
		Long: "Revoke ends the sessions that are named by their hashes, all sessions of a user, or all. Requests after it are those of a\n" +
			"stranger, open streams end within seconds, and a sign-in of the same user that has begun but not ended is refused.\n" +
			"The session at the provider goes on: who is signed in there may come back without a password.",
		RunE: func(cmd *cobra.Command, args []string) error {
			given := 0
			for _, is := range []bool{len(args) > 0, user != "", all} {
				if is {
					given++
				}
			}
			if given != 1 {
				return errors.New("name sessions by their hashes (doorward session list), or give one of --user and --all")
			}
			client, err := running.client()
			if err != nil {
				return err
			}
			return revokeSessions(cmd, client, url.Values{"session": args, "user": {user}, "all": {fmt.Sprint(all)}})
		},
	}
	running.add(cmd)
	cmd.Flags().StringVar(&user, "user", "", "all sessions of this user, by id or e-mail")
	cmd.Flags().BoolVar(&all, "all", false, "all sessions of everybody")
	return cmd
}

func revokeSessions(cmd *cobra.Command, client *admin.Client, what url.Values) error {
	var done struct {
		Revoked int `json:"revoked"`
	}
	if err := client.Post(cmd.Context(), "/v1/sessions/revoke", what, &done); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%s ended\n", count(done.Revoked, "session"))
	return err
}
