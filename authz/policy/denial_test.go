package policy

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestOwnDenials(t *testing.T) {
	for _, row := range []struct {
		rego string
		want Decision
	}{
		{`redirect := "/welcome?from=here"`, Decision{Redirect: "/welcome?from=here"}},
		{`redirect := "https://help.example.com/access"`, Decision{Redirect: "https://help.example.com/access"}},
		{`status := 404`, Decision{Status: 404}},
		{`body := "come back later"`, Decision{Body: "come back later", BodyType: "text/plain; charset=utf-8"}},
		{`body := {"error": "quota", "left": 0}`, Decision{Body: "{\"error\":\"quota\",\"left\":0}\n", BodyType: "application/json"}},
		{`status := 429
		  response_headers := {"Retry-After": "60"}`, Decision{Status: 429, ResponseHeaders: map[string]string{"retry-after": "60"}}},
		{`metadata := {"tier": "free", "level": 3}`, Decision{Metadata: map[string]any{"tier": "free", "level": json.Number("3")}}},
		{`remove_headers := {"X-Internal", "authorization", "cookie"}`, Decision{RemoveHeaders: []string{"x-internal", "authorization", "cookie"}}},
		{`remove_headers contains "x-a" if input.user.name == "Alice"`, Decision{RemoveHeaders: []string{"x-a"}}},
		{`remove_headers := ["x-b", "x-a"]`, Decision{RemoveHeaders: []string{"x-b", "x-a"}}},
		{`status := 404 if input.user.name == "Bob"`, Decision{}},
	} {
		d := compilePackage(t, "allow := false\n"+row.rego).Decide(t.Context(), alice())
		slices.Sort(d.RemoveHeaders)
		slices.Sort(row.want.RemoveHeaders)
		if !reflect.DeepEqual(d, row.want) {
			t.Errorf("%s\ngot  %+v\nwant %+v", row.rego, d, row.want)
		}
	}
}

// TestFaultsInOwnDenialsDeny gives the rules values whose types or content are unknown when the policy is loaded.
func TestFaultsInOwnDenialsDeny(t *testing.T) {
	for _, row := range []struct{ rego, err string }{
		{`redirect := input.user.claims.level`, `redirect: must be a string, not a number`},
		{`redirect := "//EVIL.example"`, `redirect: must be a path that begins with one slash, or an https URL without a user`},
		{`redirect := "http://a.example"`, `redirect: must be a path that begins with one slash, or an https URL without a user`},
		{`redirect := "javascript:alert(1)"`, `redirect: must be a path that begins with one slash, or an https URL without a user`},
		{`redirect := "https://"`, `redirect: must be a path that begins with one slash, or an https URL without a user`},
		{`redirect := "https://a@b.example"`, `redirect: must be a path that begins with one slash, or an https URL without a user`},
		{`redirect := ""`, `redirect: must be a path that begins with one slash, or an https URL without a user`},
		{`redirect := "/\\evil.example"`, `redirect: holds a space, a backslash, a control character or one beyond ASCII; encode it (urlquery.encode)`},
		{`redirect := "/\t/evil.example"`, `redirect: holds a space, a backslash, a control character or one beyond ASCII; encode it (urlquery.encode)`},
		{`redirect := "/a\r\nset-cookie: x=y"`, `redirect: holds a space, a backslash, a control character or one beyond ASCII; encode it (urlquery.encode)`},
		{`redirect := "/é"`, `redirect: holds a space, a backslash, a control character or one beyond ASCII; encode it (urlquery.encode)`},
		{`redirect := concat("", ["/", sprintf("%0900d", [1]), sprintf("%0900d", [1]), sprintf("%0900d", [1]), sprintf("%0900d", [1]), sprintf("%0900d", [1])])`,
			`redirect: 4501 bytes are more than the 4096 allowed`},
		{`status := input.user.name`, `status: must be a number, not a string`},
		{`status := 200`, `status: 200 is no status of a denial: it is a whole number from 400 to 599`},
		{`status := 302`, `status: 302 is no status of a denial: it is a whole number from 400 to 599`},
		{`status := 403.5`, `status: 403.5 is no status of a denial: it is a whole number from 400 to 599`},
		{`status := 600`, `status: 600 is no status of a denial: it is a whole number from 400 to 599`},
		{`body := input.user.groups`, `body: must be a string or an object, not an array`},
		{`body := input.user.claims.level`, `body: must be a string or an object, not a number`},
		{`body := {input.user.claims.level: 1}`, `body: must have strings as names, and one is a number`},
		{`body := concat("", [sprintf("%0200d", [i]) | some i in numbers.range(1, 100)])`, `body: 20000 bytes are more than the 16384 allowed`},
		{`metadata := input.user.name`, `metadata: must be an object, not a string`},
		{`metadata := {"tier": "free", "doorward": "nobody"}`, `metadata: "doorward" is Doorward's own name: choose another`},
		{`metadata := {"doorward.identity": {"x-groups": {"0": "admins\r\nx-user: root"}}}`, `metadata: "doorward.identity" is Doorward's own name: choose another`},
		{`metadata := {input.user.claims.level: 1}`, `metadata: must have strings as names, and one is a number`},
		{`metadata := {"x": concat("", [sprintf("%0200d", [i]) | some i in numbers.range(1, 100)])}`, `metadata: 20008 bytes of JSON are more than the 16384 allowed`},
		{`remove_headers := input.user.name`, `remove_headers: must be a set or an array of names, not a string`},
		{`remove_headers contains input.user.claims.level`, `remove_headers: a header's name must be a string, not a number`},
		{`remove_headers := ["x y"]`, `remove_headers: "x y": is not a header's name`},
		{`remove_headers := [":path"]`, `remove_headers: ":path": is not a header's name`},
		{`remove_headers := ["Host"]`, `remove_headers: "host": is the route's to set (host_rewrite, preserve_host_header)`},
		{`remove_headers := ["content-length"]`, `remove_headers: "content-length": belongs to the connection and is Envoy's to set`},
		{`remove_headers := ["x-envoy-a"]`, `remove_headers: "x-envoy-a": belongs to the proxy and cannot be set by a policy`},
		{`remove_headers := [sprintf("x-%d", [i]) | some i in numbers.range(1, 65)]`, `remove_headers: 65 names are more than the 64 allowed`},
		{`headers := {"x-a": "1"}
		  remove_headers := ["X-A"]`, "remove_headers: \"x-a\" is removed here and set by `headers`"},
	} {
		rego := loose(row.rego)
		d := saidOfAlice(t, "allow := true\n"+rego)
		if got := errorText(d.Err); got != "policy p: "+row.err {
			t.Errorf("%s\ngot  %s\nwant policy p: %s", rego, got, row.err)
		}
		if d.Allow || d.Redirect != "" || d.Status != 0 || d.Body != "" || d.Metadata != nil || d.RemoveHeaders != nil {
			t.Errorf("%s\nis answered with %+v", rego, d)
		}
	}
}

// loose hides the types of input.user's parts from the type checker, as claims of the provider are hidden.
func loose(rego string) string {
	for _, part := range []string{"name", "groups"} {
		rego = strings.ReplaceAll(rego, "input.user."+part, fmt.Sprintf("object.get(input, [\"user\", %q], null)", part))
	}
	return rego
}

func TestLoadChecksOwnDenials(t *testing.T) {
	for _, row := range []struct{ rego, want string }{
		{"redirect := 5", "redirect must be a string, not a number"},
		{"status := \"404\"", "status must be a number, not a string"},
		{"body := [1]", "body must be a string or an object, not an array"},
		{"metadata := \"x\"", "metadata must be an object, not a string"},
		{"remove_headers := {\"x\": 1}", "remove_headers must be a set or an array of names, not an object"},
		{"remove_headers := [1]", "remove_headers must be a set or an array of names, not an array"},
		{"remove_header := [\"x\"]", "nothing uses the rule remove_header; did you mean remove_headers?"},
	} {
		_, problems := loadSource(t, "package grafana\nallow := true\n"+row.rego)
		if got, want := report(problems), "p.rego:3:1: "+row.want; got != want {
			t.Errorf("%s\ngot  %s\nwant %s", row.rego, got, want)
		}
	}
}

func TestDocumentsAreReadAsTheyAreWritten(t *testing.T) {
	everything := compilePackage(t, "allow := true\nbody := input")
	for _, in := range []*Input{alice(), stranger(), withHeaders(&Input{Request: Request{Method: "POST", Path: "/"}, Route: Route{Name: "r"}}, nil)} {
		text, err := json.Marshal(in.Document())
		if err != nil {
			t.Fatal(err)
		}
		again, err := ParseInput(text)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		want, got := everything.Decide(t.Context(), in), everything.Decide(t.Context(), again)
		if want.Err != nil || got.Body != want.Body || got.Err != nil {
			t.Errorf("%s\ngot  %s, %v\nwant %s, %v", text, got.Body, got.Err, want.Body, want.Err)
		}
	}
}

func TestDocumentKeepsAQueryThatDenies(t *testing.T) {
	in := alice()
	in.Request.Query = "a=1;b=2"
	text, err := json.Marshal(in.Document())
	if err != nil {
		t.Fatal(err)
	}
	again, err := ParseInput(text)
	if err != nil {
		t.Fatal(err)
	}
	d := compilePackage(t, `allow if input.request.query.a`).Decide(t.Context(), again)
	if got := errorText(d.Err); got != "policy p: input.request.query: a parameter holds a semicolon, which programs understand differently" {
		t.Errorf("got %s", got)
	}
}

func TestBadDocuments(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{``, `the input is no document of user, session, request and route: EOF`},
		{`[]`, `the input is no document of user, session, request and route: json: cannot unmarshal array into Go value of type policy.Document`},
		{`{"usr": {}}`, `the input is no document of user, session, request and route: json: unknown field "usr"`},
		{`{"request": {"method": "GET", "path": "/"}} {}`, `the input has more than one document`},
		{`{"request": {"method": "GET"}}`, `request.method and request.path are required; a path begins with a slash`},
		{`{"request": {"method": "GET", "path": "/x?a=1"}}`, `request.path has a query; put it into request.query, as name and array of values`},
		{`{"request": {"method": "GET", "path": "/x", "headers": {"X-A": "1"}}}`, `request.headers["X-A"]: header names are in lower case`},
	} {
		if _, err := ParseInput([]byte(row.text)); errorText(err) != row.want {
			t.Errorf("%s\ngot  %v\nwant %s", row.text, err, row.want)
		}
	}
}

// What has no effect is no difference, but not the same.
func TestSameDecisions(t *testing.T) {
	for _, row := range []struct {
		one, other string
		want       bool
	}{
		{`claims := {"a": 1}`, `claims := {"a": 1}`, true},
		{`claims := {"a": 1}`, `claims := {"a": 2}`, false},
		{`remove_headers := ["a", "b"]`, `remove_headers := {"b", "a"}`, true},
		{`headers := {"a": "1"}`, ``, false},
	} {
		one := compilePackage(t, "allow := false\n"+row.one).Decide(t.Context(), alice())
		other := compilePackage(t, "allow := false\n"+row.other).Decide(t.Context(), alice())
		if got := one.Same(&other); got != row.want || len(one.Differences(&other)) != 0 {
			t.Errorf("%s and %s: the same %t, want %t; they differ in %q", row.one, row.other, got, row.want, one.Differences(&other))
		}
	}
}

func TestDifferences(t *testing.T) {
	for _, row := range []struct{ one, other, want string }{
		{`allow := true`, `allow if input.user`, ``},
		{`allow := true`, `allow := false`, `allow`},
		{`allow := true`, `allow if to_number(input.user.name) == 1`, `error allow`},
		{`deny contains "a"`, `deny contains "b"`, `deny`},
		{`claims := {"a": 1}`, `claims := {"a": 2}`, `claims`},
		{`headers := {"a": "1"}`, `headers := {"a": "2"}`, `headers`},
		{`remove_headers := ["a", "b"]`, `remove_headers := {"b", "a"}`, ``},
		{`remove_headers := ["a"]`, `remove_headers := ["b"]`, `remove_headers`},
		{`response_headers := {"a": "1"}`, `response_headers := {}`, `response_headers`},
		{"allow := false\nredirect := \"/a\"", "allow := false\nredirect := \"/b\"", `redirect`},
		{"allow := false\nstatus := 404", "allow := false\nbody := \"x\"", `status body`},
		{"allow := false\nclaims := {\"a\": 1}", "allow := false\nclaims := {\"a\": 2}", ``},
		{`status := 404`, `body := "x"`, ``},
		{`metadata := {"a": [1]}`, `metadata := {"a": [2]}`, `metadata`},
		{`metadata := {}`, ``, ``},
	} {
		decide := func(rego string) Decision {
			if !strings.HasPrefix(rego, "allow") {
				rego = "allow := true\n" + rego
			}
			return compilePackage(t, rego).Decide(t.Context(), alice())
		}
		one, other := decide(row.one), decide(row.other)
		if one.Same(&other) && row.want != "" || !one.Same(&one) {
			t.Errorf("%s and %s are the same: %t", row.one, row.other, one.Same(&other))
		}
		for _, got := range [][]string{one.Differences(&other), other.Differences(&one)} {
			if strings.Join(got, " ") != row.want {
				t.Errorf("%s and %s differ in %q, want %q", row.one, row.other, got, row.want)
			}
		}
	}
}
