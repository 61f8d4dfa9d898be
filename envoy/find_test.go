package envoy

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	root := t.TempDir()
	program := func(elem ...string) string {
		path := filepath.Join(append([]string{root}, elem...)...)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	byFlag, byEnv, onPath := program("flag", "envoy"), program("env", "envoy"), program("path", "envoy")
	fetched := program("repo", ".tools", "envoy-"+Version, "envoy")
	deep := filepath.Join(root, "repo", "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	data := filepath.Join(root, "data")
	if err := os.WriteFile(data, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	empty := t.TempDir()

	rows := []struct {
		name, flag, env, path, cwd string
		want, err                  string
	}{
		{"the flag before all", byFlag, byEnv, filepath.Dir(onPath), deep, byFlag, ""},
		{"then ENVOY", "", byEnv, filepath.Dir(onPath), deep, byEnv, ""},
		{"then the PATH", "", "", filepath.Dir(onPath), deep, onPath, ""},
		{"then .tools above", "", "", empty, deep, fetched, ""},
		{"none", "", "", empty, empty, "",
			"envoy: found none; run envoy/fetch.sh for the pinned 1.40.0, or put it on the PATH, or name it with --envoy or ENVOY"},
		{"a wrong flag is not passed over", root + "/no", byEnv, empty, deep, "", "envoy: --envoy names " + root + "/no, which does not exist"},
		{"a wrong ENVOY is not passed over", "", data, filepath.Dir(onPath), deep, "",
			"envoy: ENVOY names " + data + ", which is not an executable file"},
		{"a directory is no program", root, "", empty, deep, "", "envoy: --envoy names " + root + ", which is not an executable file"},
	}
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			t.Setenv("ENVOY", r.env)
			t.Setenv("PATH", r.path)
			t.Chdir(r.cwd)
			got, err := Find(r.flag)
			if r.err != "" {
				if err == nil || err.Error() != r.err {
					t.Fatalf("Find = %s, %v\nwant error %s", got, err, r.err)
				}
				return
			}
			if err != nil || got != r.want {
				t.Errorf("Find = %s, %v\nwant %s", got, err, r.want)
			}
		})
	}
}

func TestVersionOfABinary(t *testing.T) {
	rows := []struct{ output, want string }{
		{"\n./envoy  version: 9e5580933739775e8bce696a57a2e1bc99368f23/1.40.0/Clean/RELEASE/BoringSSL\n", "1.40.0"},
		{"GNU bash, version 5.2.15", ""},
		{"version: 1", ""},
		{"", ""},
	}
	for _, r := range rows {
		if got := parseVersion([]byte(r.output)); got != r.want {
			t.Errorf("parseVersion(%q) = %q, want %q", r.output, got, r.want)
		}
	}
}

func TestCheckVersion(t *testing.T) {
	path := filepath.Join(t.TempDir(), "envoy")
	script := "#!/bin/sh\necho \"$0  version: abc/1.33.2/Clean/RELEASE/BoringSSL\"\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	got, err := CheckVersion(t.Context(), path)
	want := "envoy: " + path + " is version 1.33.2 and Doorward is made for 1.40.0; run envoy/fetch.sh, or name another with --envoy or ENVOY"
	if got != "1.33.2" || err == nil || err.Error() != want {
		t.Errorf("CheckVersion = %q, %v\nwant error %s", got, err, want)
	}
}

func TestCheckAddress(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()

	got := CheckAddress("listen.https", addr)
	want := "listen.https: " + addr + " is in use by another program; stop that one or choose another port"
	if got == nil || got.Error() != want {
		t.Errorf("a taken port: %v\nwant %s", got, want)
	}
	got = CheckAddress("listen.http", "192.0.2.1:0")
	if want := "listen.http: 192.0.2.1:0 is not an address of this machine"; got == nil || got.Error() != want {
		t.Errorf("a foreign address: %v\nwant %s", got, want)
	}
	if got := CheckAddress("listen.https", "8443"); got == nil || !strings.HasPrefix(got.Error(), "listen.https: listen on 8443: ") {
		t.Errorf("no address: %v", got)
	}
	if err := taken.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if got := CheckAddress("listen.https", addr); got != nil {
			t.Errorf("a free port: %v", got)
		}
	}
}
