package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"

	"doorward/authz"
	"doorward/authz/config"
	"doorward/authz/policy"

	"github.com/spf13/cobra"
)

func policyDepsCommand() *cobra.Command {
	var running runningFlags
	var format string
	var live bool
	cmd := &cobra.Command{
		Use:   "deps [ROUTE...]",
		Short: "Say what each route's policy reads, and whether its decisions are kept",
		Long: "Deps lists for each route what its policy can read of a request. A decision is kept for as long as all of that is\n" +
			"the same, unless the policy depends on something else, as the clock: then deps names the place. Headers that some\n" +
			"policy reads are what Envoy is asked to send, beside those that sign-in needs. With --live each policy has what the\n" +
			"running doorward has counted since it loaded it: how many of its decisions were kept ones.",
		ValidArgsFunction: completeRoutes(&running.config),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkFormat("format", format); err != nil {
				return err
			}
			c, err := config.Load(running.config)
			if err != nil {
				return err
			}
			set, g, err := compiled(cmd.Context(), c)
			if err != nil {
				return refuse(cmd.OutOrStdout(), format, running.config, err)
			}
			d, err := dependencies(c, set, g, args)
			if err == nil && live {
				err = d.count(cmd.Context(), &running)
			}
			if err != nil {
				return err
			}
			if format == "json" {
				return writeJSON(cmd.OutOrStdout(), d)
			}
			return d.print(cmd.OutOrStdout())
		},
	}
	running.add(cmd)
	cmd.Flags().BoolVar(&live, "live", false, "add what the running doorward has counted")
	formatFlag(cmd, &format)
	return cmd
}

// routeDeps is what a route's decisions depend on.
type routeDeps struct {
	Route  string   `json:"route"`
	Policy string   `json:"policy"`
	Shadow bool     `json:"shadow,omitempty"` // it is the route's shadow policy
	Reads  []string `json:"reads"`            // user.groups, request.headers.x-team, data.roles; a document that is read whole is named alone
	Cached bool     `json:"cached"`
	Why    string   `json:"why,omitempty"` // why not

	Live *policyUsage `json:"live,omitempty"` // with --live; absent when the running doorward has not this policy
}

// deps is what deps prints.
type deps struct {
	Routes     []routeDeps `json:"routes"`
	AllHeaders bool        `json:"all_headers"` // Envoy sends every header
	Headers    []string    `json:"headers"`     // that Envoy sends, when not all
}

// usagePath is where the running program says how often each policy decided.
const usagePath = "/v1/policies"

// policyUsage is what a policy has decided since it was loaded.
type policyUsage struct {
	Kept      uint64 `json:"kept"`      // answered with a decision that was kept
	Evaluated uint64 `json:"evaluated"` // the others
}

// usageAPI answers with a policyUsage for each policy of the current configuration.
func (p *planes) usageAPI(w http.ResponseWriter, _ *http.Request) {
	all := map[string]policyUsage{}
	for name, u := range p.authz.Stats().Policies {
		all[name] = policyUsage{u.Hits, u.Misses + u.Bypassed}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = writeJSON(w, all) // the client went away: nothing to do, nobody to tell
}

// count adds what the running doorward has counted.
func (d *deps) count(ctx context.Context, running *runningFlags) error {
	client, err := running.client()
	if err != nil {
		return err
	}
	var all map[string]policyUsage
	if err := client.Get(ctx, usagePath, nil, &all); err != nil {
		return fmt.Errorf("--live: %w", err)
	}
	for i, r := range d.Routes {
		if u, ok := all[r.Policy]; ok && !r.Shadow {
			d.Routes[i].Live = &u
		}
	}
	return nil
}

// dependencies are those of the named routes, of all without names.
func dependencies(c *config.Config, set *policy.Set, g *authz.Generation, names []string) (deps, error) {
	d := deps{Routes: []routeDeps{}, Headers: g.Headers()}
	d.AllHeaders = d.Headers == nil
	wanted := map[string]bool{}
	for _, name := range names {
		wanted[name] = true
	}
	for _, r := range c.Routes {
		if len(names) > 0 && !wanted[r.Name] {
			continue
		}
		delete(wanted, r.Name)
		for i, name := range []string{r.Policy, r.ShadowPolicy} {
			if name == "" {
				continue
			}
			p, err := set.Policy(name)
			if err != nil {
				return deps{}, err
			}
			row := depsOf(p)
			row.Route, row.Shadow = r.Name, i == 1
			d.Routes = append(d.Routes, row)
		}
	}
	for name := range wanted {
		return deps{}, noRoute(c, name)
	}
	return d, nil
}

// depsOf is what a policy's decisions depend on.
func depsOf(p *policy.Policy) routeDeps {
	reads := p.Reads()
	d := routeDeps{Policy: p.Name(), Reads: readNames(reads), Cached: reads.Uncacheable == "", Why: reads.Uncacheable}
	if p.Name() == config.PolicyPublic || p.Name() == config.PolicyAnyAuthenticatedUser {
		d.Cached, d.Why = false, "it is built in and runs no rule, so there is nothing to keep"
	}
	return d
}

// readNames lists what is read, each part as rules name it without `input`.
func readNames(r policy.Reads) []string {
	names := []string{}
	add := func(prefix string, parts, of []string, whole bool, inner string) {
		for _, part := range parts {
			if part != inner || whole {
				names = append(names, prefix+part)
				continue
			}
			for _, name := range of {
				names = append(names, prefix+inner+"."+name)
			}
			if len(of) == 0 {
				names = append(names, prefix+inner)
			}
		}
	}
	add("user.", r.User, r.Claims, r.AllClaims, "claims")
	add("session.", r.Session, nil, false, "")
	add("request.", r.Request, r.Headers, r.AllHeaders, "headers")
	add("route.", r.Route, nil, false, "")
	names = append(names, r.Plugin...)
	if r.Certificate {
		names = append(names, "client_certificate")
	}
	return append(names, r.Data...)
}

func (d deps) print(w io.Writer) error {
	var b strings.Builder
	for _, r := range d.Routes {
		kind := "policy"
		if r.Shadow {
			kind = "shadow policy"
		}
		fmt.Fprintf(&b, "%s: %s %s\n", r.Route, kind, r.Policy)
		fmt.Fprintf(&b, "  reads   %s\n", cmp.Or(strings.Join(r.Reads, ", "), "nothing"))
		if r.Cached {
			fmt.Fprintf(&b, "  cached  yes\n")
		} else {
			fmt.Fprintf(&b, "  cached  no: %s\n", r.Why)
		}
		if u := r.Live; u != nil && u.Kept+u.Evaluated > 0 {
			all := u.Kept + u.Evaluated
			fmt.Fprintf(&b, "  live    %d of %d decisions of the policy were kept ones (%.1f %%)\n", u.Kept, all, 100*float64(u.Kept)/float64(all))
		} else if u != nil {
			b.WriteString("  live    no rule has run\n")
		}
	}
	if d.AllHeaders {
		b.WriteString("Envoy sends every header, because a policy reads input.request.headers as a whole.\n")
	} else {
		fmt.Fprintf(&b, "Envoy sends these headers: %s.\n", strings.Join(d.Headers, ", "))
	}
	_, err := io.WriteString(w, onScreen(b.String()))
	return err
}
