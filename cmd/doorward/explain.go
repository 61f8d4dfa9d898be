package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"doorward/authz/admin"
	"doorward/authz/config"

	"github.com/spf13/cobra"
)

// explainPath is where the running program explains.
const explainPath = "/v1/explain"

func explainCommand() *cobra.Command {
	var e explaining
	cmd := &cobra.Command{
		Use:   "explain (DECISION_ID | --route NAME (--user NAME | --anonymous))",
		Short: "Say why a request was, or would be, decided as it is",
		Long: "Explain asks the running doorward about one of its last decisions, by the id that the denied page, the JSON of a\n" +
			"denial, the decision log and Envoy's access log show: the route, the session, what each rule came to and why, and\n" +
			"what resulted. With --route it decides a request that the flags describe, by the configuration that is served, with\n" +
			"the newest live session of that user; the flags that describe a user count only where there is none. Without a\n" +
			"running doorward, or without such a session, it decides by the files, for a user as the flags describe it. It always\n" +
			"says which of these it was.",
		Example: "  doorward explain 4bf92f35-77b3-4da6-a3ce-929d0e0e4736\n" +
			"  doorward explain --route grafana --user alice@example.com --path /d/x",
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t, err := e.run(cmd, args)
			if err != nil {
				return err
			}
			return t.show(cmd.OutOrStdout(), e.format)
		},
	}
	e.running.add(cmd)
	e.asked.add(cmd, &e.running.config)
	formatFlag(cmd, &e.format)
	return cmd
}

// explaining is one run of `explain`.
type explaining struct {
	running runningFlags
	format  string
	asked   asked
}

func (e *explaining) run(cmd *cobra.Command, args []string) (t tried, err error) {
	if err := checkFormat("format", e.format); err != nil {
		return t, err
	}
	if len(args) == 1 {
		if name := e.asked.described(cmd); name != "" || e.asked.route != "" {
			return t, fmt.Errorf("a decision's id and --%s: the decision has its own request; give one of them", firstOf(name, "route"))
		}
		return e.decision(cmd.Context(), args[0])
	}
	in, err := e.asked.input(time.Now())
	if err != nil {
		return t, fmt.Errorf("%w\n(or give the id of a decision: doorward explain ID)", err)
	}
	why, t, err := e.live(cmd.Context())
	if err != nil || why == "" {
		return t, err
	}
	c, err := config.Load(e.running.config)
	if err != nil {
		return t, fmt.Errorf("%s, and the configuration cannot be read: %w", why, err)
	}
	r, err := offline(cmd.Context(), c, e.asked.route, in)
	if err != nil {
		return t, err
	}
	t = explained(cmd.Context(), r)
	t.Time, t.Revision = time.Time{}, ""
	t.Source = "the files, with a user as the flags describe it, because " + why
	if e.asked.anonymous {
		t.Source = "the files, because " + why
	}
	return t, nil
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// decision explains what was decided.
func (e *explaining) decision(ctx context.Context, id string) (t tried, err error) {
	client, err := e.running.client()
	if err != nil {
		return t, err
	}
	return t, client.Get(ctx, explainPath, url.Values{"id": {id}}, &t)
}

// live has the running program decide. why says why it cannot, when that is because there is none, or no session.
func (e *explaining) live(ctx context.Context) (why string, t tried, err error) {
	client, err := e.running.client()
	if err != nil {
		return "", t, err
	}
	q := url.Values{
		"route": {e.asked.route}, "method": {strings.ToUpper(e.asked.method)}, "path": {e.asked.path},
		"header": e.asked.headers, "client_ip": {e.asked.clientIP},
	}
	if !e.asked.anonymous {
		q.Set("user", e.asked.user)
	}
	err = client.Get(ctx, explainPath, q, &t)
	switch {
	case errors.Is(err, admin.ErrNotRunning):
		return "no running doorward answers", t, nil
	case err != nil:
		return "", t, err
	case t.NoSession:
		return fmt.Sprintf("%s has no live session", e.asked.user), t, nil
	}
	return "", t, nil
}
