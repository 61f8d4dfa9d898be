package authz

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"doorward/authz/config"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
)

// lines are the headers of an answer as NAME=VALUE, with + before a line that is added to those before it, and - before a name that is taken away.
func lines(ok *authv3.OkHttpResponse) (all []string) {
	for _, h := range ok.GetHeaders() {
		sign := ""
		if h.GetAppendAction() == corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD {
			sign = "+"
		}
		all = append(all, sign+h.GetHeader().GetKey()+"="+h.GetHeader().GetValue())
	}
	for _, name := range ok.GetHeadersToRemove() {
		all = append(all, "-"+name)
	}
	return all
}

func TestIdentityHeaders(t *testing.T) {
	one := func(text config.Template) config.IdentityHeader {
		return config.IdentityHeader{Values: []config.Template{text}}
	}
	for _, row := range []struct {
		name   string
		header config.IdentityHeader
		want   []string
	}{
		{"the user of Grafana's and Gitea's", one("${email}"), []string{"x-id=alice@example.com"}},
		{"the subject", one("${sub}"), []string{"x-id=alice"}},
		{"the token, as a bearer's", one("Bearer ${jwt}"), []string{"x-id=Bearer JWT"}},
		{"groups in one line, without one that would read as two", one("${groups}"), []string{"x-id=staff,ops"}},
		{"text around", one("user=${sub};team=${claims_team}"), []string{"x-id=user=alice;team=blue"}},
		{"the policy's claim", one("${grafana.role}"), []string{"x-id=Admin"}},
		{"a nested claim of the provider's", one("${realm_access.roles}"), []string{"x-id=r1,r2"}},
		{"a name with dots", one("${https://example.com/id}"), []string{"x-id=7"}},
		{"a claim that is not there", one("${absent}"), []string{"-x-id"}},
		{"half of it is not there", one("${sub}/${absent}"), []string{"-x-id"}},
		{"a value that no header holds", one("${broken}"), []string{"-x-id"}},
	} {
		r := routeTo(t, "grafana", "p")
		r.IdentityHeaders = map[string]config.IdentityHeader{"X-Id": row.header}
		d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow := true\n\nclaims := {\"grafana\": {\"role\": \"Admin\"}}\n"}, r)
		alice := someone("alice", "staff", "ops", "a,b", "x\r\ny")
		alice.User.Claims = map[string]any{"realm_access": map[string]any{"roles": []any{"r1", "r2"}}, "https://example.com/id": json.Number("7"), "claims_team": "blue", "broken": "a\nb"}
		d.Sessions.(people)["alice"] = alice
		got := lines(d.check(d.ask(cookie, signedIn("alice"))).GetOkResponse())
		jwt, rest := got[0], got[1:]
		for i := range rest {
			rest[i] = strings.ReplaceAll(rest[i], strings.TrimPrefix(jwt, "x-pomerium-jwt-assertion="), "JWT")
		}
		if want := append(slices.Clone(row.want), "-cookie"); !strings.HasPrefix(jwt, "x-pomerium-jwt-assertion=") || !sameElements(rest, want) {
			t.Errorf("%s: got %q, want %q", row.name, rest, want)
		}
	}
}

// Headers with a line for each value are made by the route of what the answer's metadata says.
func TestIdentityHeadersWithLines(t *testing.T) {
	r := routeTo(t, "grafana", "p")
	r.IdentityHeaders = map[string]config.IdentityHeader{"Impersonate-Group": {Values: []config.Template{"${groups}", "${sub}", "${absent}"}, Each: true}, "X-None": {Values: []config.Template{"${absent}"}, Each: true}}
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow := true\n\nmetadata := {\"tier\": 1}\n"}, r)
	d.Sessions.(people)["alice"] = someone("alice", "staff", "a,b", "x\ny")
	for range 2 { // made, and reused
		response := d.check(d.ask(cookie, signedIn("alice")))
		text, err := json.Marshal(response.GetDynamicMetadata().AsMap())
		if want := `{"doorward.identity":{"impersonate-group":{"0":"staff","1":"a,b","2":"alice"},"x-none":{}},"doorward.log":{"tier":1},"tier":1}`; err != nil || string(text) != want {
			t.Errorf("got %s, want %s", text, want)
		}
	}
}

// Nobody but Doorward says what those lines are, also where it has nothing to say.
func TestPolicyMayNotSayIdentityHeaders(t *testing.T) {
	r := routeTo(t, "grafana", "p")
	r.AllowAnonymous = true
	r.IdentityHeaders = map[string]config.IdentityHeader{"Impersonate-Group": {Values: []config.Template{"${groups}"}, Each: true}}
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow := true\n\nmetadata := {lower(\"DOORWARD.identity\"): {\"impersonate-group\": {\"0\": \"a\\r\\nx-user: root\"}}}\n"}, r)
	for _, headers := range [][]string{nil, {cookie, signedIn("alice")}} {
		if response := d.check(d.ask(headers...)); status(response) != 403 || response.GetDynamicMetadata() != nil {
			t.Errorf("got %v", response)
		}
	}
}

func sameElements(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// Without a session, what a client sent under the name of an identity header is taken away, and with pass_identity_headers off the JWT alone is
// left out.
func TestIdentityHeadersOfNobody(t *testing.T) {
	r := routeTo(t, "grafana", "p")
	r.AllowAnonymous = true
	r.IdentityHeaders = map[string]config.IdentityHeader{"Authorization": {Values: []config.Template{"Bearer ${jwt}"}}, "X-User": {Values: []config.Template{"${sub}"}}}
	rego := map[string]string{"p.rego": "package p\n\nallow := true\n\nheaders := {\"x-user\": \"guest\"} if not input.user\n"}
	d := newDoor(t, rego, r)
	if got, want := lines(d.check(d.ask("authorization", "Bearer forged")).GetOkResponse()), []string{"x-user=guest", "-authorization"}; !slices.Equal(got, want) {
		t.Errorf("a stranger: got %q, want %q", got, want)
	}
	off := false
	r.PassIdentityHeaders = &off
	d = newDoor(t, rego, r)
	got := lines(d.check(d.ask(cookie, signedIn("alice"))).GetOkResponse())
	if len(got) != 3 || !strings.HasPrefix(got[0], "authorization=Bearer jwt iss=") || got[1] != "x-user=alice" || got[2] != "-cookie" {
		t.Errorf("pass_identity_headers off: got %q", got)
	}
}

func TestListedClaims(t *testing.T) {
	for _, row := range []struct {
		claims config.Names
		want   string
	}{
		{nil, `alice@example.com {"role":"Admin"}`},
		{config.Names{"department", "realm_access.roles", "absent"}, ` {"department":"tools","realm_access":{"roles":["r1"]},"role":"Admin"}`},
		{config.Names{"email", "role"}, `alice@example.com {"role":"Admin"}`}, // the policy's word counts
		{config.Names{}, ` {"role":"Admin"}`},
	} {
		r := routeTo(t, "grafana", "grafana")
		r.Claims = row.claims
		d := newDoor(t, map[string]string{"grafana.rego": rego}, r)
		alice := someone("alice", "staff")
		alice.User.Claims = map[string]any{"department": "tools", "realm_access": map[string]any{"roles": []any{"r1"}, "other": 1}, "role": "root", "preferred_username": "al"}
		d.Sessions.(people)["alice"] = alice
		got := headerOf(d.check(d.ask(cookie, signedIn("alice"))).GetOkResponse().GetHeaders(), "x-pomerium-jwt-assertion")
		if want := "jwt iss=grafana.example.com aud=grafana.example.com sub=alice email=" + strings.Replace(row.want, " ", " extra=", 1); got != want {
			t.Errorf("%q: got %s\nwant %s", row.claims, got, want)
		}
	}
}

func TestLargeTokensAreWarnedOf(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	d.g.edge.budget = 100
	for range 3 {
		d.check(d.ask(cookie, signedIn("alice")))
		d.minted = newTokenCache()
	}
	if got := strings.Count(d.log.String(), "an identity JWT is larger than jwt.size_budget"); got != 1 {
		t.Errorf("%d warnings in\n%s", got, d.log)
	}
}
