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
//	doorward tcp db.example.com:5432        connect to a TCP service behind an edge, from one's own computer
//	doorward envoy bootstrap                print what an Envoy is started with, here or on another machine
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
	status := errReported
	if !errors.As(err, &status) {
		fmt.Fprintln(os.Stderr, "doorward:", err)
	}
	stop()
	os.Exit(int(status))
}

// exitStatus is the error of a command that has printed itself what there is to say.
type exitStatus int

// The statuses that commands end with; 1 also for errors of any kind.
const (
	errReported   exitStatus = 1 // refused, or not as it should be
	errDiffers    exitStatus = 2 // route diff: apply would change something
	errNotYetDone exitStatus = 3 // route apply, delete: done, and not acknowledged by every Envoy in the time given
)

func (s exitStatus) Error() string { return "reported" }

func root() *cobra.Command {
	cmd := &cobra.Command{
		Use:           "doorward",
		Short:         "An identity-aware front door on a stock Envoy",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	cmd.AddCommand(serveCommand(), upCommand(), checkCommand(), policyCommand(), explainCommand(), decisionsCommand(), keyCommand(), sessionCommand(), tokenCommand(), tcpCommand(), sealCommand(), statusCommand(), routeCommand(), certCommand(), envoyCommand(), caCommand(), healthCommand())
	return cmd
}
