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
	var path string
	var child childFlags
	cmd := &cobra.Command{
		Use:   "up [--config FILE]",
		Short: "Run both planes, and Envoy as a child",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			run, flush, err := child.config()
			if err != nil {
				return err
			}
			defer flush()
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			if err := free(cmd.Context(), c.Listen); err != nil {
				return err
			}
			run.Bootstrap = localBootstrap(c)
			return serve(cmd.Context(), c, run.Log, run.Path, func(ctx context.Context) error { return envoy.Run(ctx, run) })
		},
	}
	configFlag(cmd, &path)
	child.add(cmd)
	return cmd
}

// childFlags say how Envoy is run as a child, and how the log is written that its lines go to.
type childFlags struct {
	binary, level string
	grace         time.Duration
	logging       loggingFlags
}

func (f *childFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.binary, "envoy", "", "the Envoy binary (else ENVOY, PATH, or .tools/)")
	cmd.Flags().StringVar(&f.level, "envoy-log-level", "warning", "Envoy's own log level")
	cmd.Flags().DurationVar(&f.grace, "grace", envoy.DefaultGrace, "how long open requests may take to end when stopping")
	f.logging.add(cmd)
}

// config is what they say, without the bootstrap, and what has to be called at the end.
func (f *childFlags) config() (c envoy.ChildConfig, flush func(), err error) {
	c = envoy.ChildConfig{LogLevel: f.level, Grace: f.grace}
	if c.Log, flush, err = f.logging.logger(); err != nil {
		return c, nil, err
	}
	if c.Path, err = envoy.Find(f.binary); err != nil {
		flush()
		return c, nil, err
	}
	return c, flush, nil
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
