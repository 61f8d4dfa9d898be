// Doorward is an identity-aware front door on a stock Envoy.
//
//	doorward up --config doorward.yaml      run both planes, and Envoy as a child
//	doorward serve --config doorward.yaml   run both planes for an Envoy that somebody else runs
//	doorward check doorward.yaml            say whether a configuration is good, and what is wrong with it
//	doorward policy test                    run the tests of policies; more under doorward policy
//	doorward route apply -f routes.yaml     push routes to the running one; more under doorward route
//	doorward key list                       the keys that sign; more under doorward key
//	doorward session list                   who is signed in; revoke ends sessions
//	doorward token create NAME              tokens for programs; list and revoke are beside it
//	doorward envoy bootstrap                print what an Envoy is started with
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker for releases.
var version = "devel"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if err == nil {
		return
	}
	if !errors.Is(err, errReported) {
		fmt.Fprintln(os.Stderr, "doorward:", err)
	}
	stop()
	os.Exit(1)
}

// errReported says that a command has printed what is wrong itself.
var errReported = errors.New("reported")

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "doorward",
		Short:         "An identity-aware front door on a stock Envoy",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(serveCommand(), upCommand(), checkCommand(), policyCommand(), explainCommand(), decisionsCommand(), keyCommand(), sessionCommand(), tokenCommand(), sealCommand(), statusCommand(), routeCommand(), certCommand(), envoyCommand(), caCommand(), healthCommand())
	return cmd
}
