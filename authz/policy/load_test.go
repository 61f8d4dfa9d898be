package policy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"doorward/authz/config"
)

// report is the problems as lines of position and message.
func report(problems config.Problems) string {
	var lines []string
	for _, p := range problems {
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", p.File, p.Line, p.Column, p.Message))
	}
	return strings.Join(lines, "\n")
}

// TestLoadSaysWhatIsWrong has a policy in package grafana per row and every problem found in it.
func TestLoadSaysWhatIsWrong(t *testing.T) {
	for _, row := range []struct{ rego, want string }{
		// Text that is no Rego v1.
		{`allow if`, `p.rego:2:8: unexpected eof token`},
		{`allow = true { input.user.name == "x" }`, "p.rego:2:1: `if` keyword is required before rule body; the file is Rego v0, " +
			"which `doorward policy fmt --write` turns into v1 (as does `opa fmt --write --v0-v1`)"},
		{"import future.keywords.if\nallow if { input.user.name }\ndeny[x] { x := input.user.id }", "p.rego:4:1: `if` keyword is required before rule body; the file is Rego v0, " +
			"which `doorward policy fmt --write` turns into v1 (as does `opa fmt --write --v0-v1`)"},

		// What does not exist.
		{`allow if input.user.emial == "x"`, `p.rego:2:10: there is no input.user.emial; did you mean input.user.email?`},
		{`allow if { u := input.user; u.emial == "x" }`, `p.rego:2:29: there is no u.emial; did you mean u.email?`},
		{`allow if object.get(input.user, "emial", "x") == "x"`, `p.rego:2:33: the document has no "emial"; did you mean email?`},
		{`allow if input.request.body == "x"`, `p.rego:2:10: there is no input.request.body; input.request has client_ip, headers, host, method, path, query, scheme`},
		{`allow if input.usr`, `p.rego:2:10: there is no input.usr; did you mean input.user?`},
		{`allow if input.user.email.domain == "x"`, `p.rego:2:10: input.user.email.domain: input.user.email is a string, so nothing can be looked up in it`},
		{`allow if input.user.groups.admin`, `p.rego:2:10: input.user.groups.admin: input.user.groups cannot be looked up by "admin"`},
		{"allow if is_admn\nis_admin if true", `p.rego:2:10: is_admn is not defined; did you mean is_admin?`},
		{`allow if not x`, "p.rego:2:10: x has no value here: it is no rule and no import, and nothing outside of `not` and built-in calls gives it one"},
		{"import data.doorward.usr\nallow if usr.in_group(\"x\")", "p.rego:2:1: there is no data.doorward.usr to import; did you mean data.doorward.user?\n" +
			"p.rego:3:10: there is no function data.doorward.usr.in_group; did you mean data.doorward.user.in_group?"},
		{"import data.doorward.user\nallow if user.in_grup(\"x\")", `p.rego:3:10: there is no function data.doorward.user.in_grup; did you mean data.doorward.user.in_group?`},
		{`allow if starts_with(input.request.path, "/x")`, `p.rego:2:10: there is no function starts_with; did you mean startswith?`},
		{"allow if data.grafana.is_admn\nis_admin if true", `p.rego:2:10: there is no data.grafana.is_admn; did you mean data.grafana.is_admin?`},
		{`allow if data.roles[input.user.id] == "x"`, `p.rego:2:10: there is no data.roles`},

		// What OPA's Envoy plugin gives.
		{`allow if input.attributes.request.http.verb == "GET"`, `p.rego:2:10: there is no input.attributes.request.http.verb; input.attributes.request.http has body, fragment, headers, host, id, method, path, protocol, query, rawBody, scheme, size`},
		{`allow if input.attributes.source.address.socket_address.address == "x"`, `p.rego:2:10: there is no input.attributes.source.address.socket_address; did you mean input.attributes.source.address.socketAddress?`},
		{`allow if { s := input.attributes.source; object.get(s, "principle", "") == "x" }`, `p.rego:2:56: the document has no "principle"; did you mean principal?`},
		{`allow if input.attributes.request.http.headers["X-Foo"] == "x"`, `p.rego:2:48: header names are in lower case: input.attributes.request.http.headers["X-Foo"] is never there; write "x-foo"`},
		{`allow if input.attributes.request.http.headers[":status"] == "x"`, `p.rego:2:48: ":status" is no header's name, so input.attributes.request.http.headers[":status"] is never there`},
		{`allow if input.parsed_bdy.x`, `p.rego:2:10: there is no input.parsed_bdy; did you mean input.parsed_body?`},
		{`allow if input.client_certificate.cn == "x"`, `p.rego:2:10: there is no input.client_certificate.cn; input.client_certificate has dns_names, emails, fingerprint, issuer, not_after, not_before, serial, subject, uris`},

		// Headers.
		{`allow if input.request.headers["X-Foo"] == "x"`, `p.rego:2:32: header names are in lower case: input.request.headers["X-Foo"] is never there; write "x-foo"`},
		{`allow if input.request.headers.Foo == "x"`, `p.rego:2:32: header names are in lower case: input.request.headers["Foo"] is never there; write "foo"`},
		{`allow if { h := input.request.headers; h["X-Foo"] == "x" }`, `p.rego:2:42: header names are in lower case: input.request.headers["X-Foo"] is never there; write "x-foo"`},
		{"allow if f(input.request.headers)\nf(h) if h.Foo == \"x\"", `p.rego:3:11: header names are in lower case: input.request.headers["Foo"] is never there; write "foo"`},
		{`allow if object.get(input.request.headers, "X-Foo", "") == "x"`, `p.rego:2:44: header names are in lower case: input.request.headers["X-Foo"] is never there; write "x-foo"`},
		{"allow := true\nunused if input.request.headers[\"X-Foo\"]", `p.rego:3:33: header names are in lower case: input.request.headers["X-Foo"] is never there; write "x-foo"`},
		{`allow if input.request.headers[":path"] == "x"`, `p.rego:2:32: ":path" is no header's name, so input.request.headers[":path"] is never there`},

		// Types.
		{`allow := "yes"`, `p.rego:2:1: allow must be a boolean, not a string`},
		{`allow contains "yes"`, `p.rego:2:1: allow must be a boolean, not a set`},
		{"allow(x) if x\n", `p.rego:2:1: allow must be a boolean, not a function`},
		{`allow.x := true`, "p.rego:2:1: allow is an object without `allowed`, which is neither yes nor no"},
		{`allow := {"allowed": "yes"}`, `p.rego:2:1: allow "allowed": must be a boolean, not a string`},
		{`allow := {"allowed": true, "http_status": "401"}`, `p.rego:2:1: allow "http_status": must be a number, not a string`},
		{"default allow := false\nallow := {\"allowed\": true, \"body\": {}} if input.user.id", `p.rego:2:1: allow "body": must be a string, not an object`},
		{"result.allowed := true\nresult.headers := \"x\"", `p.rego:2:1: result "headers": must be an object or an array of objects, not a string`},
		{"default allow := \"no\"\nallow if input.user.name == \"x\"", `p.rego:2:1: allow must be a boolean, and it can be a boolean or a string`},
		{"allow := true\ndeny if input.user.name == \"x\"", `p.rego:3:1: deny must be a set of reasons, not a boolean; write: deny contains "the reason" if { ... }`},
		{"allow := {\"allowed\": true}\ndeny if input.user.name == \"x\"", `p.rego:3:1: deny must be a set of reasons, not a boolean; write: deny contains "the reason" if { ... }`},
		{"allow := true\ndeny := {\"a\": \"b\"}", `p.rego:3:1: deny must be a set of reasons, not an object; write: deny contains "the reason" if { ... }`},
		{"allow := true\ndeny[\"a\"] if true", `p.rego:3:1: deny must be a set of reasons, not an object; write: deny contains "the reason" if { ... }`},
		{"allow := true\ndeny contains 1", `p.rego:3:1: deny must be a set of strings, and a member can be a number`},
		{"allow := true\nclaims := [1]", `p.rego:3:1: claims must be an object, not an array`},
		{"allow := true\nclaims := {\"sub\": \"x\"}", `p.rego:3:1: claims "sub": is set by the token itself and cannot be changed by a policy`},
		{"allow := true\nclaims[\"aud\"] := \"x\"", `p.rego:3:1: claims "aud": is set by the token itself and cannot be changed by a policy`},
		{"allow := true\nclaims := {\"Email\": \"x\"}", `p.rego:3:1: claims "Email": is set by the token itself and cannot be changed by a policy`},
		{"allow := true\nheaders := {\"X-A\": 1}", `p.rego:3:1: headers "X-A": must be a string or an array of strings, not a number`},
		{"allow := true\nheaders := {\"X-A\": [1]}", `p.rego:3:1: headers "X-A": must be a string or an array of strings, not an array`},
		{"allow := true\nheaders := {\"Host\": \"x\"}", `p.rego:3:1: headers "Host": is the route's to set (host_rewrite, preserve_host_header)`},
		{"allow := true\nheaders := {\"x y\": \"x\"}", `p.rego:3:1: headers "x y": is not a header's name`},
		{"allow := true\nheaders[name] := 1 if some name in [\"a\"]", `p.rego:3:1: headers must have values that are a string or an array of strings, and one can be a number`},
		{"allow := true\nheaders[name] := \"a\" if some name in [1]", `p.rego:3:1: headers must have strings as names, and one can be a number`},
		{"allow := true\nstatus := 200", `p.rego:3:1: status: 200 is no status of a denial: it is a whole number from 400 to 599`},
		{"allow := true\ndefault status := 404\nstatus := 302 if input.user.name == \"x\"", `p.rego:4:1: status: 302 is no status of a denial: it is a whole number from 400 to 599`},
		{"allow := true\nclaims := {\"a\": 1} if input.user.name == \"x\" else := {\"groups\": [1]}", `p.rego:3:46: claims: "groups" must be an array of strings`},
		{"allow if user.in_group(\"x\")", `p.rego:2:10: there is no function user.in_group here; add: import data.doorward.user`},
		{"allow := true\nresponse_headers contains \"x\"", `p.rego:3:1: response_headers must be an object, not a set`},
		{"allow := true\nresponse_headers := {\"Connection\": \"x\"}", `p.rego:3:1: response_headers "Connection": belongs to the connection and is Envoy's to set`},
		{`allow if input.user.name == 5`, `p.rego:2:10: a string can never equal a number`},
		{`allow if startswith(input.user.email_verified, "x")`, `p.rego:2:10: startswith: invalid argument(s): have: (boolean, string), want: (search: string, base: string, result: boolean)`},

		// Built-ins that policies do not have.
		{`allow if http.send({"url": "x"}).status == 200`, `p.rego:2:10: http.send is not available to policies: ` + forbidden["http.send"]},
		{`allow if opa.runtime().env.HOME`, `p.rego:2:10: opa.runtime is not available to policies: ` + forbidden["opa.runtime"]},
		{`allow if bits.lsh(1, 2) == 4`, `p.rego:2:10: bits.lsh is not available to policies: ` + forbidden["bits.lsh"]},
		{"allow if f(1) with http.send as f\nf(x) := 1", `p.rego:2:20: with keyword target must reference existing input, data, or a function`},

		// Rules that are almost the contract's, and that nothing uses.
		{"allow := true\ndenied contains \"x\"", `p.rego:3:1: nothing uses the rule denied; did you mean deny?`},
		{"allow := true\nresponse_header := {}", `p.rego:3:1: nothing uses the rule response_header; did you mean response_headers?`},
		{"allow if allowed\nallowed := true", ``},
		{"helper := true\ndenied contains \"x\"", ``},
		{"allow := true\nunrelated := true", ``},

		{"allow if other\nother if allow", "p.rego:2:1: rule data.grafana.allow is recursive: data.grafana.allow -> data.grafana.other -> data.grafana.allow\n" +
			"p.rego:3:1: rule data.grafana.other is recursive: data.grafana.other -> data.grafana.allow -> data.grafana.other"},
		{"allow if input.usr\nallow if input.user.emial == \"x\"", "p.rego:2:10: there is no input.usr; did you mean input.user?\n" +
			"p.rego:3:10: there is no input.user.emial; did you mean input.user.email?"},
	} {
		_, problems := loadSource(t, "package grafana\n"+row.rego)
		if got := report(problems); got != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", row.rego, got, row.want)
		}
	}
}

func TestPackageNames(t *testing.T) {
	for _, row := range []struct{ text, want string }{
		{"", `p.rego:1:1: is empty: a policy begins with its package`},
		{"# nothing\n", `p.rego:1:1: is empty: a policy begins with its package`},
		{"allow := true", `p.rego:1:1: package expected`},
		{"package doorward\nallow := true", `p.rego:1:1: package doorward is below data.doorward, which is the library's; choose another name`},
		{"package doorward.mine\nallow := true", `p.rego:1:1: package doorward.mine is below data.doorward, which is the library's; choose another name`},
		{"package public\nallow := true", `p.rego:1:1: public is the name of a built-in policy; choose another name`},
		{"package doorwards\nallow := true", ``},
	} {
		_, problems := loadSource(t, row.text)
		if got := report(problems); got != row.want {
			t.Errorf("%q\ngot  %s\nwant %s", row.text, got, row.want)
		}
	}
}

// write makes files in a new folder and returns it.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestEveryFileIsReported has faults of different stages of the compiler, which by itself would stop at the first stage.
func TestEveryFileIsReported(t *testing.T) {
	dir := write(t, map[string]string{
		"a_syntax.rego":   "package a\nallow if",
		"b_function.rego": "package b\nallow if nothing(1)",
		"c_unsafe.rego":   "package c\nallow if x",
		"d_type.rego":     "package d\nallow if input.user.name == 5",
		"e_contract.rego": "package e\nallow := 1",
		"f_header.rego":   "package f\nallow if input.request.headers.Foo",
		"g_needs_a.rego":  "package g\nallow if data.a.allow",
		"h_same_a.rego":   "package a\ndeny contains \"x\" if allow",
		"i_good.rego":     "package i\nallow := true",
		"j_data.rego":     "package j\nallow if data.i.alow",
	})
	_, err := Load(t.Context(), Config{Paths: []string{dir, dir + "/none"}})
	var problems config.Problems
	if !errors.As(err, &problems) {
		t.Fatal(err)
	}
	want := `/a_syntax.rego:2:8: unexpected eof token
/b_function.rego:2:10: there is no function nothing
/c_unsafe.rego:2:10: x has no value here: it is no rule and no import, and nothing outside of ` + "`not`" + ` and built-in calls gives it one
/d_type.rego:2:10: a string can never equal a number
/e_contract.rego:2:1: allow must be a boolean, not a number
/f_header.rego:2:32: header names are in lower case: input.request.headers["Foo"] is never there; write "foo"
/j_data.rego:2:10: there is no data.i.alow; did you mean data.i.allow?
/none:0:0: cannot be read: no such file or directory`
	if got := strings.ReplaceAll(report(problems), dir, ""); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLoadFindsFiles(t *testing.T) {
	dir := write(t, map[string]string{
		"policies/a.rego":          "package a\nallow := true",
		"policies/deep/b.rego":     "package b\nallow := true",
		"policies/b_test.rego":     "package b_test\ntest_x if http.send({})",
		"policies/notes.txt":       "no Rego",
		"policies/.hidden/a.rego":  "package a\nallow := false",
		"volume/..2026/c.rego":     "package c\nallow := true",
		"named/policy.txt":         "package d\nallow := true",
		"elsewhere/linked/e.rego":  "package e\nallow := true",
		"policies/data.json":       "{}",
		"policies/deep/empty/note": "",
	})
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	link("..2026", "volume/..data")
	link("..data/c.rego", "volume/c.rego")
	link("../elsewhere/linked", "policies/link")
	link("..", "elsewhere/linked/loop")
	s, err := Load(t.Context(), Config{Paths: []string{
		filepath.Join(dir, "policies"), filepath.Join(dir, "policies/deep"), filepath.Join(dir, "policies/a.rego"),
		filepath.Join(dir, "volume"), filepath.Join(dir, "named/policy.txt"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(s.Names(), " "), "a any_authenticated_user b c d e public"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestLoadWithoutFiles(t *testing.T) {
	s, err := Load(t.Context(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(s.Names(), " "), "any_authenticated_user public"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestFilesThatCannotBeRead(t *testing.T) {
	dir := write(t, map[string]string{"big.rego": "package big\n" + strings.Repeat("#\n", maxSource/2), "a.rego": "package a\nallow := true"})
	for _, row := range []struct{ path, want string }{
		{"/none.rego", "cannot be read: no such file or directory"},
		{"/big.rego", "has 1048588 bytes; it may have 1048576"},
		{"/a.rego/b", "cannot be read: not a directory"},
	} {
		_, err := Load(t.Context(), Config{Paths: []string{dir + row.path}})
		var problems config.Problems
		if !errors.As(err, &problems) || len(problems) != 1 || problems[0].File != dir+row.path || problems[0].Message != row.want {
			t.Errorf("%s: got %v, want %s", row.path, err, row.want)
		}
	}
	if _, err := Load(t.Context(), Config{Paths: []string{"/dev/null"}}); !strings.Contains(errorText(err), "/dev/null: is not a regular file") {
		t.Errorf("a device is read: %v", err)
	}
}
