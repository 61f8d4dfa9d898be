package main

import (
	"bytes"
	"cmp"
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

	"doorward/authz"
	"doorward/authz/config"
	"doorward/authz/policy"

	"github.com/spf13/cobra"
)

func policyEvalCommand() *cobra.Command {
	var e evaluation
	cmd := &cobra.Command{
		Use:   "eval --route NAME (--user NAME | --anonymous | --input FILE)",
		Short: "Decide a request from the files, without a request and without the running program",
		Long: "Eval lets the policy of a route, as the configuration has it now, decide on a request that is described by flags, or\n" +
			"by a file: a document as policies see it (user, session, request, route), or a captured request. It goes the way of\n" +
			"a real request: without a session no rule runs unless the route allows it, and what may not be set is refused.\n" +
			"--explain says what each rule came to and why. The exit status is 0 when there was a decision, whatever it is.",
		Example: "  doorward policy eval --route grafana --user alice@example.com --groups viewers --method POST --path /api/dashboards\n" +
			"  doorward policy eval --route grafana --anonymous --path /public --explain",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := e.run(cmd)
			if err != nil {
				return err
			}
			return t.show(cmd.OutOrStdout(), e.format)
		},
	}
	configFlag(cmd, &e.config)
	e.question.add(cmd, &e.config)
	cmd.Flags().StringVar(&e.file, "input", "", "a JSON file with the input or a captured request, instead of the flags that describe one; - is standard input")
	cmd.Flags().BoolVar(&e.explain, "explain", false, "say what each rule came to and why")
	formatFlag(cmd, &e.format)
	return cmd
}

// evaluation is one run of `policy eval`.
type evaluation struct {
	config, file, format string
	explain              bool
	question             asked
}

func (e *evaluation) run(cmd *cobra.Command) (t tried, err error) {
	if err := checkFormat("format", e.format); err != nil {
		return t, err
	}
	c, err := config.Load(e.config)
	if err != nil {
		return t, err
	}
	in, route, err := e.input(cmd)
	if err != nil {
		return t, err
	}
	r, err := offline(cmd.Context(), c, route, in)
	if err != nil {
		return t, err
	}
	t = newTried(r)
	t.Time, t.Revision = time.Time{}, "" // of the files, not of a running program
	if e.explain && r.Outcome != "unauthenticated" || e.explain && r.Route.Anonymous() {
		x := r.Policy.Explain(cmd.Context(), r.Input)
		t.Explanation = &x
	}
	return t, nil
}

// input is what to decide, and by which route.
func (e *evaluation) input(cmd *cobra.Command) (*policy.Input, string, error) {
	if e.file == "" {
		in, err := e.question.input(time.Now())
		return in, e.question.route, err
	}
	if name := e.question.described(cmd); name != "" {
		return nil, "", fmt.Errorf("--%s and --input both describe the request: give one of them", name)
	}
	text, err := readInput(cmd.InOrStdin(), e.file)
	if err != nil {
		return nil, "", err
	}
	in, route, err := parseRequest(text)
	if err != nil {
		return nil, "", fmt.Errorf("--input %s: %w", e.file, err)
	}
	if route = cmp.Or(e.question.route, route); route == "" {
		return nil, "", fmt.Errorf("--input %s: it names no route (route.name): say which one decides, --route NAME", e.file)
	}
	return in, route, nil
}

// maxInput bounds an input that is read from a file.
const maxInput = 4 << 20

func readInput(stdin io.Reader, path string) ([]byte, error) {
	from := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("--input: %w", err)
		}
		defer f.Close()
		from = f
	}
	text, err := io.ReadAll(io.LimitReader(from, maxInput+1))
	if err == nil && len(text) > maxInput {
		err = fmt.Errorf("--input %s: it has more than %d bytes", path, maxInput)
	}
	return text, err
}

// parseRequest reads an input, or a captured request, with the name of its route.
func parseRequest(text []byte) (*policy.Input, string, error) {
	var captured struct {
		Route json.RawMessage
		Input json.RawMessage
	}
	if err := json.Unmarshal(text, &captured); err == nil && captured.Input != nil {
		var route string
		if err := json.Unmarshal(captured.Route, &route); err != nil {
			return nil, "", fmt.Errorf("a captured request names its route: %w", err)
		}
		in, err := policy.ParseInput(captured.Input)
		return in, route, err
	}
	in, err := policy.ParseInput(bytes.TrimSpace(text))
	if err != nil {
		return nil, "", err
	}
	return in, in.Route.Name, nil
}

// offline decides by the configuration's files.
func offline(ctx context.Context, c *config.Config, route string, in *policy.Input) (authz.Recent, error) {
	_, g, err := compiled(ctx, c)
	if err != nil {
		return authz.Recent{}, err
	}
	r, err := g.Try(ctx, route, *in)
	if errors.Is(err, authz.ErrNoRoute) {
		return r, noRoute(c, route)
	}
	return r, err
}

// compiled loads the policies of a configuration and binds its routes to them.
func compiled(ctx context.Context, c *config.Config) (*policy.Set, *authz.Generation, error) {
	load, _, err := offlineBundles(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	load.Paths = relative(load.Paths)
	set, err := policy.Load(ctx, load)
	if err != nil {
		return nil, nil, err
	}
	g, err := authz.Build(c, set)
	return set, g, err
}

func noRoute(c *config.Config, name string) error {
	names := routeNames(c)
	if len(names) > 20 {
		names = append(names[:20], fmt.Sprintf("and %d more", len(names)-20))
	}
	return fmt.Errorf("there is no route %q in %s; there are: %s", name, c.Path, strings.Join(names, ", "))
}

func routeNames(c *config.Config) []string {
	names := make([]string, len(c.Routes))
	for i, r := range c.Routes {
		names[i] = r.Name
	}
	return names
}

func encoded(query map[string][]string) string { return url.Values(query).Encode() }

// parseTime reads Unix seconds, RFC 3339, or how long ago it was (5m).
func parseTime(s string, now time.Time) (int64, error) {
	if seconds, err := strconv.ParseInt(s, 10, 64); err == nil {
		return seconds, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.Unix(), nil
	}
	if ago, err := time.ParseDuration(s); err == nil {
		return now.Add(-ago).Unix(), nil
	}
	return 0, fmt.Errorf("%q is neither Unix seconds, nor a time as 2030-01-31T09:00:00Z, nor how long ago it was, as 5m", s)
}
