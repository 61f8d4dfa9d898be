package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"time"

	"doorward/authz/config"
	"doorward/envoy"
	"doorward/xds/node"

	"github.com/spf13/cobra"
)

func envoyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "envoy", Short: "What an Envoy needs to run behind this doorward"}
	cmd.AddCommand(envoyBootstrapCommand(), envoyListCommand(), envoyRenewCommand(), envoyRunCommand(), envoyRevokeCommand())
	return cmd
}

// bootstrapFlags say whose bootstrap is made.
type bootstrapFlags struct {
	running     runningFlags
	node, group string
	out, at     string
	life        time.Duration
}

func envoyBootstrapCommand() *cobra.Command {
	var f bootstrapFlags
	cmd := &cobra.Command{
		Use:   "bootstrap [--config FILE] | --node NAME [--group GROUP] --out DIR [--at DIR]",
		Short: "Make the configuration that an Envoy is started with",
		Long: "Without --out it prints what an Envoy on this machine is started with. With --out it has the running doorward certify an Envoy on another\n" +
			"machine, and writes what that one needs into a directory: envoy.yaml, its key and certificate, and the CA's certificate. Copy the directory to\n" +
			"the machine, and run Envoy there with doorward envoy run --dir DIR, which also renews the certificate. A node of the same name that there was\n" +
			"before ends with it.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.out != "" {
				return f.remote(cmd)
			}
			if f.at != "" {
				return errors.New("--at is for an Envoy on another machine: give --out too")
			}
			return f.local(cmd)
		},
	}
	f.running.add(cmd)
	cmd.Flags().StringVar(&f.node, "node", defaultNode, "the Envoy's name, unique among those of one doorward")
	cmd.Flags().StringVar(&f.group, "group", "", "the group of Envoys that it belongs to: one of control.groups")
	cmd.Flags().StringVar(&f.out, "out", "", "a directory for what an Envoy on another machine needs; made when missing")
	cmd.Flags().StringVar(&f.at, "at", "", "where the directory will be on that machine, when Envoy is run without doorward envoy run; else as --out")
	cmd.Flags().DurationVar(&f.life, "life", node.DefaultLife, "how long its certificates are good; it renews them at two thirds of that")
	return cmd
}

func (f *bootstrapFlags) local(cmd *cobra.Command) error {
	c, err := config.Load(f.running.config)
	if err != nil {
		return err
	}
	local := localBootstrap(c)
	if local.Node = f.node; f.group != "" {
		local.Cluster = f.group
	}
	if f.group != "" && !slices.Contains(c.Control.Groups, f.group) {
		return noSuchGroup(f.group)
	}
	text, err := envoy.Bootstrap(local)
	if err != nil {
		return err
	}
	_, err = cmd.OutOrStdout().Write(text)
	return err
}

func noSuchGroup(group string) error {
	return fmt.Errorf("%q is not one of control.groups: add it there or correct it", group)
}

func (f *bootstrapFlags) remote(cmd *cobra.Command) error {
	if f.node == defaultNode {
		return fmt.Errorf("--node is required with --out; %q is the Envoy on this machine", defaultNode)
	}
	client, err := f.running.client()
	if err != nil {
		return err
	}
	if f.at != "" && !filepath.IsAbs(f.at) {
		return fmt.Errorf("--at %q must be an absolute path", f.at)
	}
	dir, err := openNodeDir(f.out)
	if err != nil {
		return err
	}
	key, err := node.NewKey()
	if err != nil {
		return err
	}
	request, err := key.Request()
	if err != nil {
		return err
	}
	var answer certified
	what := url.Values{"group": {f.group}, "life": {f.life.String()}, "request": {base64.RawURLEncoding.EncodeToString(request)}}
	if err := client.Post(cmd.Context(), nodesPath+"/"+url.PathEscape(f.node), what, &answer); err != nil {
		return err
	}
	pair, err := key.Pair([]byte(answer.Certificate))
	if err != nil {
		return err
	}
	at := f.at
	if at == "" {
		at = dir.path
	}
	about := aboutNode{Node: answer.Node.Name, Group: answer.Node.Group, Address: answer.Address, Life: answer.Node.Life.String()}
	if err := dir.create(at, about, pair, []byte(answer.CA)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is certified until %s; what it needs is in %s. On its machine: doorward envoy run --dir %s\n",
		about.Node, answer.Node.Expires.UTC().Format(time.RFC3339), dir.path, at)
	return err
}

func envoyRevokeCommand() *cobra.Command {
	var running runningFlags
	cmd := &cobra.Command{
		Use:   "revoke NODE",
		Short: "End an Envoy on another machine: its connections at once, and its certificates for good",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := running.client()
			if err != nil {
				return err
			}
			if err := client.Post(cmd.Context(), nodesPath+"/"+url.PathEscape(args[0])+"/revoke", nil, &struct{}{}); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s is revoked\n", args[0])
			return err
		},
	}
	running.add(cmd)
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return completeNodes(cmd, &running), cobra.ShellCompDirectiveNoFileComp
	}
	return cmd
}

// completeNodes are the nodes that are not revoked, each with what there is to say of it; none when they cannot be known.
func completeNodes(cmd *cobra.Command, running *runningFlags) []string {
	client, err := running.client()
	if err != nil {
		return nil
	}
	var list struct {
		Nodes []node.Record `json:"nodes"`
	}
	if err := client.Get(cmd.Context(), nodesPath, nil, &list); err != nil {
		return nil
	}
	var names []string
	for _, r := range list.Nodes {
		if r.Revoked.IsZero() {
			names = append(names, fmt.Sprintf("%s\t%s, until %s", r.Name, dash(r.Group), stamp(r.Expires)))
		}
	}
	return names
}

func envoyRenewCommand() *cobra.Command {
	var path string
	var keep bool
	var logging loggingFlags
	cmd := &cobra.Command{
		Use:   "renew --dir DIR [--keep]",
		Short: "Renew the certificate of an Envoy on this machine, whose doorward is on another",
		Long: "For an Envoy that is not run by doorward envoy run: at two thirds of the certificate's life, as from a timer, or with --keep beside it. Envoy takes\n" +
			"the new one by itself.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := openNodeDir(path)
			if err != nil {
				return err
			}
			if keep {
				return keepRenewing(cmd.Context(), dir, logging)
			}
			expires, err := dir.renew(cmd.Context())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "renewed until %s\n", expires.UTC().Format(time.RFC3339))
			return err
		},
	}
	dirFlag(cmd, &path)
	cmd.Flags().BoolVar(&keep, "keep", false, "go on, and renew whenever two thirds of the certificate's life are over")
	logging.add(cmd)
	return cmd
}

func keepRenewing(ctx context.Context, dir nodeDir, logging loggingFlags) error {
	log, flush, err := logging.logger()
	if err != nil {
		return err
	}
	defer flush()
	life, err := dir.life()
	if err != nil {
		return err
	}
	dir.keep(ctx, life, log)
	return nil
}

func dirFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "dir", "", "the directory that doorward envoy bootstrap --out made")
	_ = cmd.MarkFlagRequired("dir") // fails only for a flag that does not exist
	_ = cmd.MarkFlagDirname("dir")
}

func envoyRunCommand() *cobra.Command {
	var path string
	var child childFlags
	cmd := &cobra.Command{
		Use:   "run --dir DIR",
		Short: "Run Envoy as a child on a machine of its own, and renew its certificate",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			run, flush, err := child.config()
			if err != nil {
				return err
			}
			defer flush()
			dir, err := openNodeDir(path)
			if err != nil {
				return err
			}
			about, err := dir.about()
			if err != nil {
				return err
			}
			if err := dir.lead(dir.path, about); err != nil { // wherever it was made
				return err
			}
			run.Bootstrap = about.bootstrap(dir.path)
			return dir.run(cmd.Context(), run)
		},
	}
	dirFlag(cmd, &path)
	child.add(cmd)
	return cmd
}

// nodeFile tells doorward envoy run and renew about the node.
const nodeFile = "node.json"

func (a aboutNode) bootstrap(at string) envoy.BootstrapConfig {
	return envoy.BootstrapConfig{Node: a.Node, Cluster: a.Group, SocketDir: filepath.Clean(at), Remote: a.Address}
}
