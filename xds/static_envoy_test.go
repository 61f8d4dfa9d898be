package xds

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"doorward/authz/config"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
)

// TestEnvoyLooksAtParts: a bad route is found among the good ones, by host and then by name.
func TestEnvoyLooksAtParts(t *testing.T) {
	binary := envoyBinary(t)
	t.Chdir("testdata/in")
	c, err := config.Load("hosts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	change, err := Build(Input{Config: c, Revision: revisionOf, Certificate: fixture, Page: plainPage})
	if err != nil {
		t.Fatal(err)
	}
	parts, err := change.Parts()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(parts, func(p Part) bool { return p.Name == "routes" && strings.HasPrefix(p.Where, "host ") })
	if at < 0 {
		t.Fatalf("no host's routes among %v", parts)
	}
	all := parts[at].message.(*routev3.RouteConfiguration)
	all.VirtualHosts[0].Routes = append(all.VirtualHosts[0].Routes, &routev3.Route{
		Name:   "bad",
		Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "("}}},
		Action: directResponse(200, ""),
	})
	withoutListeners := func(p Part) bool {
		return strings.HasPrefix(p.Name, "listener ") || strings.HasPrefix(p.Name, "filter ")
	} // they need ADS
	if said := look(t, binary, slices.DeleteFunc(slices.Clone(parts), withoutListeners)); !strings.Contains(said, "missing ): (") {
		t.Errorf("all together: %q, want a refusal", said)
	}
	for _, p := range slices.DeleteFunc(slices.Delete(slices.Clone(parts), at, at+1), withoutListeners) {
		if said := look(t, binary, []Part{p}); said != "" {
			t.Errorf("%s: %s", p, said)
		}
		if p.Name != "routes" && p.Split() != nil {
			t.Errorf("%s is split", p)
		}
	}
	var refused []string
	for _, p := range parts[at].Split() {
		if look(t, binary, []Part{p}) != "" {
			refused = append(refused, p.String())
		}
	}
	if want := []string{parts[at].Where + `, route "bad"`}; !slices.Equal(refused, want) {
		t.Errorf("refused are %q, want %q", refused, want)
	}
}

// look is what an Envoy says that refuses parts; "" for one that would take them.
func look(t *testing.T, binary string, parts []Part) string {
	t.Helper()
	resources, err := Static(parts)
	if err != nil {
		t.Fatal(err)
	}
	text, err := proto.Marshal(&bootstrapv3.Bootstrap{StaticResources: resources})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "bootstrap.pb")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(binary, "--mode", "validate", "-c", file, "-l", "critical", "--disable-hot-restart").CombinedOutput()
	if err == nil {
		return ""
	}
	return string(out)
}
