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
// made once, outside of this module, by a transcription of RequestToInput (envoyauth/request.go and protomap.go, version 3 of Envoy's API,
// without descriptors of gRPC messages) in the form that it has since it reads x-envoy-auth-partial-body and gives source_principal. No release
// of the plugin itself was run. "fails" is where RequestToInput returns an error, which denies. The plugin is given Envoy's map of headers; we
// are given the same headers in their raw form, of which the plugin would show another field. A captured request shows the same again.
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

// TestObjectsDeny has denials in the form that OPA's Envoy plugin gives them; strangers are not asked to sign in where the policy answers.
func TestObjectsDeny(t *testing.T) {
	for _, row := range []struct {
		name, object string
		headers      []string
		status       int
		header       map[string]string
		body         string // "" is an empty one
	}{
		{"status and text", `{"allowed": false, "http_status": 401, "body": "who?", "headers": {"www-authenticate": "Basic"}}`, nil, 401, map[string]string{"www-authenticate": "Basic", "content-type": "text/plain; charset=utf-8"}, "who?"},
		{"a type of its own", `{"allowed": false, "body": "{}", "headers": {"content-type": "application/json"}}`, nil, 403, map[string]string{"content-type": "application/json"}, "{}"},
		{"a redirect", `{"allowed": false, "http_status": 302, "headers": {"location": "https://example.com/"}}`, navigation, 302, map[string]string{"location": "https://example.com/"}, ""},
		{"the answer to a preflight", `{"allowed": false, "http_status": 204, "body": "left out", "headers": {"access-control-allow-origin": "https://example.com"}}`, nil, 204, map[string]string{"access-control-allow-origin": "https://example.com"}, ""},
		{"no form", `{"allowed": false}`, navigation, 302, map[string]string{"location": "/.pomerium/sign_in?return=%2Fd%2Fx%3Fa%3D1"}, ""},
		{"what is for the upstream stays here", `{"allowed": false, "http_status": 403, "body": "no", "response_headers_to_add": {"x-r": "r"}, "request_headers_to_remove": ["x"]}`, nil, 403, map[string]string{"x-r": ""}, "no"},
		{"the identity header", `{"allowed": true, "headers": {"X_Pomerium-Jwt-Assertion": "x"}}`, nil, 403, nil, "{\"error\":\"denied\",\"message\":\"The policy of this address does not work. Its operator finds the cause under the decision id.\",\"decision_id\":\"1b4e28ba-2fa1-11d2-883f-0016d3cca427\"}\n"},
		{"the identity header, removed", `{"allowed": true, "request_headers_to_remove": ["x-pomerium-jwt-assertion"]}`, navigation, 403, nil, "*"},
	} {
		r := routeTo(t, "grafana", "p")
		r.AllowAnonymous = true
		d := newDoor(t, map[string]string{"p.rego": "package p\nallow := " + row.object}, r)
		answer := d.check(d.ask(row.headers...))
		denied := answer.GetDeniedResponse()
		if status(answer) != row.status || row.body != "*" && denied.GetBody() != row.body {
			t.Errorf("%s: status %d, body %q", row.name, status(answer), denied.GetBody())
		}
		for name, want := range row.header {
			if got := headerOf(denied.GetHeaders(), name); got != want {
				t.Errorf("%s: %s is %q, want %q", row.name, name, got, want)
			}
		}
	}
}

// TestBodiesThatWereNotSent: a policy that reads the body does not take a body that Envoy was not told to send for none.
func TestBodiesThatWereNotSent(t *testing.T) {
	r := routeTo(t, "grafana", "p")
	r.AllowAnonymous = true
	d := newDoor(t, map[string]string{"p.rego": "package p\nallow if not input.parsed_body.bad", "q.rego": "package q\nallow := true"}, r)
	for _, row := range []struct {
		limit, body string
		want        int
	}{
		{"", `{"bad": true}`, 503},
		{"", "", 503},
		{"none", "", 200},
		{"8192", `{"good": true}`, 200},
		{"8192", `{"bad": true}`, 401},
	} {
		question := d.ask("content-type", "application/json").question()
		question.Attributes.Request.Http.Body = row.body
		if row.limit != "" {
			question.Attributes.ContextExtensions["body"] = row.limit
		}
		if got := status(d.put(question)); got != row.want {
			t.Errorf("limit %q, body %s: status %d, want %d", row.limit, row.body, got, row.want)
		}
	}
	if !d.g.Body("grafana") || d.g.Body("none") {
		t.Error("bodies are asked for other routes, or not for this one")
	}
	r.Policy, r.ShadowPolicy = "q", "p"
	d.adopt(map[string]string{"p.rego": "package p\nallow if not input.parsed_body.bad", "q.rego": "package q\nallow := true"}, r)
	if !d.g.Body("grafana") {
		t.Error("the shadow policy reads the body, and it is not asked for")
	}
	if got := status(d.check(d.ask())); got != 200 {
		t.Errorf("a body that only the shadow policy reads was not sent: status %d, want 200", got)
	}
}
