package main

import (
	"encoding/json"
	"path/filepath"

	"doorward/authz/admin"
	"doorward/authz/config"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "status --config FILE",
		Short: "Print what the running doorward has loaded and what each Envoy acknowledged",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			status, err := admin.NewClient(filepath.Join(c.DataDir, controlSocket)).Status(cmd.Context())
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(status)
		},
	}
	configFlag(cmd, &path)
	return cmd
}
