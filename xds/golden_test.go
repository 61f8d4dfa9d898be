package xds

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"doorward/authz/config"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/encoding/protojson"
)

var update = flag.Bool("update", false, "write the files in testdata/out anew")

// TestGolden builds each configuration in testdata/in and compares the kinds of resources that its second comment names
// with testdata/out. After a change that is meant: go test ./xds -run Golden -update, and read the difference.
func TestGolden(t *testing.T) {
	t.Chdir("testdata/in")
	inputs, err := filepath.Glob("*.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal("no inputs", err)
	}
	for _, in := range inputs {
		name := strings.TrimSuffix(filepath.Base(in), ".yaml")
		t.Run(name, func(t *testing.T) {
			r := buildFile(t, in)
			for _, k := range shown(t, in) {
				compare(t, filepath.Join("../out", name, strings.ToLower(k.String())+".yaml"), render(t, r.set[k]))
			}
		})
	}
}

// fixture is the certificate of every host in the goldens but one, whose first certificate is awaited.
func fixture(host string) (chain, key []byte, err error) {
	if host == "pending.example.com" {
		return nil, nil, nil
	}
	if chain, err = os.ReadFile("cert.pem"); err != nil {
		return nil, nil, err
	}
	key, err = os.ReadFile("key.pem")
	return chain, key, err
}

// plainPage is a page that is short enough for the goldens, with a character that Envoy's formats give a meaning.
func plainPage(p PageText) Page {
	return Page{
		Body:   fmt.Sprintf("<!doctype html><title>%s</title><p>100%% %d: %s %s</p>\n", p.Title, p.Status, p.Message, p.Remedy),
		Header: map[string]string{"Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": "default-src 'none'", "Cache-Control": "no-store"},
	}
}

func buildFile(t *testing.T, path string) *Resources {
	t.Helper()
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	readsBody := func(route string) bool { return strings.HasSuffix(route, "-body") }
	r, err := Build(Input{Config: c, Revision: revisionOf, Body: readsBody, Certificate: fixture, Page: plainPage})
	if err != nil {
		t.Fatal(err)
	}
	return flat(t, r)
}

// shown are the kinds after "# shows:".
func shown(t *testing.T, path string) []kind {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^# shows: (.*)$`).FindSubmatch(text)
	if line == nil {
		t.Fatalf("%s has no line that begins with # shows:", path)
	}
	var out []kind
	for _, word := range strings.Fields(string(line[1])) {
		k := slices.Index(kindName[:], word)
		if k < 0 {
			t.Fatalf("%s shows %q, which is no kind of resource", path, word)
		}
		out = append(out, kind(k))
	}
	return out
}

// render writes resources as one YAML map by name, the same each time.
func render(t *testing.T, resources map[string]*resource) []byte {
	t.Helper()
	all := make(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(resources)) {
		m, err := resources[name].body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var tree any
		if err := json.Unmarshal(text, &tree); err != nil {
			t.Fatal(err)
		}
		all[name] = whole(tree)
	}
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(all); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// whole makes integers of JSON's numbers, for the eye.
func whole(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k := range v {
			v[k] = whole(v[k])
		}
	case []any:
		for i := range v {
			v[i] = whole(v[i])
		}
	case float64:
		return int64(v)
	}
	return v
}

func compare(t *testing.T, path string, got []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, got) {
		t.Errorf("%s differs; got:\n%s", path, got)
	}
}
