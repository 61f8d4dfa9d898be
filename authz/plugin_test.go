package authz

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"

	"doorward/authz/policy"
)

// readsAll shows all that a policy for OPA's Envoy plugin is given.
const readsAll = `package p
allow if input.version
claims := {"input": object.remove(input, ["user", "session", "request", "route", "client_certificate"])}
`

// TestPluginInput holds the input against what OPA's Envoy plugin makes of the same question, field by field. The files of testdata/plugin were
// made once by RequestToInput in the plugin's envoyauth/request.go, in the form that it has since it reads x-envoy-auth-partial-body and gives
// source_principal; "fails" is where that returns an error, which denies. The plugin is given Envoy's map of headers; we are given the
// same headers in their raw form, of which the plugin would show another field. A captured request shows the same again.
func TestPluginInput(t *testing.T) {
	p := onePolicy(t, readsAll)
	files, err := filepath.Glob(filepath.Join("testdata", "plugin", "*.json"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var golden struct {
				Request json.RawMessage
				Input   json.RawMessage
				Fails   bool
			}
			if err := json.Unmarshal(text, &golden); err != nil {
				t.Fatal(err)
			}
			in := pluginInput(t, p, golden.Request)
			captured, err := json.Marshal(in.Document())
			if err != nil {
				t.Fatal(err)
			}
			again, err := policy.ParseInput(captured)
			if err != nil {
				t.Fatal(err)
			}
			for _, in := range []*policy.Input{in, again} {
				d := p.Decide(t.Context(), in)
				if golden.Fails {
					if d.Allow || d.Err == nil {
						t.Errorf("the plugin denies, we say %+v", d)
					}
					continue
				}
				if d.Err != nil {
					t.Fatal(d.Err)
				}
				if got, want := generic(t, d.Claims["input"]), generic(t, golden.Input); !reflect.DeepEqual(got, want) {
					t.Errorf("we give %v\nthe plugin %v", got, want)
				}
			}
		})
	}
}

// pluginInput is the policy's input of a question in JSON, whose headers are sent as they are to us.
func pluginInput(t *testing.T, p *policy.Policy, question []byte) *policy.Input {
	t.Helper()
	m := new(authv3.CheckRequest)
	if err := protojson.Unmarshal(question, m); err != nil {
		t.Fatal(err)
	}
	http := m.Attributes.Request.Http
	http.HeaderMap = new(corev3.HeaderMap)
	for name, value := range http.Headers {
		http.HeaderMap.Headers = append(http.HeaderMap.Headers, &corev3.HeaderValue{Key: name, RawValue: []byte(value)})
	}
	http.Headers = nil
	req, err := parseRequest(encode(t, m))
	if err != nil {
		t.Fatal(err)
	}
	return input(&route{policy: p, asks: asks(p)}, req, nil, "")
}

func onePolicy(t testing.TB, rego string) *policy.Policy {
	t.Helper()
	file := filepath.Join(t.TempDir(), "p.rego")
	if err := os.WriteFile(file, []byte(rego), 0o600); err != nil {
		t.Fatal(err)
	}
	set, err := policy.Load(t.Context(), policy.Config{Paths: []string{file}})
	if err != nil {
		t.Fatal(err)
	}
	p, err := set.Policy("p")
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// generic is a value as JSON has it, with numbers as they are written.
func generic(t *testing.T, v any) (x any) {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	if err := decoder.Decode(&x); err != nil {
		t.Fatal(err)
	}
	return x
}

// TestPluginInputHasNoneOfOurs has a client's cookies without the session's, in the map of headers too.
func TestPluginInputHasNoneOfOurs(t *testing.T) {
	p := onePolicy(t, readsAll)
	m := full()
	m.Attributes.Request.Http.HeaderMap.Headers = []*corev3.HeaderValue{{Key: "cookie", RawValue: []byte("a=1; __Host-doorward=secret; __Host-doorward-flow=secret")}}
	req, err := parseRequest(encode(t, m))
	if err != nil {
		t.Fatal(err)
	}
	d := p.Decide(t.Context(), input(&route{policy: p, asks: asks(p)}, req, nil, ""))
	text, err := json.Marshal(d.Claims)
	if err != nil || d.Err != nil {
		t.Fatal(err, d.Err)
	}
	if strings.Contains(string(text), "secret") || !strings.Contains(string(text), `"cookie":"a=1"`) {
		t.Errorf("the policy sees %s", text)
	}
}
