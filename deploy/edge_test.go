package deploy_test

import (
	"slices"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// TestTheSecondMachine: the same images and the same confinement as on the first, one user, and nothing shared with the machine but the node's directory.
func TestTheSecondMachine(t *testing.T) {
	options, err := cli.NewProjectOptions([]string{"edge/compose.yaml"}, cli.WithInterpolation(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first := project(t)
	for name, like := range map[string]string{"envoy": "envoy", "renew": "doorward"} {
		s, model := service(t, p, name), service(t, first, like)
		if s.Image != model.Image {
			t.Errorf("%s runs %s, and %s on the first machine", name, s.Image, model.Image)
		}
		if s.User != "65532:65532" || !s.ReadOnly || s.Restart != "always" || !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 ||
			!slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s is not confined as on the first machine", name)
		}
		if len(s.Volumes) != 1 || s.Volumes[0].Type != types.VolumeTypeBind || s.Volumes[0].Target != "/etc/doorward-edge" || s.Volumes[0].Bind.CreateHostPath {
			t.Errorf("%s mounts %v", name, s.Volumes)
		}
	}
	if got := p.ServiceNames(); len(got) != 2 {
		t.Errorf("services are %q", got)
	}
	if ports := service(t, p, "envoy").Ports; len(ports) != 1 || ports[0].Target != 8443 || len(service(t, p, "renew").Ports) > 0 {
		t.Errorf("envoy publishes %v", ports)
	}
}
