package policy

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestClaims(t *testing.T) {
	for _, row := range []struct{ rego, want string }{
		{`claims := {"grafana": {"role": "Admin", "orgs": ["a", "b"]}}`, `{"grafana":{"orgs":["a","b"],"role":"Admin"}}`},
		{`claims := {"a": 1, "b": 1.50, "c": null, "d": true, "e": 9007199254740993}`, `{"a":1,"b":1.50,"c":null,"d":true,"e":9007199254740993}`},
		{`claims := {"set": {"b", "a"}}`, `{"set":["a","b"]}`},
		{`claims := input.user.claims`, `{"department":"tools","level":3,"teams":["a","b"]}`},
		{`claims["a"] := input.user.name
		  claims["b"] := 2`, `{"a":"Alice","b":2}`},
		{`claims := {"a": 1} if input.user.name == "Bob"`, `null`},
	} {
		d := compilePackage(t, "allow := true\n"+row.rego).Decide(t.Context(), alice())
		got, err := json.Marshal(d.Claims)
		if err != nil || d.Err != nil || !d.Allow || string(got) != row.want {
			t.Errorf("%s\ngot  %s, %v\nwant %s", row.rego, got, d.Err, row.want)
		}
		if (d.ClaimsDigest == "") != (d.Claims == nil) {
			t.Errorf("%s: the digest of the claims is %q", row.rego, d.ClaimsDigest)
		}
	}
}

func TestClaimsDigestTellsClaimsApart(t *testing.T) {
	digest := func(rego string) string {
		return compilePackage(t, "allow := true\n"+rego).Decide(t.Context(), alice()).ClaimsDigest
	}
	one := digest(`claims := {"a": 1, "b": "x"}`)
	if same := digest(`claims := {"b": "x", "a": 1}`); same != one {
		t.Error("the order of names makes another digest")
	}
	if other := digest(`claims := {"a": 1, "b": "y"}`); other == one {
		t.Error("other claims have the same digest")
	}
}

func TestHeaders(t *testing.T) {
	for _, row := range []struct {
		rego string
		want map[string]string
	}{
		{`headers := {"X-User": input.user.email}`, map[string]string{"x-user": "alice@example.com"}},
		{`headers := {"x-groups": input.user.groups}`, map[string]string{"x-groups": "engineering,grafana-admins"}},
		{`headers := {"x-groups": {"b", "a"}}`, map[string]string{"x-groups": "a,b"}},
		{`headers := {"x-groups": []}`, map[string]string{"x-groups": ""}},
		{`headers := {"x-one": "a, b"}`, map[string]string{"x-one": "a, b"}},
		{`headers := {"x-name": "Zoë"}`, map[string]string{"x-name": "Zoë"}},
		{`headers := {}`, map[string]string{}},
		{`headers := {"authorization": "Bearer x", "x-forwarded-user": "u"}`, map[string]string{"authorization": "Bearer x", "x-forwarded-user": "u"}},
	} {
		d := compilePackage(t, "allow := true\n"+row.rego).Decide(t.Context(), alice())
		if d.Err != nil || !d.Allow || !reflect.DeepEqual(d.Headers, row.want) {
			t.Errorf("%s\ngot  %v, %v\nwant %v", row.rego, d.Headers, d.Err, row.want)
		}
		rego := strings.Replace(row.rego, "headers", "response_headers", 1)
		if d := compilePackage(t, "allow := true\n"+rego).Decide(t.Context(), alice()); d.Err != nil || !reflect.DeepEqual(d.ResponseHeaders, row.want) {
			t.Errorf("%s\ngot  %v, %v\nwant %v", rego, d.ResponseHeaders, d.Err, row.want)
		}
	}
}

// TestFaultsDeny gives the rules values whose types are unknown when the policy is loaded. Each would be allowed otherwise.
func TestFaultsDeny(t *testing.T) {
	for _, row := range []struct{ rego, err string }{
		{`allow := input.user.claims.department`, `allow: must be a boolean, not a string`},
		{`deny := input.user.claims.department`, `deny: must be a set of reasons (deny contains "reason" if ...), not a string`},
		{`deny contains input.user.claims.level`, `deny: a reason must be a string, not a number`},
		{`claims := input.user.claims.teams`, `claims: must be an object, not an array`},
		{`claims := {input.user.claims.level: 1}`, `claims: must have strings as names, and one is a number`},
		{`claims[name] := 1 if name := lower("SUB")`, `claims: "sub" is set by the token itself and cannot be changed by a policy`},
		{`claims := {"x": concat("", [sprintf("%0200d", [i]) | some i in numbers.range(1, 100)])}`, `claims: 20008 bytes of JSON are more than the 16384 allowed`},
		{`headers := input.user.claims.department`, `headers: must be an object, not a string`},
		{`headers := {"x": input.user.claims.level}`, `headers: "x": must be a string or an array of strings, not a number`},
		{`headers := {"x": [input.user.claims.level]}`, `headers: "x": must be an array of strings; one is a number`},
		{`headers := {"x": ["a,b"]}`, `headers: "x": "a,b" holds a comma, so it would read as two values`},
		{`headers := {input.user.claims.level: "x"}`, `headers: a header's name must be a string, not a number`},
		{`headers := {lower("X Y"): "x"}`, `headers: "x y": is not a header's name`},
		{`headers := {lower(""): "x"}`, `headers: "": is not a header's name`},
		{`headers := {"x": "a\r\nb: c"}`, `headers: "x": the value holds the control character 0x0d`},
		{`headers := {"x": "a\u0000"}`, `headers: "x": the value holds the control character 0x00`},
		{`headers := {"x": "a\u007f"}`, `headers: "x": the value holds the control character 0x7f`},
		{`headers := {"x": "\t"}`, `headers: "x": the value holds the control character 0x09`},
		{`headers := {"X-A": "1", "x-a": "2"}`, `headers: "x-a" is there twice, in different case`},
		{`headers := {lower("HOST"): "x"}`, `headers: "host": is the route's to set (host_rewrite, preserve_host_header)`},
		{`headers := {lower(":path"): "x"}`, `headers: ":path": is not a header's name`},
		{`headers := {lower("Cookie"): "x"}`, `headers: "cookie": cannot be set: the client's cookies are passed on without ours`},
		{`headers := {lower("Transfer-Encoding"): "x"}`, `headers: "transfer-encoding": belongs to the connection and is Envoy's to set`},
		{`claims := {lower("EMAIL"): "x"}`, `claims: "email" is set by the token itself and cannot be changed by a policy`},
		{`claims := {sprintf("I%s", ["ss"]): "x"}`, `claims: "Iss" is set by the token itself and cannot be changed by a policy`},
		{`claims := {"groups": input.user.name}`, `claims: "groups" must be an array of strings`},
		{`claims := {"groups": [input.session.created]}`, `claims: "groups" must be an array of strings`},
		{`deny contains "x" if count(net.cidr_contains_matches([n | some i in numbers.range(1, 300); n := "10.0.0.0/8"], "10.0.0.0/8")) == 1`,
			`p.rego:3: net.cidr_contains_matches: operand 1 has 300 members, more than the 256 allowed`},
		{`deny contains "x" if json.unmarshal(concat("", ["9" | some i in numbers.range(1, 2000)])) * 2 == 1`,
			`p.rego:3: mul: operand 1 has more than the 1024 digits allowed`},
		{`deny contains "x" if json.unmarshal("1e1000000") * 2 == 1`, `p.rego:3: json.unmarshal: invalid number: number too big`},
		{`headers := {lower("content_length"): "1"}`, `headers: "content_length": belongs to the connection and is Envoy's to set`},
		{`headers := {lower("x-envoy-original-path"): "x"}`, `headers: "x-envoy-original-path": belongs to the proxy and cannot be set by a policy`},
		{`headers := {lower("x_doorward_y"): "x"}`, `headers: "x_doorward_y": belongs to the proxy and cannot be set by a policy`},
		{`headers := {"x": concat("", [sprintf("%0200d", [i]) | some i in numbers.range(1, 100)])}`, `headers: 20001 bytes are more than the 16384 allowed`},
		{`response_headers := {lower("Connection"): "x"}`, `response_headers: "connection": belongs to the connection and is Envoy's to set`},
		{`response_headers := {"set-cookie": "__Host-doorward=x; Path=/"}`, `response_headers: "set-cookie": cannot set a cookie of Doorward's`},
		{`response_headers := {"set-cookie": "=__host-Doorward=x"}`, `response_headers: "set-cookie": cannot set a cookie of Doorward's`},
		{`claims := {"a": 1}
		  claims := {"a": 2} if input.user.name`, `p.rego:4: rule data.p.claims produced conflicting values`},
		{`deny contains "x" if to_number(input.user.name) == 1`, `p.rego:3: to_number: strconv.ParseFloat: parsing "Alice": invalid syntax`},
		{`deny contains "x" if 1 / (input.session.created - 1000) == 1`, `p.rego:3: div: divide by zero`},
		{`deny contains "x" if regex.match(input.user.claims.teams[0], "(")
		  deny contains "y" if regex.match(sprintf("%s(", [input.user.name]), "x")`,
			"p.rego:4: regex.match: error parsing regexp: missing closing ): `Alice(`"},
		{`deny contains "x" if count(input.user.claims.level) == 1`, `p.rego:3: count: operand 1 must be one of {array, object, set, string} but got number`},
		{`deny contains "x" if object.get(input.user.claims.level, "a", 1) == 2`, `p.rego:3: object.get: operand 1 must be object but got number`},
		{`deny contains "x" if net.cidr_contains("10.0.0.0/99", input.request.client_ip)`, `p.rego:3: net.cidr_contains: invalid CIDR address: 10.0.0.0/99`},
		{`deny contains "x" if not to_number(input.user.name)`, `p.rego:3: to_number: strconv.ParseFloat: parsing "Alice": invalid syntax`},
		{`deny contains "x" if time.clock([0, "Nowhere"])`, `p.rego:3: time.clock: unknown time zone Nowhere`},
	} {
		text := row.rego
		if !strings.HasPrefix(text, "allow") {
			text = "allow := true\n" + text
		}
		d := saidOfAlice(t, text)
		if d.Allow || d.Claims != nil || d.Headers != nil || d.ResponseHeaders != nil || d.Reasons != nil {
			t.Errorf("%s\nis answered with %+v", row.rego, d)
		}
		if got := errorText(d.Err); got != "policy p: "+row.err {
			t.Errorf("%s\ngot  %s\nwant policy p: %s", row.rego, got, row.err)
		}
	}
}
