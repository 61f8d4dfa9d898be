// Demo runs the front door with an identity provider and two applications behind it, on this machine alone.
//
//	demo [--doorward FILE] [--envoy FILE] [--dir DIR] [--control ADDR]
//
// It uses three ports from DEMO_PORT (8443) on, all on loopback: https, http (redirects) and the provider; the applications take free ones.
// It is ready when it prints a line that begins with "ready:", and ends at Ctrl-C. The exit status is 1 when something went wrong, and
// the reason is on standard error.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

const defaultPort = 8443

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends it at once
	if err := command(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// command reads flags and environment and runs the demo until ctx ends.
func command(ctx context.Context, args []string) error {
	port, err := portFrom(os.Getenv("DEMO_PORT"))
	if err != nil {
		return err
	}
	d := demo{port: port, out: os.Stdout}
	flags := flag.NewFlagSet("demo", flag.ExitOnError)
	flags.StringVar(&d.doorward, "doorward", "", "the doorward binary; beside this program or in .tools/bin when empty")
	flags.StringVar(&d.envoy, "envoy", "", "the Envoy binary; found by doorward when empty")
	flags.StringVar(&d.dir, "dir", "", "where configuration, keys and logs go; .tools/demo in the repository when empty")
	flags.StringVar(&d.control, "control", "", "loopback host:port that shows what the applications received, for tests; none when empty")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	return d.run(ctx)
}

// portFrom reads DEMO_PORT. The two ports after it are used too.
func portFrom(text string) (int, error) {
	if text == "" {
		return defaultPort, nil
	}
	port, err := strconv.Atoi(text)
	if err != nil || port < 1 || port > 65533 {
		return 0, fmt.Errorf("DEMO_PORT is %q; it must be a port from 1 to 65533, and the two after it are used too", text)
	}
	return port, nil
}
