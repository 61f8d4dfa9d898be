package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

// answered is a decision without what is empty, as JSON.
func answered(t *testing.T, d Decision) string {
	t.Helper()
	out := map[string]any{"allow": d.Allow}
	add := func(name string, v any, there bool) {
		if there {
			out[name] = v
		}
	}
	add("reasons", d.Reasons, len(d.Reasons) > 0)
	add("claims", d.Claims, len(d.Claims) > 0)
	add("headers", d.Headers, len(d.Headers) > 0)
	add("removed", d.RemoveHeaders, len(d.RemoveHeaders) > 0)
	add("response", d.ResponseHeaders, len(d.ResponseHeaders) > 0)
	add("set", d.SetQuery, len(d.SetQuery) > 0)
	add("unset", d.RemoveQuery, len(d.RemoveQuery) > 0)
	add("status", d.Status, d.Status != 0)
	add("body", d.Body, d.Body != "")
	add("metadata", d.Metadata, len(d.Metadata) > 0)
	add("error", errorText(d.Err), d.Err != nil)
	text, err := json.Marshal(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// all is an object with everything in it.
const all = `"headers": {"X-A": "a", "x-b": ["b", "c"]}, "response_headers_to_add": {"x-r": "r"}, "request_headers_to_remove": ["X-Gone"],
	"query_parameters_to_set": {"q": "1", "r": ["2", "3"]}, "query_parameters_to_remove": ["s"],
	"http_status": 401, "body": "no", "dynamic_metadata": {"m": [1, true]}, "mine": {1, 2}`

// TestObjectDecisions has the answers of policies for OPA's Envoy plugin.
func TestObjectDecisions(t *testing.T) {
	for _, row := range []struct{ rego, want string }{
		{`allow := {"allowed": true}`, `{"allow":true}`},
		{`allow := {"allowed": false}`, `{"allow":false}`},
		{`allow := {"allowed": true, ` + all + `}`, `{"allow":true,"headers":{"x-a":"a","x-b":"b,c"},"metadata":{"m":[1,true]},"removed":["x-gone"],` +
			`"response":{"x-r":"r"},"set":[{"Name":"q","Value":"1"},{"Name":"r","Value":"2"},{"Name":"r","Value":"3"}],"unset":["s"]}`},
		{`allow := {"allowed": false, ` + all + `}`, `{"allow":false,"body":"no","metadata":{"m":[1,true]},"response":{"x-a":"a","x-b":"b,c"},"status":401}`},
		{`allow := {"allowed": true, "headers": [{"x-a": "a"}, {"x-b": "b"}, {"x-a": "c"}]}`, `{"allow":true,"headers":{"x-a":"a,c","x-b":"b"}}`},
		{`allow := {"allowed": false, "headers": {"set-cookie": ["a=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT"]}}`, `{"allow":false,"response":{"set-cookie":"a=1; Expires=Wed, 21 Oct 2015 07:28:00 GMT"}}`},
		{`allow := {"allowed": false, "http_status": 302, "headers": {"location": "https://example.com/"}}`, `{"allow":false,"response":{"location":"https://example.com/"},"status":302}`},
		{`allow := {"allowed": false, "http_status": 204}`, `{"allow":false,"status":204}`},
		{`allow := {"allowed": true, "http_status": 42, "body": ""}`, `{"allow":true}`}, // neither counts

		// Booleans and objects in turn, and the rules that are read beside an object.
		{"default allow := false\nallow := {\"allowed\": true, \"headers\": {\"x\": \"y\"}} if input.user.name == \"Alice\"", `{"allow":true,"headers":{"x":"y"}}`},
		{"default allow := false\nallow := {\"allowed\": true} if input.user.name == \"Bob\"\nbody := 5\nheaders := [input.user.id]", `{"allow":false}`},
		{"allow := {\"allowed\": true}\nclaims := {\"role\": \"x\"}\ndeny contains \"no\" if input.user.id", `{"allow":false,"claims":{"role":"x"},"reasons":["no"]}`},
		{"allow := {\"allowed\": deny == false}\ndefault deny := false", `{"allow":true}`},

		{"allow := {\"allowed\": true}\ndeny := object.get({\"a\": {\"no\"}}, lower(\"A\"), set())", `{"allow":false,"reasons":["no"]}`},

		// result, in place of allow.
		{"default allow := false\nallow if input.user.name == \"Alice\"\nheaders[\"x-a\"] := \"yes\"\nrequest_headers_to_remove := [\"x-b\"]\nstatus_code := 200 if { allow } else := 401\n" +
			"result[\"allowed\"] := allow\nresult[\"headers\"] := headers\nresult[\"request_headers_to_remove\"] := request_headers_to_remove\nresult[\"http_status\"] := status_code",
			`{"allow":true,"headers":{"x-a":"yes"},"removed":["x-b"]}`},
		{"default allow := true\nresult := {\"allowed\": false, \"http_status\": 429}", `{"allow":false,"status":429}`},
		{"result := {\"allowed\": true}", `{"allow":true}`},
		{"allow := true\nresult := {\"total\": 5}", `{"allow":true}`},
		{"allow := true\nresult if input.user.id", `{"allow":true}`},

		// A boolean deny that allow is made of.
		{"allow if not deny\ndeny if input.user.name == \"Bob\"", `{"allow":true}`},
		{"allow if not deny\ndeny if input.user.name == \"Alice\"", `{"allow":false}`},

		// What does not work.
		{`allow := {"allowed": true, "headers": {"x-doorward-a": "x"}}`, `x-doorward-`},
		{`allow := {"allowed": true, "headers": {"cookie": "a=1"}}`, `policy p: allow: headers: "cookie": cannot be set: the client's cookies are passed on without ours`},
		{`allow := {"allowed": true, "headers": {"host": "x"}}`, `is the route's to set`},
		{`allow := {"allowed": false, "headers": {"set-cookie": "__Host-doorward=x"}}`, `policy p: allow: headers: "set-cookie": cannot set a cookie of Doorward's`},
		{`allow := {"allowed": true, "response_headers_to_add": {"transfer-encoding": "chunked"}}`, `belongs to the connection`},
		{`allow := {"allowed": true, "request_headers_to_remove": ["x-envoy-peer"]}`, `belongs to the proxy`},
		{`allow := {"allowed": false, "response_headers_to_add": {"x": {"y": 1}}}`, `policy p: allow: response_headers_to_add: "x": must be a string or an array of strings, not an object`},
		{`allow := {"allowed": true, "headers": [{"set-cookie": "a=1"}, {"x": 1}]}`, `policy p: allow: headers: "x": must be a string or an array of strings, not a number`},
		{`allow := {"allowed": false, "headers": [{"set-cookie": "a=1"}, {"set-cookie": "b=1"}]}`, `policy p: allow: headers: "set-cookie": one answer can set one cookie`},
		{`allow := {"allowed": true, "query_parameters_to_set": {"a": "b c"}}`, `policy p: allow: query_parameters_to_set: "a": "b c" holds more than letters, digits and -_.~, which Envoy does not take in a query`},
		{`allow := {"allowed": true, "query_parameters_to_set": {"a": 1}}`, `policy p: allow: query_parameters_to_set: "a": a name or value must be a string, not a number`},
		{`allow := {"allowed": false, "http_status": 42}`, `policy p: allow: http_status: 42 is no status of an answer`},
		{`allow := {"allowed": false, "http_status": 401.5}`, `policy p: allow: http_status: 401.5 is no status of an answer`},
		{`allow := object.union({"allow": true}, input.user.claims)`, "policy p: allow: the object has no `allowed` that is a boolean"},
		{`allow := json.unmarshal("{\"allowed\": 1}")`, "policy p: allow: the object has no `allowed` that is a boolean"},
	} {
		d := saidOfAlice(t, row.rego)
		got := answered(t, d)
		if strings.HasPrefix(row.want, "{") && got != row.want || d.Err == nil && !strings.HasPrefix(row.want, "{") || d.Err != nil && (d.Allow || !strings.Contains(d.Err.Error(), row.want)) {
			t.Errorf("%s\ngot  %s, %v\nwant %s", row.rego, got, d.Err, row.want)
		}
	}
}
