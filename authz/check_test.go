package authz

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/decision"
	"doorward/authz/policy"
	"doorward/authz/session"
	"doorward/authz/token"
	"doorward/authz/web"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

const host = "grafana.example.com"

// people are sessions by the value of their cookie, and of their programs' credential, which ends in -at-service.
type people map[string]*session.Session

func (p people) Find(_ context.Context, cookie, h string) (*session.Session, error) {
	if cookie == "broken" {
		return nil, errors.New("the store cannot be asked")
	}
	if s := p[cookie]; s != nil && (h == host || strings.HasSuffix(h, ".apps.example.com")) {
		return s, nil
	}
	if name, ok := strings.CutSuffix(cookie, "-at-service"); ok && p[name] != nil && h == session.ForService(host) {
		return p[name], nil
	}
	return nil, session.ErrNone
}

// Ticket names the person in plain text.
func (people) Ticket(found *session.Session) string { return "ticket of " + found.User.ID }

// plainMinter shows the claims in place of signing them.
type plainMinter struct{ minted int }

func (m *plainMinter) KeyID() string { return "k1" }
func (m *plainMinter) Mint(c token.Claims) (string, time.Time, error) {
	m.minted++
	extra, err := json.Marshal(c.Extra)
	if c.Subject == "" {
		err = errors.New("no subject")
	}
	return fmt.Sprintf("jwt iss=%s aud=%s sub=%s email=%s extra=%s", c.Issuer, c.Audience, c.Subject, c.Email, extra), time.Now().Add(5 * time.Minute), err
}

func someone(id string, groups ...string) *session.Session {
	return &session.Session{
		ID: id, Version: 1, Created: time.Now(), Expires: time.Now().Add(time.Hour),
		User: session.User{ID: id, Email: id + "@example.com", EmailVerified: true, Name: id, Groups: groups, Claims: map[string]any{}},
	}
}

const rego = `package grafana

allow if "staff" in input.user.groups

deny contains "you are on leave" if "leave" in input.user.groups

claims := {"role": "Admin"} if "staff" in input.user.groups

headers := {"x-team": "blue"}
`

// recorder writes each record at once.
type recorder struct{ *strings.Builder }

func (r recorder) Add(e decision.Event) {
	record := e.Record()
	r.Write(decision.Append(nil, &record))
}

// door is a Server with one generation, and what to ask it.
type door struct {
	*Server
	t      *testing.T
	g      *Generation
	minter *plainMinter
	log    *strings.Builder
	ctx    context.Context

	timeout time.Duration // of an evaluation, on a machine that is busy with other tests
	header  string        // of the identity JWT
}

func newDoor(t *testing.T, sources map[string]string, routes ...config.Route) *door {
	t.Helper()
	pages, err := web.New(web.Brand{})
	if err != nil {
		t.Fatal(err)
	}
	d := &door{t: t, timeout: 10 * time.Second, header: "X-Pomerium-Jwt-Assertion", minter: new(plainMinter), log: new(strings.Builder), ctx: t.Context()}
	d.Server, err = New(Config{
		Sessions: people{
			"alice": someone("alice", "staff"), "bob": someone("bob", "viewers"), "leaver": someone("leaver", "staff", "leave"), "nobody": someone(""),
		},
		Tokens: d.minter, Pages: pages, Log: slog.New(slog.NewJSONHandler(d.log, nil)), Decisions: recorder{d.log},
	})
	if err != nil {
		t.Fatal(err)
	}
	d.adopt(sources, routes...)
	return d
}

func (d *door) adopt(sources map[string]string, routes ...config.Route) {
	d.t.Helper()
	d.adoptWaiting(nil, sources, routes...)
}

// adoptWaiting is adopt while bundles are not there yet.
func (d *door) adoptWaiting(bundles []string, sources map[string]string, routes ...config.Route) {
	d.t.Helper()
	dir := d.t.TempDir()
	for name, text := range sources {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			d.t.Fatal(err)
		}
	}
	set, err := policy.Load(d.t.Context(), policy.Config{Paths: []string{dir}, Waiting: bundles, Timeout: d.timeout})
	if err != nil {
		d.t.Fatal(err)
	}
	d.g, err = Build(&config.Config{
		Routes: routes, JWT: config.JWT{Header: d.header}, Paths: config.Paths{Prefix: "/.pomerium"},
	}, set)
	if err != nil {
		d.t.Fatal(err)
	}
	d.Adopt(d.g)
}

func routeTo(t *testing.T, name, policyName string) config.Route {
	t.Helper()
	from, err := config.ParseURL("https://" + host)
	if err != nil {
		t.Fatal(err)
	}
	return config.Route{Name: name, From: from, Policy: policyName}
}

// ask is a request as Envoy puts it, changed by what the row of a test says.
type ask struct {
	route, revision, host, sni, method, path string
	headers                                  [][2]string
}

func (d *door) ask(headers ...string) ask {
	a := ask{route: "grafana", revision: d.g.Revision("grafana"), host: host, sni: host, method: "GET", path: "/d/x?a=1"}
	for i := 0; i < len(headers); i += 2 {
		a.headers = append(a.headers, [2]string{headers[i], headers[i+1]})
	}
	return a
}

func (d *door) check(a ask) *authv3.CheckResponse {
	d.t.Helper()
	return d.put(a.question())
}

// question is the request in Envoy's terms.
func (a ask) question() *authv3.CheckRequest {
	lines := &corev3.HeaderMap{Headers: []*corev3.HeaderValue{{Key: "x-request-id", RawValue: []byte("1b4e28ba-2fa1-11d2-883f-0016d3cca427")}}}
	for _, h := range a.headers {
		lines.Headers = append(lines.Headers, &corev3.HeaderValue{Key: h[0], RawValue: []byte(h[1])})
	}
	return &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: a.method, Host: a.host, Path: a.path, Scheme: "https", HeaderMap: lines,
		}},
		TlsSession:        &authv3.AttributeContext_TLSSession{Sni: a.sni},
		ContextExtensions: map[string]string{"route": a.route, "revision": a.revision},
	}}
}

// put asks in wire form, as Envoy does, and reads the answer with the generated parser.
func (d *door) put(in *authv3.CheckRequest) *authv3.CheckResponse {
	d.t.Helper()
	text, err := proto.Marshal(in)
	if err != nil {
		d.t.Fatal(err)
	}
	response := new(authv3.CheckResponse)
	if err := proto.Unmarshal(d.Check(d.ctx, string(text)), response); err != nil {
		d.t.Fatalf("the answer is no CheckResponse, which Envoy might be set to allow: %v", err)
	}
	return response
}

// status is 200 for an allowed request.
func status(r *authv3.CheckResponse) int {
	if r.GetOkResponse() != nil && r.GetStatus().GetCode() == 0 {
		return 200
	}
	if r.GetStatus().GetCode() == 0 {
		return -1 // an OK status with a denied response would let the request in
	}
	return int(r.GetDeniedResponse().GetStatus().GetCode())
}

func headerOf(options []*corev3.HeaderValueOption, name string) string {
	for _, h := range options {
		if h.GetHeader().GetKey() == name {
			return h.GetHeader().GetValue()
		}
	}
	return ""
}

const cookie = "cookie"

func signedIn(who string) string { return session.CookieName + "=" + who }

var navigation = []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "document", "accept", "text/html"}

func TestCheck(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	change := func(f func(*ask)) func(*ask) { return f }
	rows := []struct {
		name    string
		headers []string
		change  func(*ask)
		want    int
	}{
		{"a member of staff", []string{cookie, signedIn("alice")}, nil, 200},
		{"somebody the policy does not allow", []string{cookie, signedIn("bob")}, nil, 403},
		{"somebody the policy denies", []string{cookie, signedIn("leaver")}, nil, 403},
		{"an unknown cookie", []string{cookie, signedIn("mallory")}, nil, 401},
		{"no cookie", nil, nil, 401},
		{"no cookie, a navigation", navigation, nil, 302},
		{"no cookie, HTML preferred, no fetch metadata", []string{"accept", "text/html,application/xhtml+xml,*/*;q=0.8"}, nil, 302},
		{"no cookie, JSON asked for", []string{"accept", "application/json"}, nil, 401},
		{"no cookie, a fetch by a page", []string{"sec-fetch-mode", "cors", "sec-fetch-dest", "empty", "accept", "text/html"}, nil, 401},
		{"no cookie, a frame", []string{"sec-fetch-mode", "navigate", "sec-fetch-dest", "iframe", "accept", "text/html"}, nil, 401},
		{"no cookie, a form posted", navigation, change(func(a *ask) { a.method = "POST" }), 401},
		{"no cookie, a prefetch", append([]string{"sec-purpose", "prefetch;prerender"}, navigation...), nil, 401},
		{"the session store is down", []string{cookie, signedIn("broken")}, nil, 503},
		{"a revision that is not known", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.revision = "0123456789abcdef" }), 503},
		{"no revision", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.revision = "" }), 503},
		{"a route that is not known", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.route = "wiki" }), 503},
		{"another host", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.host = "wiki.example.com" }), 421},
		{"another TLS server name", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.sni = "wiki.example.com" }), 421},
		{"no TLS server name", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.sni = "" }), 421},
		{"the host with port, dot and capitals", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.host = "Grafana.Example.com.:443" }), 200},
		{"two different session cookies", []string{cookie, signedIn("alice"), cookie, signedIn("bob")}, nil, 400},
		{"two different session cookies in one header", []string{cookie, signedIn("bob") + "; " + signedIn("alice")}, nil, 400},
		{"two Cookie headers, one session", []string{cookie, "a=1", cookie, signedIn("alice")}, nil, 200},
		{"the cookie's name in another case", []string{cookie, strings.ToLower(signedIn("alice"))}, nil, 401},
		{"an upgrade that has the next proxy drop a header", []string{cookie, signedIn("alice"), "upgrade", "websocket", "connection", "Upgrade, X-Pomerium-Jwt-Assertion"}, nil, 400},
		{"an ordinary upgrade", []string{cookie, signedIn("alice"), "upgrade", "websocket", "connection", "keep-alive, Upgrade"}, nil, 200},
		{"an empty path", []string{cookie, signedIn("alice")}, change(func(a *ask) { a.path = "" }), 400},
		{"a user without subject", []string{cookie, signedIn("nobody")}, nil, 403},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			d.t = t
			a := d.ask(row.headers...)
			if row.change != nil {
				row.change(&a)
			}
			if got := status(d.check(a)); got != row.want {
				t.Errorf("status %d, want %d", got, row.want)
			}
		})
	}
}

func TestNoHeaderMapDenies(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	for _, in := range []*authv3.CheckRequest{{}, {Attributes: &authv3.AttributeContext{ContextExtensions: map[string]string{"route": "grafana", "revision": d.g.Revision("grafana")}}}} {
		if got := status(d.put(in)); got != 400 {
			t.Errorf("Check(%v): status %d, want 400", in, got)
		}
	}
}

func TestBeforeTheFirstGenerationNothingIsAllowed(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "public"))
	fresh, err := New(d.Config)
	if err != nil {
		t.Fatal(err)
	}
	d.Server = fresh
	if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 503 {
		t.Errorf("status %d, want 503", got)
	}
}

// TestWhileABundleIsNotThereNobodyIsLetIn asks for a route whose policy is in it, with and without a session.
func TestWhileABundleIsNotThereNobodyIsLetIn(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "public"))
	d.adoptWaiting([]string{"acme"}, nil, routeTo(t, "grafana", "acme.grafana"))
	for name, headers := range map[string][]string{"staff": {cookie, signedIn("alice")}, "a stranger": navigation} {
		if got := status(d.check(d.ask(headers...))); got != 503 {
			t.Errorf("%s: status %d, want 503", name, got)
		}
	}
	if !strings.Contains(d.log.String(), "a bundle that may hold the policy is not there yet: acme") {
		t.Errorf("the log does not say why: %s", d.log)
	}
}

func TestStrangersAreNotLetInByNegation(t *testing.T) {
	for name, source := range map[string]string{
		"not":           "package p\n\nblocked if input.user.id == \"bob\"\n\nallow if not blocked\n",
		"count":         "package p\n\nallow if count({g | some g in input.user.groups; g == \"blocked\"}) == 0\n",
		"object.get":    "package p\n\nallow if object.get(input, [\"user\", \"id\"], \"\") != \"bob\"\n",
		"default allow": "package p\n\ndefault allow := true\n",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDoor(t, map[string]string{"p.rego": source}, routeTo(t, "grafana", "p"))
			if got := status(d.check(d.ask("accept", "application/json"))); got != 401 {
				t.Errorf("a stranger got %d, want 401", got)
			}
			if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 200 {
				t.Errorf("alice got %d, want 200: the row shows nothing if the policy allows nobody", got)
			}
		})
	}
}

func TestAnonymousIsDecidedOnlyWhereTheRouteSaysSo(t *testing.T) {
	open := routeTo(t, "grafana", "p")
	open.AllowAnonymous = true
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow if input.request.path == \"/open\"\n"}, open)
	a := d.ask("accept", "application/json")
	a.path = "/open"
	if got := status(d.check(a)); got != 200 {
		t.Errorf("/open: %d, want 200", got)
	}
	a.path = "/closed"
	if got := status(d.check(a)); got != 401 {
		t.Errorf("/closed: %d, want 401: signing in may help", got)
	}
}

func TestUnauthenticatedSetting(t *testing.T) {
	for setting, want := range map[config.Unauthenticated]int{config.Login: 302, config.Unauthorized: 401, config.Forbidden: 403} {
		r := routeTo(t, "grafana", "any_authenticated_user")
		r.Unauthenticated = setting
		d := newDoor(t, nil, r)
		if got := status(d.check(d.ask(navigation...))); got != want {
			t.Errorf("unauthenticated: %s: status %d, want %d", setting, got, want)
		}
	}
}

func TestRedirectComesBackToTheExactURL(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "any_authenticated_user"))
	for _, target := range []string{"/", "/d/x?a=1&b=%2F&c=a+b", "//evil.example.com/", "/%2e%2e/x", "/a?return=https://evil.example.com"} {
		a := d.ask(navigation...)
		a.path = target
		location := headerOf(d.check(a).GetDeniedResponse().GetHeaders(), "location")
		u, err := url.Parse(location)
		if err != nil || u.Host != "" || u.Path != "/.pomerium/sign_in" || u.Query().Get("return") != target {
			t.Errorf("%s: location %q", target, location)
		}
	}
}

func TestAllowedRequestCarriesTheIdentity(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	ok := d.check(d.ask(cookie, "theme=dark; "+signedIn("alice")+"; name=Zoë; x=\xff\xfe", "x-pomerium-jwt-assertion", "forged")).GetOkResponse()
	want := "jwt iss=grafana.example.com aud=grafana.example.com sub=alice email=alice@example.com extra={\"role\":\"Admin\"}"
	if got := headerOf(ok.GetHeaders(), "x-pomerium-jwt-assertion"); got != want {
		t.Errorf("assertion %q, want %q", got, want)
	}
	if got := headerOf(ok.GetHeaders(), "x-team"); got != "blue" {
		t.Errorf("the policy's header is %q, want blue", got)
	}
	if got, want := headerOf(ok.GetHeaders(), "cookie"), "theme=dark; name=Zoë"; got != want {
		t.Errorf("the upstream's cookies are %q, want %q", got, want)
	}
	for _, h := range ok.GetHeaders() {
		if h.GetAppendAction() != corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			t.Errorf("%s does not replace what the client sent", h.GetHeader().GetKey())
		}
	}
}

func TestPassIdentityHeadersOff(t *testing.T) {
	off := false
	for _, policyName := range []string{"public", "any_authenticated_user"} {
		r := routeTo(t, "grafana", policyName)
		r.PassIdentityHeaders = &off
		d := newDoor(t, nil, r)
		ok := d.check(d.ask(cookie, signedIn("alice"))).GetOkResponse()
		if got := headerOf(ok.GetHeaders(), "x-pomerium-jwt-assertion"); got != "" {
			t.Errorf("%s: an assertion although pass_identity_headers is off", policyName)
		}
		if !slices.Contains(ok.GetHeadersToRemove(), "cookie") {
			t.Errorf("%s: our cookie reaches the upstream", policyName)
		}
	}
}

func TestPolicyMayNotSetTheAssertion(t *testing.T) {
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow := true\n\nheaders := {\"x-pomerium-jwt-assertion\": \"mine\"}\n"}, routeTo(t, "grafana", "p"))
	if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 403 {
		t.Errorf("status %d, want 403", got)
	}
}

func TestDeniedPageSaysWhy(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	body := d.check(d.ask(append(slices.Clone(navigation), cookie, signedIn("leaver"))...)).GetDeniedResponse().GetBody()
	for _, part := range []string{"you are on leave", "leaver@example.com", "1b4e28ba-2fa1-11d2-883f-0016d3cca427", "/.pomerium/sign_out"} {
		if !strings.Contains(body, part) {
			t.Errorf("the page lacks %q", part)
		}
	}
}

func TestVeryLongURLsComeBackToTheStart(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "any_authenticated_user"))
	a := d.ask(navigation...)
	a.path = "/" + strings.Repeat("x", maxReturn)
	if got, want := headerOf(d.check(a).GetDeniedResponse().GetHeaders(), "location"), "/.pomerium/sign_in?return=%2F"; got != want {
		t.Errorf("location of %d bytes, want %s", len(got), want)
	}
}

func TestSessionThatEndsNowIsNone(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "any_authenticated_user"))
	d.Sessions.(people)["alice"].Expires = time.Now()
	if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != 401 {
		t.Errorf("status %d, want 401", got)
	}
}

func TestHeadersThatEnvoyDidNotSend(t *testing.T) {
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow if not input.request.headers[\"x-blocked\"]\n"}, routeTo(t, "grafana", "p"))
	if got := d.g.Headers(); !slices.Contains(got, "x-blocked") || !slices.Contains(got, "cookie") || slices.Contains(got, "referer") {
		t.Errorf("headers %q, want the policy's and our own", got)
	}
	d.g.Sending("all of them", d.g.Headers())
	d.g.Sending("too few", []string{"cookie"})
	d.Adopt(d.g)
	for set, want := range map[string]int{"all of them": 200, "too few": 503, "never heard of": 503} {
		d.ctx = metadata.NewIncomingContext(t.Context(), metadata.Pairs("x-doorward-headers", set))
		if got := status(d.check(d.ask(cookie, signedIn("alice")))); got != want {
			t.Errorf("Envoy says it sends %s: status %d, want %d", set, got, want)
		}
	}
}

func TestClientIPIsEnvoysWord(t *testing.T) {
	r := routeTo(t, "grafana", "p")
	r.AllowAnonymous = true
	d := newDoor(t, map[string]string{"p.rego": "package p\n\nallow if input.request.client_ip == \"192.0.2.7\"\n"}, r)
	if got := status(d.check(d.ask("x-envoy-external-address", "192.0.2.7"))); got != 200 {
		t.Errorf("status %d, want 200", got)
	}
	if got := status(d.check(d.ask("x-envoy-external-address", "192.0.2.8"))); got != 401 {
		t.Errorf("another address: status %d, want 401", got)
	}
}

func TestUnauthenticatedJSON(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "any_authenticated_user"))
	denied := d.check(d.ask("accept", "application/json")).GetDeniedResponse()
	if got, want := denied.GetBody(), "{\"error\":\"unauthenticated\",\"message\":\"sign in to use this\",\"decision_id\":\"1b4e28ba-2fa1-11d2-883f-0016d3cca427\"}\n"; got != want {
		t.Errorf("body %q, want %q", got, want)
	}
	if got := headerOf(denied.GetHeaders(), "content-type"); got != "application/json" {
		t.Errorf("content-type %q", got)
	}
	if got := headerOf(denied.GetHeaders(), "www-authenticate"); got != "Bearer realm=\"grafana.example.com\"" {
		t.Errorf("www-authenticate %q", got)
	}
}

func TestOldRevisionIsDecidedByTheOldPolicyUntilSettled(t *testing.T) {
	const everybody, nobody = "package p\n\nallow := true\n", "package p\n\nallow := false\n"
	d := newDoor(t, map[string]string{"p.rego": everybody}, routeTo(t, "grafana", "p"))
	before := d.ask(cookie, signedIn("alice"))
	d.adopt(map[string]string{"p.rego": nobody}, routeTo(t, "grafana", "p"))
	after := d.ask(cookie, signedIn("alice"))
	if before.revision == after.revision {
		t.Fatal("another policy has the same revision")
	}
	for _, row := range []struct {
		name string
		ask  ask
		want int
	}{{"old revision", before, 200}, {"new revision", after, 403}} {
		if got := status(d.check(row.ask)); got != row.want {
			t.Errorf("%s: status %d, want %d", row.name, got, row.want)
		}
	}
	d.Settle(d.Retired()...)
	if got := status(d.check(before)); got != 503 {
		t.Errorf("old revision after every Envoy has the new one: status %d, want 503", got)
	}
	if got := status(d.check(after)); got != 403 {
		t.Errorf("new revision after settling: status %d, want 403", got)
	}
}

func TestRetiredRevisionsAreBounded(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "public"))
	for i := range 3 * keepRevisions {
		d.adopt(map[string]string{"p.rego": fmt.Sprintf("package p\n\nallow if %d > 0\n", i)}, routeTo(t, "grafana", "p"))
	}
	if got := len(d.current.Load().retired["grafana"]); got != keepRevisions {
		t.Errorf("%d retired revisions are kept, want %d", got, keepRevisions)
	}
}

// TestTheLastGoodRevisionIsKept: an Envoy that refuses every change of a route goes on with what it has.
func TestTheLastGoodRevisionIsKept(t *testing.T) {
	d := newDoor(t, nil, routeTo(t, "grafana", "public"))
	good := d.ask(cookie, signedIn("alice"))
	var last ask
	for i := range 3 * keepRevisions {
		d.adopt(map[string]string{"p.rego": fmt.Sprintf("package p\n\nallow := %d > 0\n", i+1)}, routeTo(t, "grafana", "p"))
		if i == 3*keepRevisions-2 {
			last = d.ask(cookie, signedIn("alice"))
		}
	}
	for name, a := range map[string]ask{"the oldest": good, "the last but one": last} {
		if got := status(d.check(a)); got != 200 {
			t.Errorf("%s: status %d, want 200", name, got)
		}
	}
}

func TestTokensAreReusedForTheSameContentOnly(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	for range 5 {
		d.check(d.ask(cookie, signedIn("alice")))
	}
	if d.minter.minted != 1 {
		t.Errorf("%d tokens minted for one session, route and policy, want 1", d.minter.minted)
	}
	d.Sessions.(people)["alice"].Version++
	d.check(d.ask(cookie, signedIn("alice")))
	if d.minter.minted != 2 {
		t.Errorf("a changed session got the old token")
	}
	d.header = "X-Identity"
	d.adopt(map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	if got := d.check(d.ask(cookie, signedIn("alice"))).GetOkResponse().GetHeaders(); headerOf(got, "x-identity") == "" || headerOf(got, "x-pomerium-jwt-assertion") != "" {
		t.Errorf("with another jwt.header, the upstream gets %v", got)
	}
}

func TestLogHasTheDecisionAndNoSecret(t *testing.T) {
	d := newDoor(t, map[string]string{"grafana.rego": rego}, routeTo(t, "grafana", "grafana"))
	a := d.ask(cookie, signedIn("alice"), "authorization", "Bearer secret-token")
	a.path = "/d/x?token=secret-query"
	d.check(a)
	text := d.log.String()
	for _, part := range []string{`"outcome":"allow"`, `"route":"grafana"`, `"subject":"alice"`, `"path":"/d/x"`} {
		if !strings.Contains(text, part) {
			t.Errorf("the log lacks %s: %s", part, text)
		}
	}
	for _, secret := range []string{"secret", session.CookieName, "jwt iss"} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q: %s", secret, text)
		}
	}
}
