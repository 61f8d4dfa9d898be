package authz

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/policy"

	"google.golang.org/grpc/metadata"
)

// own is a policy package p that allows staff, with further rules.
func own(rules string) map[string]string {
	return map[string]string{"p.rego": "package p\n\ndefault allow := false\n\nallow if \"staff\" in input.user.groups\n\n" + rules + "\n"}
}

func TestOwnDenials(t *testing.T) {
	bob := []string{cookie, signedIn("bob")}
	page := append(slices.Clone(navigation), bob...)
	for _, row := range []struct {
		name, rules string
		headers     []string
		method      string
		status      int
		header      map[string]string
		body        string
	}{
		{"a navigation is redirected", `redirect := "/welcome"`, page, "GET", 302, map[string]string{"location": "/welcome", "cache-control": "no-store"}, ""},
		{"a script is not", `redirect := "/welcome"`, bob, "GET", 403, map[string]string{"location": ""}, `{"error":"denied","decision_id":"1b4e28ba-2fa1-11d2-883f-0016d3cca427"}`},
		{"a form is not", `redirect := "/welcome"`, page, "POST", 403, map[string]string{"location": ""}, "Access denied"},
		{"another status, a page", `status := 404`, page, "GET", 404, map[string]string{"content-type": "text/html; charset=utf-8"}, "Access denied"},
		{"another status, for a program", `status := 429`, bob, "GET", 429, map[string]string{"content-type": "application/json"}, `"error":"denied"`},
		{"a text", `body := "no <b>more</b>"`, page, "GET", 403, map[string]string{"content-type": "text/plain; charset=utf-8", "x-content-type-options": "nosniff"}, "no <b>more</b>"},
		{"an object", `body := {"code": 7}`, bob, "GET", 403, map[string]string{"content-type": "application/json"}, `{"code":7}`},
		{"a text that is HTML on purpose", "body := \"<p>no</p>\"\nresponse_headers := {\"Content-Type\": \"text/html\"}", page, "GET", 403,
			map[string]string{"content-type": "text/html", "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"}, "<p>no</p>"},
		{"a redirect for people, a body for programs", "redirect := \"/w\"\nstatus := 402\nbody := {\"code\": 7}", bob, "GET", 402, map[string]string{"location": ""}, `{"code":7}`},
		{"response headers go on denials", `response_headers := {"retry-after": "60"}`, bob, "GET", 403, map[string]string{"retry-after": "60"}, `"error":"denied"`},
	} {
		t.Run(row.name, func(t *testing.T) {
			d := newDoor(t, own(row.rules), routeTo(t, "grafana", "p"))
			a := d.ask(row.headers...)
			a.method = row.method
			r := d.check(a)
			if got := status(r); got != row.status {
				t.Errorf("status %d, want %d", got, row.status)
			}
			for name, want := range row.header {
				if got := headerOf(r.GetDeniedResponse().GetHeaders(), name); got != want {
					t.Errorf("%s: %q, want %q", name, got, want)
				}
			}
			if body := r.GetDeniedResponse().GetBody(); !strings.Contains(body, row.body) {
				t.Errorf("the body lacks %q: %s", row.body, body)
			}
			if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 200 {
				t.Errorf("whom the policy allows gets %d", got)
			}
		})
	}
}

// Envoy makes a status of gRPC of a denial, with the body as its message.
func TestDenialsOfGRPC(t *testing.T) {
	d := newDoor(t, own(`deny contains "not you"`), routeTo(t, "grafana", "p"))
	const id = " (decision 1b4e28ba-2fa1-11d2-883f-0016d3cca427)"
	for _, row := range []struct {
		kind, who string
		status    int
		body      string
	}{
		{"application/grpc", "", 401, "sign in to use this" + id},
		{"application/grpc+proto", "bob", 403, "not you" + id},
		{"application/grpc-web", "bob", 403, `{"error":"denied","message":"not you","decision_id":"1b4e28ba-2fa1-11d2-883f-0016d3cca427"}` + "\n"},
		{"application/json", "", 401, `{"error":"unauthenticated","message":"sign in to use this","decision_id":"1b4e28ba-2fa1-11d2-883f-0016d3cca427"}` + "\n"},
	} {
		headers := []string{"content-type", row.kind}
		if row.who != "" {
			headers = append(headers, cookie, signedIn(row.who))
		}
		a := d.ask(headers...)
		a.method = "POST"
		r := d.check(a)
		if got := r.GetDeniedResponse().GetBody(); status(r) != row.status || got != row.body {
			t.Errorf("%s of %q: %d %q, want %d %q", row.kind, row.who, status(r), got, row.status, row.body)
		}
	}
}

// A stranger is sent to sign in, unless the policy that decides on strangers answers them in a form of its own.
func TestOwnDenialsOfStrangers(t *testing.T) {
	for _, row := range []struct {
		rules     string
		anonymous bool
		want      int
	}{
		{`status := 404`, true, 404},
		{`status := 404`, false, 302},
		{`deny contains "x"`, true, 302},
	} {
		r := routeTo(t, "grafana", "p")
		r.AllowAnonymous = row.anonymous
		d := newDoor(t, own(row.rules), r)
		if got := status(d.check(d.ask(navigation...))); got != row.want {
			t.Errorf("%s, allow_anonymous %t: status %d, want %d", row.rules, row.anonymous, got, row.want)
		}
	}
}

func TestRemovedHeadersAndMetadata(t *testing.T) {
	d := newDoor(t, own("remove_headers := {\"authorization\", \"cookie\"}\nmetadata := {\"tier\": {\"name\": \"free\", \"level\": 3}, \"on\": [true, null]}"), routeTo(t, "grafana", "p"))
	r := d.check(d.ask(cookie, "theme=dark; "+signedIn("alice")))
	if got := r.GetOkResponse().GetHeadersToRemove(); !slices.Equal(got, []string{"authorization", "cookie"}) {
		t.Errorf("removed %q", got)
	}
	for _, who := range []string{"alice", "bob"} {
		text, err := json.Marshal(d.check(d.ask(cookie, signedIn(who))).GetDynamicMetadata().AsMap())
		if want := `{"doorward.log":{"on":[true,null],"tier":{"level":3,"name":"free"}},"on":[true,null],"tier":{"level":3,"name":"free"}}`; err != nil || string(text) != want {
			t.Errorf("%s: metadata %s, want %s", who, text, want)
		}
	}
}

func TestPolicyMayNotRemoveTheAssertion(t *testing.T) {
	for _, name := range []string{"X-Pomerium-Jwt-Assertion", "x_pomerium_jwt_assertion"} {
		d := newDoor(t, own(`remove_headers := ["`+name+`"]`), routeTo(t, "grafana", "p"))
		if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 403 {
			t.Errorf("%s: status %d, want 403", name, got)
		}
	}
}

func TestRecent(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	const id = "1b4e28ba-2fa1-11d2-883f-0016d3cca427"
	if _, ok := d.Recent(id); ok {
		t.Error("a decision before the first")
	}
	d.check(d.ask(cookie, "theme=dark; "+signedIn("leaver"), "x-team", "blue"))
	r, ok := d.Recent(id)
	if !ok || r.Outcome != "deny" || r.Status != 403 || r.Route.Name != "grafana" || r.Policy.Name() != "grafana" || !r.Current || r.Token != nil {
		t.Errorf("got %+v", r)
	}
	text, err := json.Marshal(r.Input.Document())
	if err != nil || strings.Contains(string(text), "__Host-doorward") || !strings.Contains(string(text), `"cookie":"theme=dark"`) || !strings.Contains(string(text), `"x-team":"blue"`) {
		t.Errorf("the input is %s, %v", text, err)
	}
	d.check(d.ask(cookie, signedIn("alice")))
	if r, _ = d.Recent(id); r.Outcome != "allow" || r.Token == nil || r.Token.Subject != "alice" || r.Token.Extra["role"] != "Admin" {
		t.Errorf("the newest of an id is %+v", r)
	}
	d.adopt(map[string]string{"grafana.rego": strings.ReplaceAll(rego, "staff", "admins")}, routeTo(t, "grafana", "grafana"))
	if r, _ = d.Recent(id); r.Current || !r.Policy.Decide(t.Context(), r.Input).Allow {
		t.Errorf("after a change of the policy the decision is explained by %+v", r)
	}
	a := d.ask()
	a.route = "unknown"
	d.check(a)
	if r, _ = d.Recent(id); r.Outcome != "unavailable" || r.Route != nil || r.Policy != nil || r.Input != nil || r.Cause == nil {
		t.Errorf("got %+v", r)
	}
}

func TestRecentIsBounded(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "any_authenticated_user"))
	for range 3 * recentOthers {
		d.check(d.ask())
	}
	d.check(d.ask("x-long", strings.Repeat("x", recentBytes)))
	if got := len(d.recent.others.slots); got != recentOthers {
		t.Errorf("%d are kept", got)
	}
	for i := range d.recent.others.slots {
		if k := d.recent.others.slots[i].Load(); k == nil || len(k.request.question) > recentBytes {
			t.Fatalf("slot %d holds %v", i, k)
		}
	}
}

func TestTry(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	request := policy.Request{Method: "GET", Path: "/"}
	staff := policy.Input{Request: request, User: &policy.User{ID: "s", Groups: []string{"staff"}}, Session: &policy.Session{ID: "hash", Expires: time.Now().Add(time.Hour).Unix()}}
	for _, row := range []struct {
		in   policy.Input
		want string
	}{
		{staff, "allow"},
		{policy.Input{Request: request, User: &policy.User{ID: "v"}}, "deny"},
		{policy.Input{Request: request}, "unauthenticated"},
	} {
		r, err := d.Try(t.Context(), "grafana", row.in)
		if err != nil || r.Outcome != row.want || r.Input.Route.Name != "grafana" || (r.Token != nil) != (row.want == "allow") {
			t.Errorf("got %+v, %v, want %s", r, err, row.want)
		}
	}
	if _, err := d.Try(t.Context(), "wiki", staff); err == nil || err.Error() != `there is no such route: "wiki"` {
		t.Errorf("got %v", err)
	}
	if d.log.Len() > 0 {
		t.Errorf("a try is in the log: %s", d.log)
	}
}

func TestShadowPolicy(t *testing.T) {
	const next = `package next

default allow := false

allow if "staff" in input.user.groups

allow if "viewers" in input.user.groups

deny contains "no such claim" if to_number(input.user.name) == 1

deny contains "not on leave" if "leave" in input.user.groups
`
	r := routeTo(t, "grafana", "grafana")
	r.ShadowPolicy = "next"
	d := newDoor(t, map[string]string{"grafana.rego": rego, "next.rego": strings.Replace(next, "deny contains \"no such claim\" if to_number(input.user.name) == 1", "", 1)}, r)
	for _, row := range []struct {
		who    string
		status int
		want   map[string]any // of the log's line; nil for none
	}{
		{"bob", 403, map[string]any{"outcome": "deny", "shadow_outcome": "allow", "differences": []any{"allow"}}},
		{"leaver", 403, map[string]any{"outcome": "deny", "shadow_outcome": "deny", "differences": []any{"deny"}, "shadow_reasons": []any{"not on leave"}}},
		{"alice", 200, map[string]any{"outcome": "allow", "shadow_outcome": "allow", "differences": []any{"claims", "headers"}}},
	} {
		if got := status(d.check(d.ask(cookie, signedIn(row.who)))); got != row.status {
			t.Errorf("%s: status %d, want %d: the shadow policy decides", row.who, got, row.status)
		}
		line := d.shadowLine(t)
		for name, want := range row.want {
			got, _ := json.Marshal(line[name])
			if expected, _ := json.Marshal(want); string(got) != string(expected) {
				t.Errorf("%s: %s is %s, want %s", row.who, name, got, expected)
			}
		}
	}
	d.check(d.ask()) // no rule runs for a stranger, so there is nothing to compare
	count := d.Shadows()["grafana"]
	if got := [...]uint64{count.Evaluated.Load(), count.Differing.Load(), count.Failed.Load(), count.Dropped.Load()}; got != [...]uint64{3, 3, 0, 0} {
		t.Errorf("counts %v", got)
	}
	d.adopt(map[string]string{"grafana.rego": rego, "next.rego": next}, r)
	d.check(d.ask(cookie, signedIn("alice")))
	if line := d.shadowLine(t); line["cause"] == nil || count.Failed.Load() != 1 {
		t.Errorf("a shadow policy that fails: %v", line)
	}
}

// shadowLine evaluates the one request that waits and returns what the log says of it; nil for nothing.
func (d *door) shadowLine(t *testing.T) (line map[string]any) {
	t.Helper()
	d.log.Reset()
	select {
	case job := <-d.shadows.queue:
		d.compare(t.Context(), job)
	default:
		t.Fatal("nothing waits for the shadow policy")
	}
	if d.log.Len() > 0 {
		if err := json.Unmarshal([]byte(d.log.String()), &line); err != nil {
			t.Fatal(err)
		}
	}
	return line
}

func TestShadowPolicyNeverWaits(t *testing.T) {
	r := routeTo(t, "grafana", "grafana")
	r.ShadowPolicy = "any_authenticated_user"
	d := newDoor(t, map[string]string{"grafana.rego": rego}, r)
	for range shadowQueue + 5 {
		d.check(d.ask(cookie, signedIn("alice")))
	}
	if got := d.Shadows()["grafana"].Dropped.Load(); got != 5 {
		t.Errorf("%d dropped, want 5", got)
	}
}

// A few thousand large requests are no way to fill the memory by way of a shadow policy that is slow.
func TestShadowPolicyHoldsSoManyBytes(t *testing.T) {
	r := routeTo(t, "grafana", "grafana")
	r.ShadowPolicy = "any_authenticated_user"
	d := newDoor(t, map[string]string{"grafana.rego": rego}, r)
	large := d.ask(cookie, signedIn("alice"), "x-large", strings.Repeat("x", 1<<20))
	for range 40 {
		d.check(large)
	}
	if got := d.Shadows()["grafana"].Dropped.Load(); got != 9 {
		t.Errorf("%d dropped, want 9", got)
	}
	ctx, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- d.Run(ctx) }()
	for deadline := time.Now().Add(10 * time.Second); d.shadows.held.Load() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	stop()
	if err := <-ran; err != nil || d.shadows.held.Load() != 0 || d.Shadows()["grafana"].Evaluated.Load() != 31 {
		t.Errorf("%d bytes are held for nothing, %v", d.shadows.held.Load(), err)
	}
}

// A shadow policy that reads a header which Envoy does not send yet is not evaluated, since it would be for a request that there was not.
func TestShadowPolicyReadsHeaders(t *testing.T) {
	r := routeTo(t, "grafana", "grafana")
	r.ShadowPolicy = "next"
	d := newDoor(t, map[string]string{"grafana.rego": rego, "next.rego": "package next\n\nallow if input.request.headers[\"x-new\"] == \"1\"\n"}, r)
	if got := d.g.Headers(); !slices.Contains(got, "x-new") {
		t.Errorf("Envoy is asked for %q", got)
	}
	d.g.Sending("old", []string{"cookie"})
	d.Adopt(d.g)
	d.ctx = metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-doorward-headers", "old"))
	if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 200 || len(d.shadows.queue) != 0 {
		t.Errorf("status %d, %d wait", got, len(d.shadows.queue))
	}
}

func TestUnknownShadowPolicy(t *testing.T) {
	r := routeTo(t, "grafana", "public")
	r.ShadowPolicy = "nxt"
	set, err := policy.Load(t.Context(), policy.Config{})
	if err != nil {
		t.Fatal(err)
	}
	r.Source = config.Position{File: "doorward.yaml", Line: 7}
	_, err = Build(&config.Config{Routes: []config.Route{r}}, set)
	if want := `doorward.yaml:7: routes[grafana].shadow_policy: there is no policy "nxt"; there are: any_authenticated_user, public`; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
