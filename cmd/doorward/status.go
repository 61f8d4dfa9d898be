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

// runningFlags say which running doorward is asked.
type runningFlags struct{ config, dataDir string }

func (f *runningFlags) add(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	cmd.Flags().StringVar(&f.dataDir, "data-dir", "", "the data_dir of the running program, where the configuration does not say it")
}

// client returns a client of the running program, which may not run.
func (f *runningFlags) client() (*admin.Client, error) {
	dir := f.dataDir
	if dir == "" {
		c, err := config.Load(f.config)
		if err != nil {
			return nil, fmt.Errorf("%w\n(the running program can be asked all the same: --data-dir DIR names its data_dir)", err)
		}
		dir = c.DataDir
	}
	return admin.NewClient(filepath.Join(dir, controlSocket)), nil
}
