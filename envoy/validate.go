package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/proto"
)

// StaticBootstrap is a bootstrap for Validate: with the given resources in place of what comes over ADS, beside the clusters, the runtime and the ADS
// stream of Bootstrap. It is encoded as protobuf, which Envoy reads many times faster than JSON.
func StaticBootstrap(resources *bootstrapv3.Bootstrap_StaticResources) ([]byte, error) {
	clusters, err := staticClusters(BootstrapConfig{SocketDir: "/nowhere"})
	if err != nil {
		return nil, err
	}
	dynamic := dynamicResources()
	return proto.Marshal(&bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: "validate", Cluster: "doorward"},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{
			Clusters: append(clusters, resources.GetClusters()...), Listeners: resources.GetListeners(), Secrets: resources.GetSecrets(),
		},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: dynamic.AdsConfig},
		LayeredRuntime:   runtimeLayers(),
		StatsConfig:      statsConfig(),
		// Statistics take most of the time of a configuration with many upstreams.
		DeferredStatOptions: &bootstrapv3.Bootstrap_DeferredStatOptions{EnableDeferredCreationStats: true},
	})
}

// Refusal is Envoy's own word for why it would not take a configuration.
type Refusal struct{ Reason string }

func (r *Refusal) Error() string { return "envoy would refuse it: " + r.Reason }

// ValidatePrefix is what the names of Validate's directories begin with.
const ValidatePrefix = "doorward-validate-"

// validateWithin bounds one run: 10,000 hosts take a few seconds.
const validateWithin = time.Minute

// Validate asks an Envoy binary whether it would take a bootstrap, encoded as protobuf (envoy --mode validate). It opens no port and asks nobody over
// the network; files that the bootstrap names, as of trusted roots, are read on this machine. The error is a *Refusal when Envoy would not take it, and
// another one when it could not be asked, or ctx or a minute has ended.
//
// Meanwhile the bootstrap, which may have private keys in it, is a file in a new directory of mode 0700 in dir ("" for the system's), whose name begins with
// ValidatePrefix. Where this process is killed, it stays.
func Validate(ctx context.Context, binary, dir string, bootstrap []byte) error {
	dir, err := os.MkdirTemp(dir, ValidatePrefix)
	if err != nil {
		return fmt.Errorf("envoy: validate: %w", err)
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "bootstrap.pb")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		return fmt.Errorf("envoy: validate: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, validateWithin)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, binary, "--mode", "validate", "--config-path", file, "--disable-hot-restart", "--concurrency", "1",
		"--log-level", "critical", "--log-format", "%v")
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.WaitDelay = time.Second
	runtime.LockOSThread() // see Start
	err = cmd.Run()
	runtime.UnlockOSThread()
	var status *exec.ExitError
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("envoy: validate: %w", context.Cause(ctx))
	case errors.As(err, &status) && status.Exited():
		return &Refusal{reason(said.String())}
	}
	return fmt.Errorf("envoy: validate with %s: %w", binary, err)
}

// maxReason is in bytes: Envoy may quote a whole resource.
const maxReason = 400

// preamble comes before the reason in what Envoy logs.
var preamble = regexp.MustCompile(`^error initializing configuration '[^']*': `)

// reason is what matters in the output of a run that failed, on one line.
func reason(output string) string {
	text := strings.Join(strings.Fields(preamble.ReplaceAllString(output, "")), " ")
	if text == "" {
		return "it does not say why"
	}
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + " ..."
	}
	return text
}
