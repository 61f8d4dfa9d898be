package main

import (
	"context"
	"errors"
	"time"

	"doorward/authz/config"
	"doorward/envoy"

	"github.com/spf13/cobra"
)

func upCommand() *cobra.Command {
	var path, binary, envoyLevel string
	var grace time.Duration
	var logging loggingFlags
	cmd := &cobra.Command{
		Use:   "up [--config FILE]",
		Short: "Run both planes, and Envoy as a child",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, flush, err := logging.logger()
			if err != nil {
				return err
			}
			defer flush()
			if binary, err = envoy.Find(binary); err != nil {
				return err
			}
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			if err := free(cmd.Context(), c.Listen); err != nil {
				return err
			}
			return serve(cmd.Context(), c, log, binary, func(ctx context.Context) error {
				return envoy.Run(ctx, envoy.ChildConfig{
					Path: binary, Bootstrap: localBootstrap(c),
					LogLevel: envoyLevel, Grace: grace, Log: log,
				})
			})
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&binary, "envoy", "", "the Envoy binary (else ENVOY, PATH, or .tools/)")
	cmd.Flags().StringVar(&envoyLevel, "envoy-log-level", "warning", "Envoy's own log level")
	cmd.Flags().DurationVar(&grace, "grace", 10*time.Second, "how long open requests may take to end when stopping")
	logging.add(cmd)
	return cmd
}

// free says which address Envoy could not listen on. It waits for a moment, since the Envoy of a doorward that was killed ends after it.
func free(ctx context.Context, l config.Listen) error {
	check := func() error {
		err := envoy.CheckAddress("listen.https", l.HTTPS)
		if l.HTTP != "" {
			err = errors.Join(err, envoy.CheckAddress("listen.http", l.HTTP))
		}
		return err
	}
	deadline := time.Now().Add(3 * time.Second)
	for {
		err := check()
		if err == nil || ctx.Err() != nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}
