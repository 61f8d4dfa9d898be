package policy

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestRulesSee has the input as rules see it, whole.
func TestRulesSee(t *testing.T) {
	p := compilePackage(t, "allow := true\nclaims := {\"input\": input}")
	for _, row := range []struct {
		name string
		in   *Input
		want string
	}{
		{"alice", alice(), `{
			"user": {
				"id": "alice-id", "email": "alice@example.com", "email_verified": true, "name": "Alice",
				"groups": ["engineering", "grafana-admins"],
				"claims": {"department": "tools", "level": 3, "teams": ["a", "b"]}
			},
			"session": {"id": "5e5510", "created": 1000, "expires": 2000, "auth_time": 1500, "amr": ["pwd", "otp"], "acr": "silver"},
			"request": {
				"method": "GET", "scheme": "https", "host": "grafana.example.com", "path": "/d/x", "client_ip": "192.0.2.7",
				"query": {"org": ["1"], "var": ["a", "b c"], "flag": [""]},
				"headers": {"x-team": "tools", "accept": "text/html"}
			},
			"route": {"name": "grafana", "host": "grafana.example.com", "labels": {"team": "tools"}}
		}`},
		{"a stranger", &Input{}, `{
			"request": {"method": "", "scheme": "", "host": "", "path": "", "client_ip": "", "query": {}, "headers": {}},
			"route": {"name": "", "host": "", "labels": {}}
		}`},
		{"somebody of whom little is known", &Input{User: &User{ID: "x"}, Session: &Session{ID: "y"}}, `{
			"user": {"id": "x", "email": "", "email_verified": false, "name": "", "groups": [], "claims": {}},
			"session": {"id": "y", "amr": []},
			"request": {"method": "", "scheme": "", "host": "", "path": "", "client_ip": "", "query": {}, "headers": {}},
			"route": {"name": "", "host": "", "labels": {}}
		}`},
	} {
		d := p.Decide(t.Context(), row.in)
		if d.Err != nil {
			t.Errorf("%s: %v", row.name, d.Err)
			continue
		}
		if got, want := canonical(t, d.Claims["input"]), canonical(t, json.RawMessage(row.want)); got != want {
			t.Errorf("%s sees\n%s\nwant\n%s", row.name, got, want)
		}
	}
}

func canonical(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var x any
	if err := json.Unmarshal(text, &x); err != nil {
		t.Fatal(err)
	}
	text, err = json.Marshal(x)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestOnlyWhatIsReadIsBuilt holds that a policy is given no more than it reads.
func TestOnlyWhatIsReadIsBuilt(t *testing.T) {
	for _, row := range []struct{ rego, want string }{
		{`allow := true`, `{}`},
		{`allow if input.user.name`, `{"user": {"name": "Alice"}}`},
		{`allow if input.user`, `{"user": {}}`},
		{`allow if input.user.claims.level`, `{"user": {"claims": {"level": 3}}}`},
		{`allow if input.user.claims.none`, `{"user": {"claims": {}}}`},
		{`allow if input.session.acr`, `{"session": {"acr": "silver"}}`},
		{`allow if input.request.headers.accept`, `{"request": {"headers": {"accept": "text/html"}}}`},
		{`allow if input.request.headers.none`, `{"request": {"headers": {}}}`},
		{`allow if input.request.path`, `{"request": {"path": "/d/x"}}`},
		{`allow if input.route.name`, `{"route": {"name": "grafana"}}`},
	} {
		p := compilePackage(t, row.rego)
		v, err := p.plan.build(alice())
		if err != nil {
			t.Fatal(err)
		}
		if got, want := canonical(t, json.RawMessage(v.String())), canonical(t, json.RawMessage(row.want)); got != want {
			t.Errorf("%s\nis given %s, want %s", row.rego, got, want)
		}
	}
}

func TestQuery(t *testing.T) {
	p := compilePackage(t, "allow := true\nclaims := {\"q\": input.request.query}")
	for _, row := range []struct{ query, want, err string }{
		{"", `{}`, ""},
		{"a=1&b=2&a=3", `{"a": ["1", "3"], "b": ["2"]}`, ""},
		{"a", `{"a": [""]}`, ""},
		{"a=b=c", `{"a": ["b=c"]}`, ""},
		{"&&a=1&", `{"a": ["1"]}`, ""},
		{"%61=%20+x", `{"a": ["  x"]}`, ""},
		{"=x", `{"": ["x"]}`, ""},
		{"a=%zz", "", `policy p: input.request.query: a parameter cannot be decoded`},
		{"%=1", "", `policy p: input.request.query: a parameter cannot be decoded`},
		{"a=1;role=admin", "", `policy p: input.request.query: a parameter holds a semicolon, which programs understand differently`},
		{"a=1%3Brole=admin", `{"a": ["1;role=admin"]}`, ""},
	} {
		in := alice()
		in.Request.Query = row.query
		d := p.Decide(t.Context(), in)
		if errorText(d.Err) != row.err {
			t.Errorf("%q: got %v, want %s", row.query, d.Err, row.err)
			continue
		}
		if row.err == "" {
			if got, want := canonical(t, d.Claims["q"]), canonical(t, json.RawMessage(row.want)); got != want {
				t.Errorf("%q is %s, want %s", row.query, got, want)
			}
		}
	}
	in := alice()
	in.Request.Query = "a=%zz"
	if d := compilePackage(t, "allow if input.request.path").Decide(t.Context(), in); !d.Allow {
		t.Errorf("a bad query denies although it is not read: %+v", d)
	}
}

// TestManyParameters: the work grows with their number, not with its square.
func TestManyParameters(t *testing.T) {
	in := alice()
	in.Request.Query = strings.Repeat("a&", 100_000)
	d := compilePackage(t, "allow if count(input.request.query.a) == 100000").Decide(t.Context(), in)
	if !d.Allow {
		t.Errorf("got %+v", d)
	}
}

func TestClaimsThatAreNoJSON(t *testing.T) {
	in := alice()
	in.User.Claims = map[string]any{"bad": make(chan int), "good": 1}
	d := compilePackage(t, `allow if input.user.claims.bad`).Decide(t.Context(), in)
	if want := `policy p: input.user.claims["bad"]: ast: interface conversion: json: unsupported type: chan int`; d.Allow || errorText(d.Err) != want {
		t.Errorf("got %+v, want %s", d, want)
	}
	if d := compilePackage(t, `allow if input.user.claims.good == 1`).Decide(t.Context(), in); !d.Allow {
		t.Errorf("got %+v", d)
	}
}
