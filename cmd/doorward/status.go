package main

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"doorward/authz/admin"
	"doorward/authz/config"

	"github.com/spf13/cobra"
)

func statusCommand() *cobra.Command {
	var path, dataDir string
	cmd := &cobra.Command{
		Use:   "status [--config FILE]",
		Short: "Print what the running doorward has loaded and what each Envoy acknowledged",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dataDir == "" {
				c, err := config.Load(path)
				if err != nil {
					return fmt.Errorf("%w\n(the running program can be asked all the same: --data-dir DIR names its data_dir)", err)
				}
				dataDir = c.DataDir
			}
			status, err := admin.NewClient(filepath.Join(dataDir, controlSocket)).Status(cmd.Context())
			if err != nil {
				return err
			}
			encoder := json.NewEncoder(cmd.OutOrStdout())
			encoder.SetIndent("", "  ")
			return encoder.Encode(status)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&dataDir, "data-dir", "", "the data_dir of the running program, where the configuration does not say it")
	return cmd
}
