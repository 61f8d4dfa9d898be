package main

import (
	"doorward/authz/config"
	"doorward/envoy"

	"github.com/spf13/cobra"
)

func envoyCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "envoy", Short: "What an Envoy needs to run behind this doorward"}
	var path, node string
	bootstrap := &cobra.Command{
		Use:   "bootstrap [--config FILE]",
		Short: "Print the configuration that an Envoy is started with",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			text, err := envoy.Bootstrap(envoy.BootstrapConfig{Node: node, SocketDir: c.SocketDir})
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
	configFlag(bootstrap, &path)
	bootstrap.Flags().StringVar(&node, "node", defaultNode, "the Envoy's name, unique among those of one doorward")
	cmd.AddCommand(bootstrap, envoyListCommand())
	return cmd
}
