package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"doorward/authz/admin"
	"doorward/authz/config"
	"doorward/xds"
	"doorward/xds/cert"

	"github.com/spf13/cobra"
)

func checkCommand() *cobra.Command {
	var format string
	var wait bool
	asked := new(envoyBinary)
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say whether a configuration is good, and what is wrong with it",
		Long: "Check reads a configuration as serve does: keys, routes, certificates, policies and what they come to in Envoy.\n" +
			"An Envoy binary is asked too whether it would take it (envoy --mode validate), where there is one as up finds it.\n" +
			"With --wait it then waits until the running doorward serves exactly this: decided by its policies and\n" +
			"acknowledged by every Envoy. The exit status is 0 when all is well, 1 otherwise.",
		Args: cobra.MaximumNArgs(1),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat("format", format); err != nil {
				return err
			}
			file := append(args, defaultConfig)[0]
			c, warnings, err := check(cmd.Context(), file, asked)
			r := report{File: file, Problems: problems(err), Warnings: warnings}
			if err == nil {
				_, r.Envoy, _ = asked.find(cmd.Context())
				r.Checksum, r.Routes, r.Hosts = c.Checksum, len(c.Routes), len(c.Hosts())
				if wait {
					ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
					defer cancel()
					r.Problems = problems(served(ctx, c))
					r.Served = len(r.Problems) == 0
				}
			}
			r.OK = len(r.Problems) == 0
			if err := r.print(cmd.OutOrStdout(), format); err != nil {
				return err
			}
			if !r.OK {
				return errReported
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", "text", "text or json")
	cmd.Flags().StringVar(&asked.flag, "envoy", "", "the Envoy binary that is asked (else ENVOY, PATH, or .tools/), or off")
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until the running doorward serves this configuration")
	cmd.Flags().DurationVar(&timeout, "timeout", 10*time.Second, "how long --wait waits at most")
	return cmd
}

// check loads a configuration, builds both planes' part of it, without touching the data directory, and has an Envoy look at its.
func check(ctx context.Context, path string, asked *envoyBinary) (*config.Config, []string, error) {
	c, err := config.Load(path)
	if err != nil {
		return nil, nil, err
	}
	ca, err := cert.Placeholder()
	if err != nil {
		return nil, nil, err
	}
	source, err := cert.NewSource(c, ca, awaited(c))
	if err != nil {
		return nil, nil, err
	}
	load, missing, err := offlineBundles(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	made, err := build(ctx, c, load, new(xds.Builder), source, []string{})
	if err == nil {
		err = asked.validate(ctx, made.resources)
	}
	return c, slices.Concat(source.Warnings(time.Now()), doubts(c), missing), err
}

// doubts says what is allowed and seldom meant.
func doubts(c *config.Config) (doubts []string) {
	_, port, err := net.SplitHostPort(c.Listen.HTTPS)
	if err != nil {
		return nil // Load has refused it
	}
	seen := make(map[string]bool)
	for _, r := range c.Routes {
		if from := strconv.Itoa(r.From.Port()); from != port && !seen[r.Host()] {
			seen[r.Host()] = true
			doubts = append(doubts, fmt.Sprintf("routes[%s].from: browsers will open port %s, and listen.https is %s: right only where something leads from the one to the other",
				r.Name, from, c.Listen.HTTPS))
		}
	}
	return doubts
}

// served waits until the running doorward serves a configuration, or says why it does not.
func served(ctx context.Context, c *config.Config) error {
	client := admin.NewClient(filepath.Join(c.DataDir, controlSocket))
	var unread string
	var since time.Time
	for {
		status, err := client.Status(ctx)
		switch {
		case errors.Is(err, admin.ErrNotRunning) && ctx.Err() == nil:
			return fmt.Errorf("--wait: %w for %s: start it with doorward up or serve", admin.ErrNotRunning, c.Path)
		case err == nil && status.Loaded == c.Checksum && status.Served:
			return nil
		case err == nil && (status.Refused == c.Checksum || status.Loaded == c.Checksum) && status.Problem != "":
			return fmt.Errorf("the running doorward does not serve it: %s", status.Problem)
		}
		// It does not say of which files that is: those that there are, when it has tried again meanwhile. They may be good without pushed routes.
		if err == nil && status.Unread != unread {
			unread, since = status.Unread, time.Now()
		}
		if unread != "" && time.Since(since) > retryEvery+time.Second {
			return fmt.Errorf("the running doorward does not serve it: %s", unread)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not served within the time given: the running doorward has %s with %s", status.Config, short(status.Loaded))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func short(checksum string) string {
	if len(checksum) > 12 {
		return checksum[:12]
	}
	return checksum
}

// report is what check prints.
type report struct {
	OK       bool             `json:"ok"`
	File     string           `json:"file"`
	Checksum string           `json:"checksum,omitempty"`
	Routes   int              `json:"routes"`
	Hosts    int              `json:"hosts"`
	Envoy    string           `json:"envoy,omitempty"` // the version of the one that would take it
	Served   bool             `json:"served"`
	Problems []config.Problem `json:"problems"`
	Warnings []string         `json:"warnings,omitempty"`
}

func (r report) print(w io.Writer, format string) error {
	if format == "json" {
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(r)
	}
	var b strings.Builder
	for _, warning := range r.Warnings {
		fmt.Fprintln(&b, "warning:", warning)
	}
	if r.OK && r.Envoy != "" {
		fmt.Fprintf(&b, "Envoy %s would take it\n", r.Envoy)
	}
	switch {
	case !r.OK:
		for _, p := range r.Problems {
			fmt.Fprintln(&b, config.Problems{p}.Error())
		}
		fmt.Fprintf(&b, "%s: %d problem(s)\n", r.File, len(r.Problems))
	case r.Served:
		fmt.Fprintf(&b, "%s: good and served, %s on %s, checksum %s\n", r.File, count(r.Routes, "route"), count(r.Hosts, "host"), short(r.Checksum))
	default:
		fmt.Fprintf(&b, "%s: good, %s on %s, checksum %s\n", r.File, count(r.Routes, "route"), count(r.Hosts, "host"), short(r.Checksum))
	}
	_, err := io.WriteString(w, onScreen(b.String()))
	return err
}

// problems flattens an error into what a report shows.
func problems(err error) []config.Problem {
	found := []config.Problem{}
	var listed config.Problems
	var joined interface{ Unwrap() []error }
	switch {
	case err == nil:
	case errors.As(err, &listed):
		found = append(found, listed...)
	case errors.As(err, &joined):
		for _, e := range joined.Unwrap() {
			found = append(found, problems(e)...)
		}
	default:
		found = append(found, config.Problem{Message: err.Error()})
	}
	return found
}
