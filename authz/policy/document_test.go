package policy

import (
	"encoding/json"
	"testing"
)

// TestDocumentHasWhatPluginPoliciesRead holds that a captured request is decided as the request was, by a policy for OPA's Envoy plugin.
func TestDocumentHasWhatPluginPoliciesRead(t *testing.T) {
	p := compilePackage(t, `
allow if {
	input.attributes.request.http.method == "POST"
	input.attributes.request.http.host == "grafana.example.com:8443"
	input.attributes.request.http.path == "/a%20b/c?x=1&x=2"
	input.attributes.source.principal == "spiffe://example.com/x"
	input.parsed_path == ["a b", "c"]
	input.parsed_query.x == ["1", "2"]
	input.parsed_body.y == 2
	not input.truncated_body
}`)
	in := withHeaders(&Input{Request: Request{
		Method: "POST", Path: "/a%20b/c", Query: "x=1&x=2", Host: "grafana.example.com",
		Target: "/a%20b/c?x=1&x=2", Authority: "grafana.example.com:8443",
		Attribute: func(name string) (map[string]any, error) {
			return map[string]map[string]any{
				"source":  {"principal": "spiffe://example.com/x"},
				"request": {"http": map[string]any{"body": `{"y": 2}`, "size": int64(8), "host": "grafana.example.com:8443", "path": "/a%20b/c?x=1&x=2"}},
			}[name], nil
		},
	}}, map[string]string{"content-type": "application/json", "content-length": "8"})
	if d := p.Decide(t.Context(), in); !d.Allow {
		t.Fatalf("%+v\n%s", d, p.Explain(t.Context(), in))
	}
	text, err := json.Marshal(in.Document())
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseInput(text)
	if err != nil {
		t.Fatal(err)
	}
	if d := p.Decide(t.Context(), again); !d.Allow {
		t.Errorf("%+v\n%s\n%s", d, text, p.Explain(t.Context(), again))
	}
	_, err = ParseInput([]byte(`{"request": {"method": "GET", "path": "/"}, "attributes": {"peer": {}}}`))
	want := "attributes has no peer; it has contextExtensions, destination, metadataContext, request, routeMetadataContext, source, tlsSession"
	if errorText(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
