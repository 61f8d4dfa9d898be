package deploy_test

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

// guide is the environment of the guide's Grafana, with our host in the place of the guide's.
var guide = map[string]string{
	"GF_AUTH_JWT_ENABLED":          "true",
	"GF_AUTH_JWT_HEADER_NAME":      "X-Pomerium-Jwt-Assertion",
	"GF_AUTH_JWT_EMAIL_CLAIM":      "email",
	"GF_AUTH_JWT_USERNAME_CLAIM":   "email",
	"GF_AUTH_JWT_JWK_SET_URL":      "https://grafana.localhost:8443/.well-known/pomerium/jwks.json",
	"GF_AUTH_JWT_AUTO_SIGN_UP":     "true",
	"GF_AUTH_JWT_CACHE_TTL":        "60m",
	"GF_AUTH_SIGNOUT_REDIRECT_URL": "https://grafana.localhost:8443/.pomerium/sign_out",
}

// ours is what we add to it.
var ours = map[string]string{
	"GF_AUTH_JWT_EXPECT_CLAIMS": `{"iss":"grafana.localhost","aud":"grafana.localhost"}`,
}

// project loads compose.yaml as docker compose does: interpolated, validated against the specification's schema, consistent.
func project(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{"compose.yaml"}, cli.WithInterpolation(true), cli.WithConsistency(true))
	if err != nil {
		t.Fatal(err)
	}
	p, err := options.LoadProject(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// service returns one service of compose.yaml.
func service(t *testing.T, p *types.Project, name string) types.ServiceConfig {
	t.Helper()
	s, err := p.GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestServices(t *testing.T) {
	want := []string{"ca", "doorward", "envoy", "grafana", "keycloak"}
	if got := project(t).ServiceNames(); !slices.Equal(got, want) {
		t.Errorf("services are %q, want %q", got, want)
	}
}

func TestGrafanaEnvironmentIsTheGuides(t *testing.T) {
	got := service(t, project(t), "grafana").Environment
	for _, wanted := range []map[string]string{guide, ours} {
		for name, value := range wanted {
			if v := got[name]; v == nil || *v != value {
				t.Errorf("%s is %q, want %q", name, text(v), value)
			}
		}
	}
	for name := range got {
		if guide[name] == "" && ours[name] == "" {
			t.Errorf("%s is not a setting of the guide", name)
		}
	}
}

func text(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// Only Envoy is reachable from outside, and every URL means the same inside and out.
func TestPorts(t *testing.T) {
	for name, s := range project(t).Services {
		if name != "envoy" && len(s.Ports) > 0 {
			t.Errorf("%s publishes %v: only envoy may be reached from outside", name, s.Ports)
		}
		if s.NetworkMode == "host" {
			t.Errorf("%s is on the host's network", name)
		}
	}
	ports := service(t, project(t), "envoy").Ports
	if len(ports) != 1 || ports[0].Target != 8443 || ports[0].Published != "8443" || ports[0].HostIP != "127.0.0.1" {
		t.Errorf("envoy publishes %v, want 8443 as 127.0.0.1:8443", ports)
	}
}

// An upstream is reached by Envoy alone: it shares no network with another upstream, nor with Doorward.
func TestNetworks(t *testing.T) {
	want := map[string][]string{
		"doorward": {"edge"},
		"envoy":    {"edge", "grafana", "keycloak"},
		"grafana":  {"grafana"},
		"keycloak": {"keycloak"},
	}
	p := project(t)
	for name, networks := range want {
		got := slices.Sorted(maps.Keys(service(t, p, name).Networks))
		if !slices.Equal(got, networks) {
			t.Errorf("%s is on the networks %q, want %q", name, got, networks)
		}
	}
	if mode := service(t, p, "ca").NetworkMode; mode != "none" {
		t.Errorf("ca has the network mode %q, want none", mode)
	}
}

func TestServicesAreConfined(t *testing.T) {
	for name, s := range project(t).Services {
		if !slices.Equal(s.CapDrop, []string{"ALL"}) || len(s.CapAdd) > 0 || s.Privileged {
			t.Errorf("%s keeps capabilities", name)
		}
		if !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
			t.Errorf("%s may gain privileges", name)
		}
		if !s.ReadOnly && name != "keycloak" {
			t.Errorf("%s has a writable file system", name)
		}
		if want := map[string]string{"ca": "no"}[name]; s.Restart != want && !(want == "" && s.Restart == "always") {
			t.Errorf("%s has the restart policy %q", name, s.Restart)
		}
		if s.HealthCheck == nil && name != "envoy" && name != "ca" {
			t.Errorf("%s has no health check", name)
		}
		for _, v := range s.Volumes {
			if strings.Contains(v.Source, "docker.sock") {
				t.Errorf("%s can command the engine", name)
			}
		}
	}
}

func TestImagesArePinned(t *testing.T) {
	pinned := regexp.MustCompile(`^[a-z0-9./-]+(@sha256:[0-9a-f]{64}|:[a-z-]*v?[0-9]+\.[0-9]+\.[0-9]+)$`)
	p := project(t)
	for name, s := range p.Services {
		if !pinned.MatchString(s.Image) {
			t.Errorf("%s runs %q: neither a digest nor an exact version", name, s.Image)
		}
	}
	const guides = "grafana/grafana@sha256:8b37a2f028f164ce7b9889e1765b9d6ee23fec80f871d156fbf436d6198d32b7"
	if image := service(t, p, "grafana").Image; image != guides {
		t.Errorf("grafana runs %s, want the guide's %s", image, guides)
	}
	fetch, err := os.ReadFile("keycloak/fetch.sh")
	if err != nil {
		t.Fatal(err)
	}
	if _, version, _ := strings.Cut(service(t, p, "keycloak").Image, ":"); !strings.Contains(string(fetch), "\nversion="+version+"\n") {
		t.Errorf("keycloak is %s, which is not what keycloak/fetch.sh fetches for the tests", version)
	}
	build := service(t, p, "doorward").Build
	if build == nil || build.Dockerfile != "deploy/Dockerfile" {
		t.Errorf("doorward is not built by deploy/Dockerfile: %+v", build)
	}
	if a, b := service(t, p, "ca").Image, service(t, p, "doorward").Image; a != b {
		t.Errorf("ca runs %s and doorward %s", a, b)
	}
}

// Who mounts what, and who may write there. Keys are in doorward-data alone.
func TestVolumes(t *testing.T) {
	want := []string{
		"ca doorward-data /var/lib/doorward rw",
		"ca trust /trust rw",
		"doorward doorward-data /var/lib/doorward rw",
		"doorward sockets /run/doorward rw",
		"doorward trust /trust ro",
		"envoy sockets /run/doorward rw",
		"grafana grafana-storage /var/lib/grafana rw",
		"grafana trust /etc/pki/tls/certs ro",
		"keycloak keycloak-data /opt/keycloak/data rw",
	}
	p := project(t)
	var got []string
	for name, s := range p.Services {
		for _, v := range s.Volumes {
			if v.Type != types.VolumeTypeVolume {
				if !v.ReadOnly {
					t.Errorf("%s can write to %s of the host", name, v.Source)
				}
				continue
			}
			if _, ok := p.Volumes[v.Source]; !ok {
				t.Errorf("%s mounts %s, which is not declared", name, v.Source)
			}
			mode := "rw"
			if v.ReadOnly {
				mode = "ro"
			}
			got = append(got, strings.Join([]string{name, v.Source, v.Target, mode}, " "))
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("volumes are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Order of the first start: the CA, then what reads it; Envoy when its bootstrap and sockets are there.
func TestOrder(t *testing.T) {
	for _, row := range []struct{ service, after, condition string }{
		{"doorward", "ca", types.ServiceConditionCompletedSuccessfully},
		{"grafana", "ca", types.ServiceConditionCompletedSuccessfully},
		{"envoy", "doorward", types.ServiceConditionHealthy},
	} {
		if got := service(t, project(t), row.service).DependsOn[row.after].Condition; got != row.condition {
			t.Errorf("%s waits for %s until %q, want %q", row.service, row.after, got, row.condition)
		}
	}
}

// Both sides of the Unix sockets are one user, and the image's directories are that user's.
func TestSocketsAreOneUsers(t *testing.T) {
	const user = "65532:65532"
	p := project(t)
	if got := service(t, p, "envoy").User; got != user {
		t.Errorf("envoy runs as %q, want %q", got, user)
	}
	for _, name := range []string{"ca", "doorward"} {
		if got := service(t, p, name).User; got != "" {
			t.Errorf("%s runs as %q, want the image's own user", name, got)
		}
	}
	dockerfile := read(t, "Dockerfile")
	for _, line := range []string{"\nUSER " + user + "\n", "--chown=" + user + " /out/dirs/ /\n"} {
		if !strings.Contains(dockerfile, line) {
			t.Errorf("Dockerfile has no line with %q", strings.TrimSpace(line))
		}
	}
}
