package envoy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"doorward/authz/config"
	"doorward/xds"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
)

// TestEnvoyTakesWhatIsBuilt has an Envoy look at what each of the configurations comes to that xds is tested with.
func TestEnvoyTakesWhatIsBuilt(t *testing.T) {
	binary := realEnvoy(t)
	t.Chdir("../xds/testdata/in")
	files, err := filepath.Glob("*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no configurations: %v", err)
	}
	for _, file := range files {
		c, err := config.Load(file)
		if err != nil {
			t.Fatal(err)
		}
		change, err := xds.Build(xds.Input{
			Config: c, Revision: func(string) string { return "1" }, Headers: []string{"cookie"},
			Certificate: func(string) (chain, key []byte, err error) {
				chain, one := os.ReadFile("cert.pem")
				key, two := os.ReadFile("key.pem")
				return chain, key, errors.Join(one, two)
			},
			Page: func(xds.PageText) xds.Page {
				return xds.Page{Body: "page", Header: map[string]string{"Content-Type": "text/html"}}
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		parts, err := change.Parts()
		if err != nil {
			t.Fatal(err)
		}
		resources, err := xds.Static(parts)
		if err != nil {
			t.Fatal(err)
		}
		bootstrap, err := StaticBootstrap(resources)
		if err != nil {
			t.Fatal(err)
		}
		if err := Validate(t.Context(), binary, "", bootstrap); err != nil {
			t.Errorf("%s: %v", file, err)
		}
	}
}

func TestValidateSaysWhatMatters(t *testing.T) {
	binary := realEnvoy(t)
	bootstrap, err := StaticBootstrap(&bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{{
		Name:                 "odd",
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{Name: "no.such.type"}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	err = Validate(t.Context(), binary, "", bootstrap)
	var refusal *Refusal
	if want := "Didn't find a registered cluster factory implementation for name: 'no.such.type'"; !errors.As(err, &refusal) || refusal.Reason != want {
		t.Errorf("refused with %v, want %s", err, want)
	}
	dir := t.TempDir()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("given up"))
	if err := Validate(ctx, binary, dir, bootstrap); err == nil || err.Error() != "envoy: validate: given up" {
		t.Errorf("given up: %v", err)
	}
	if err := Validate(t.Context(), "/no/such/envoy", dir, bootstrap); err == nil || errors.As(err, &refusal) {
		t.Errorf("without a binary: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestReasonIsShort(t *testing.T) {
	const preamble = "error initializing configuration '/tmp/x/bootstrap.pb': "
	for output, want := range map[string]string{
		preamble + "missing ): (\n":                   "missing ): (",
		preamble + "Proto constraint\n  validation\n": "Proto constraint validation",
		"":                       "it does not say why",
		strings.Repeat("é", 300): strings.Repeat("é", 200) + " ...",
	} {
		if got := reason(output); got != want {
			t.Errorf("reason(%q) is %q, want %q", output, got, want)
		}
	}
}
