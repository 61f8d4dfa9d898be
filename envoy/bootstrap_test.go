package envoy

import (
	"bytes"
	"flag"
	"os"
	"regexp"
	"strings"
	"testing"

	"doorward/xds"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	"google.golang.org/protobuf/encoding/protojson"
)

var update = flag.Bool("update", false, "write what was made into testdata")

func TestBootstrapRefusesWhatCannotWork(t *testing.T) {
	deep := "/run/" + strings.Repeat("d", 100)
	rows := []struct {
		name   string
		config BootstrapConfig
		want   string
	}{
		{"no node", BootstrapConfig{SocketDir: "/run/d"}, "envoy bootstrap: the node id is empty; each Envoy needs one of its own"},
		{"relative", BootstrapConfig{Node: "a", SocketDir: "run"}, `envoy bootstrap: socket_dir "run" must be an absolute path`},
		{"too deep", BootstrapConfig{Node: "a", SocketDir: deep},
			"envoy bootstrap: " + deep + "/streams.sock is 118 bytes long and a Unix socket's path has at most 107; set socket_dir to a shorter one"},
		{"zero byte", BootstrapConfig{Node: "a", SocketDir: "/run/\x00d"}, `envoy bootstrap: socket_dir "/run/\x00d" is not a directory's name`},
		{"address", BootstrapConfig{Node: "a", SocketDir: deep[:60], Remote: "doorward"}, `envoy bootstrap: address "doorward" of doorward is not a host and a port`},
		{"two at once", BootstrapConfig{SocketDir: "x"}, "envoy bootstrap: the node id is empty; each Envoy needs one of its own\n" +
			`envoy bootstrap: socket_dir "x" must be an absolute path`},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			out, err := Bootstrap(r.config)
			if err == nil || err.Error() != r.want {
				t.Errorf("Bootstrap = %q, %v\nwant error %s", out, err, r.want)
			}
		})
	}
}

// TestBootstrapLeadsToDoorward holds the clusters, their sockets and their thresholds.
func TestBootstrapLeadsToDoorward(t *testing.T) {
	b := parsed(t, BootstrapConfig{Node: "edge-1", SocketDir: "/run/doorward"})
	rows := []struct {
		name, socket string
		limit        uint32
		http2        bool
	}{
		{xds.ClusterXDS, "/run/doorward/xds.sock", 16, true},
		{xds.ClusterAuthz, "/run/doorward/authz.sock", 16_384, true},
		{xds.ClusterHTTP, "/run/doorward/http.sock", 1_024, false},
		{xds.ClusterStreams, "/run/doorward/streams.sock", 65_536, true},
		{xds.ClusterACME, "/run/doorward/acme.sock", 256, false},
	}
	clusters := b.GetStaticResources().GetClusters()
	if len(clusters) != len(rows) {
		t.Fatalf("%d static clusters, want %d", len(clusters), len(rows))
	}
	for i, r := range rows {
		c := clusters[i]
		endpoint := c.GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint()
		limits := c.GetCircuitBreakers().GetThresholds()[0]
		options := c.GetTypedExtensionProtocolOptions()[protocolExtension]
		isHTTP2 := bytes.Contains(options.GetValue(), []byte{0x1a, 0x02, 0x12, 0x00}) // explicit_http_config{http2_protocol_options{}}
		if c.GetName() != r.name || endpoint.GetAddress().GetPipe().GetPath() != r.socket || isHTTP2 != r.http2 {
			t.Errorf("cluster %d is %s at %v, HTTP/2 %v; want %+v", i, c.GetName(), endpoint.GetAddress(), isHTTP2, r)
		}
		for _, n := range []uint32{limits.GetMaxConnections().GetValue(), limits.GetMaxPendingRequests().GetValue(), limits.GetMaxRequests().GetValue()} {
			if n != r.limit {
				t.Errorf("%s has a threshold of %d, want %d", r.name, n, r.limit)
			}
		}
	}
	if got := b.GetAdmin().GetAddress().GetPipe(); got.GetPath() != "/run/doorward/admin.sock" || got.GetMode() != 0o600 {
		t.Errorf("admin is on %v, want a socket of mode 0600", got)
	}
	if b.GetNode().GetId() != "edge-1" || b.GetNode().GetCluster() != "doorward" {
		t.Errorf("node is %v", b.GetNode())
	}
}

func TestBootstrapIsDeterministic(t *testing.T) {
	c := BootstrapConfig{Node: "edge-1", SocketDir: "/run/doorward", MaxHeap: 1 << 30, MaxConnections: 7}
	first, err := Bootstrap(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		again, err := Bootstrap(c)
		if err != nil || !bytes.Equal(first, again) {
			t.Fatalf("equal configurations gave different bytes (%v)", err)
		}
	}
	for _, want := range []string{`"max_heap_size_bytes": "1073741824"`, `"max_active_downstream_connections": "7"`} {
		if !bytes.Contains(first, []byte(want)) {
			t.Errorf("no %s in the bootstrap", want)
		}
	}
}

// TestStatsLeaveOutWhatGrowsWithHosts holds the exclusions against names that Envoy makes.
func TestStatsLeaveOutWhatGrowsWithHosts(t *testing.T) {
	patterns := parsed(t, BootstrapConfig{Node: "a", SocketDir: "/d"}).GetStatsConfig().GetStatsMatcher().GetExclusionList().GetPatterns()
	excluded := func(name string) bool {
		for _, p := range patterns {
			if prefix := p.GetPrefix(); prefix != "" && strings.HasPrefix(name, prefix) {
				return true
			}
			if re := p.GetSafeRegex().GetRegex(); re != "" && regexp.MustCompile(`^(?:`+re+`)$`).MatchString(name) {
				return true
			}
		}
		return false
	}
	rows := map[string]bool{
		"sds.grafana.example.com.update_success":              true,
		"http.https.rds.grafana.example.com.config_reload":    true,
		"http.https.downstream_rq_active":                     false,
		"http.https.scoped_rds.hosts.update_success":          false,
		"cluster.doorward_authz.upstream_rq_pending_overflow": false,
		"listener_manager.listener_in_place_updated":          false,
	}
	for name, want := range rows {
		if excluded(name) != want {
			t.Errorf("%s: excluded is %v, want %v", name, !want, want)
		}
	}
}

// TestThePinIsTheVersion holds the version of requirements.txt, from which fetch.sh takes it, against the constant.
func TestThePinIsTheVersion(t *testing.T) {
	text, err := os.ReadFile("requirements.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\nenvoy-server=="+Version+" ") {
		t.Errorf("requirements.txt does not pin %s", Version)
	}
	if hashes := regexp.MustCompile(`--hash=sha256:[0-9a-f]{64}\b`).FindAll(text, -1); len(hashes) != 2 {
		t.Errorf("requirements.txt has %d hashes, want one for each platform", len(hashes))
	}
}

func parsed(t *testing.T, c BootstrapConfig) *bootstrapv3.Bootstrap {
	t.Helper()
	out, err := Bootstrap(c)
	if err != nil {
		t.Fatal(err)
	}
	var b bootstrapv3.Bootstrap
	if err := protojson.Unmarshal(out, &b); err != nil {
		t.Fatal(err)
	}
	return &b
}

// TestBootstrapOfAnotherMachine holds the whole of what such an Envoy starts with. With -update it is written anew.
func TestBootstrapOfAnotherMachine(t *testing.T) {
	c := BootstrapConfig{Node: "edge-1", Cluster: "eu", SocketDir: "/etc/doorward-edge", Remote: "doorward.internal:9443"}
	got, err := Bootstrap(c)
	if err != nil {
		t.Fatal(err)
	}
	secrets, err := Secrets(c.SocketDir)
	if err != nil {
		t.Fatal(err)
	}
	for file, text := range map[string][]byte{"testdata/remote.json": got, "testdata/" + NodeSecrets: secrets} {
		if *update {
			if err := os.WriteFile(file, text, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(file); err != nil || !bytes.Equal(text, want) {
			t.Errorf("%s differs from what is made (%v):\n%s", file, err, text)
		}
	}
}
