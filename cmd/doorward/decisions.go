package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode"

	"doorward/authz/admin"
	"doorward/authz/decision"

	"github.com/spf13/cobra"
)

func decisionsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "decisions",
		Short: "Follow what the running doorward decides, or capture it",
	}
	cmd.AddCommand(tailCommand(), captureCommand())
	return cmd
}

// filterFlags choose decisions.
type filterFlags struct{ decision.Filter }

func (f *filterFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.Route, "route", "", "only of this route")
	flags.StringVar(&f.User, "user", "", "only of this person, by subject or e-mail")
	flags.StringVar(&f.Outcome, "outcome", "", "only with this outcome: "+strings.Join(decision.Outcomes(), ", "))
	flags.IntVar(&f.Status, "status", 0, "only answered with this status")
	flags.StringVar(&f.Path, "path", "", "only of paths that begin so")
	_ = cmd.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions(decision.Outcomes(), cobra.ShellCompDirectiveNoFileComp)) // fails only for a flag that does not exist
}

func tailCommand() *cobra.Command {
	var running runningFlags
	var filter filterFlags
	var output string
	var last int
	var follow bool
	cmd := &cobra.Command{
		Use:   "tail",
		Short: "Print decisions while they are made",
		Long: "Tail prints the last decisions and then those that are made, one a line, until it is interrupted. All of them are there,\n" +
			"whatever decision_log says, except that what it masks is masked here too; --user and --path choose by what is behind\n" +
			"the mask. A reader that is too slow loses some and is told how many.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkFormat("output", output); err != nil {
				return err
			}
			if last < 0 {
				return fmt.Errorf("--last %d: it is 0 or more", last)
			}
			query, err := filter.query(last, follow)
			if err != nil {
				return err
			}
			client, err := running.client()
			if err != nil {
				return err
			}
			write := printLine
			if output == "json" {
				write = func(w io.Writer, line []byte) error { _, err := w.Write(append(line, '\n')); return err }
			}
			out := cmd.OutOrStdout()
			return follows(cmd.Context(), client, "/v1/decisions", query, func(line []byte) (bool, error) { return true, write(out, line) })
		},
	}
	running.add(cmd)
	filter.add(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	cmd.Flags().IntVar(&last, "last", 10, "how many of the last decisions come first")
	cmd.Flags().BoolVarP(&follow, "follow", "f", true, "go on with what is decided from now on")
	return cmd
}

func (f *filterFlags) query(last int, follow bool) (url.Values, error) {
	if err := f.Validate(); err != nil {
		return nil, fmt.Errorf("--%w", err)
	}
	query := f.Values()
	query.Set("last", strconv.Itoa(last))
	query.Set("follow", strconv.FormatBool(follow))
	return query, nil
}

// follows calls each with every line of a stream until it says false, or the stream or ctx ends. An interruption is no error.
func follows(ctx context.Context, client *admin.Client, path string, query url.Values, each func(line []byte) (bool, error)) error {
	body, err := client.Stream(ctx, path, query)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer body.Close()
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxCapture)
	for lines.Scan() {
		more, err := each(lines.Bytes())
		if err != nil || !more {
			return err
		}
	}
	if err := lines.Err(); err != nil && ctx.Err() == nil {
		return fmt.Errorf("the running doorward ended the stream: %w", err)
	}
	return nil
}

// printLine prints a record for a person.
func printLine(w io.Writer, line []byte) error {
	var r struct {
		decision.Record
		Count int `json:"count"`
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("a line of the running doorward: %w", err)
	}
	_, err := io.WriteString(w, textLine(&r.Record, r.Count))
	return err
}

// textLine is a record on one line: when, outcome, status, route, who, what, and why it was not allowed.
func textLine(r *decision.Record, count int) string {
	if r.Kind != decision.KindDecision && r.Kind != decision.KindShadow {
		return fmt.Sprintf("-- %d decisions are missing here: they came faster than they were read\n", count)
	}
	outcome, status := r.Outcome, strconv.Itoa(r.Status)
	if r.Kind == decision.KindShadow {
		outcome, status = "shadow", "-"
	}
	who := r.Email
	for _, other := range []string{r.Subject, r.ClientIP, "-"} {
		if who == "" {
			who = other
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %-15s %s %s  %s  %s %s%s", r.Time.Local().Format("2006-01-02 15:04:05.000"), plain(outcome), status, plain(r.Route), plain(who),
		plain(r.Method), plain(r.Host), plain(r.Path))
	if r.Kind == decision.KindShadow {
		fmt.Fprintf(&b, "  %s would %s, differs in %s", plain(r.ShadowPolicy), plain(r.ShadowOutcome), plain(strings.Join(r.Differences, ",")))
	}
	for _, reason := range append(r.Reasons, r.Cause) {
		if reason != "" {
			fmt.Fprintf(&b, "  %q", reason)
		}
	}
	fmt.Fprintf(&b, "  %s  %s\n", r.Took.Round(time.Microsecond), plain(r.ID))
	return b.String()
}

// plain replaces what could steer a terminal or be taken for another column.
func plain(s string) string {
	return strings.ReplaceAll(shown(s, ""), " ", string(unicode.ReplacementChar))
}

func captureCommand() *cobra.Command {
	var running runningFlags
	var filter filterFlags
	var file string
	var count, last int
	var limit time.Duration
	cmd := &cobra.Command{
		Use:   "capture",
		Short: "Save decided requests as fixtures for doorward policy replay",
		Long: "Capture writes the requests that are decided from now on, one JSON object a line: what the policy was asked and what it said.\n" +
			"It ends after --count requests, after --for, or when it is interrupted.\n\n" +
			"A fixture is a request as policies read it, with the person, the query and the headers that Envoy sends, so it is as\n" +
			"confidential as the requests are; decision_log.mask does not apply to it, because a replay would then decide otherwise.\n" +
			"Doorward's own cookies and tokens are never in it. The values of Authorization, Proxy-Authorization and Cookie are\n" +
			"\"[masked]\", unless the route's policy reads that header.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if count < 0 || last < 0 || limit < 0 {
				return errors.New("--count, --last and --for are 0 or more")
			}
			query, err := filter.query(last, true)
			if err != nil {
				return err
			}
			client, err := running.client()
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if file != "-" {
				f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
				if err != nil {
					return fmt.Errorf("--output: %w", err)
				}
				defer func() { err = errors.Join(err, f.Close()) }()
				out = f
			}
			ctx := cmd.Context()
			if limit > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, limit)
				defer cancel()
			}
			n, lost, err := captureTo(ctx, out, client, query, count)
			fmt.Fprintf(cmd.ErrOrStderr(), "captured %d requests\n", n)
			if lost > 0 {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d are missing: they came faster than they were written\n", lost)
			}
			return err
		},
	}
	running.add(cmd)
	filter.add(cmd)
	cmd.Flags().StringVarP(&file, "output", "o", "-", "a file that does not exist yet; - for standard output")
	cmd.Flags().IntVar(&count, "count", 0, "how many requests; 0 for any number")
	cmd.Flags().IntVar(&last, "last", 0, "begin with that many that have been decided already, as far as they are kept")
	cmd.Flags().DurationVar(&limit, "for", 0, "how long; 0 until it is interrupted")
	return cmd
}

// captureTo writes the fixtures of a stream, at most count unless it is 0.
func captureTo(ctx context.Context, out io.Writer, client *admin.Client, query url.Values, count int) (n, lost int, err error) {
	err = follows(ctx, client, "/v1/captures", query, func(line []byte) (bool, error) {
		var dropped struct {
			Count int `json:"count"`
		}
		if err := json.Unmarshal(line, &dropped); err == nil && dropped.Count > 0 {
			lost += dropped.Count
			return true, nil
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			return false, err
		}
		n++
		return count == 0 || n < count, nil
	})
	return n, lost, err
}
