package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var running runningFlags
	cmd := &cobra.Command{
		Use:   "status [--config FILE]",
		Short: "Print what the running doorward has loaded and what each Envoy acknowledged",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := running.client()
			if err != nil {
				return err
			}
			status, err := client.Status(cmd.Context())
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(status)
		},
	}
	running.add(cmd)
	return cmd
}
