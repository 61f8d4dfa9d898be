package main

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"doorward/authz/admin"
	"doorward/authz/bearer"
	"doorward/authz/config"
	"doorward/authz/token"
	"doorward/xds"
	"doorward/xds/node"
)

// described is the description.
func described(t *testing.T) openAPI {
	t.Helper()
	var doc openAPI
	if err := json.Unmarshal(admin.OpenAPI, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestOpenAPIHasEveryEndpoint: what is served is described, and what is described is served.
func TestOpenAPIHasEveryEndpoint(t *testing.T) {
	p := newPushes(t)
	api := p.adminAPI(t.Context())
	want := []string{"GET /v1/status", "GET /v1/openapi.json", "GET /v1/decisions", "GET /v1/captures"}
	want = append(want, slices.Collect(maps.Keys(api.Handlers))...)
	var got []string
	for path, operations := range described(t).Paths {
		for method := range operations {
			got = append(got, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(got)
	if slices.Sort(want); !slices.Equal(got, want) {
		t.Errorf("described are\n%s\nserved are\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestOpenAPIHasEveryField: the described objects have the fields of what is encoded.
func TestOpenAPIHasEveryField(t *testing.T) {
	schemas := described(t).Components.Schemas
	for name, v := range map[string]any{
		"Refusal": refusedChange{}, "Problem": config.Problem{}, "Route": routeState{}, "RouteChange": routeChange{}, "Push": pushAnswer{},
		"EnvoyAnswer": xds.Answer{}, "Rejection": xds.Rejection{}, "Envoy": xds.Envoy{}, "Certificate": certificateState{}, "Apply": applied{},
		"Document": appliedDocument{}, "Status": admin.Status{}, "Bundle": admin.Bundle{}, "Keys": token.Report{}, "Key": token.KeyInfo{},
		"Session": sessionInfo{}, "ServiceToken": bearer.ServiceToken{}, "PolicyUsage": policyUsage{},
	} {
		got, want := slices.Sorted(maps.Keys(schemas[name].Properties)), jsonFields(reflect.TypeOf(v))
		if slices.Sort(want); !slices.Equal(got, want) {
			t.Errorf("%s has %v described, want %v", name, got, want)
		}
	}
}

func jsonFields(of reflect.Type) (names []string) {
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "":
			names = append(names, jsonFields(f.Type)...)
		case name != "" && name != "-":
			names = append(names, name)
		}
	}
	return names
}

// api asks the admin API of planes as a program would, and holds the answer against the description.
func (p *pushes) api(method, target, kind, body string, header ...string) *httptest.ResponseRecorder {
	p.t.Helper()
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	admin.Handler(p.adminAPI(p.t.Context())).ServeHTTP(w, r)
	for _, fault := range described(p.t).faults(r.Pattern, w) {
		p.t.Errorf("%s %s: %s", method, target, fault)
	}
	return w
}

// TestOpenAPIHoldsForAnswers: each operation that is described answers as described, and says so when it refuses.
func TestOpenAPIHoldsForAnswers(t *testing.T) {
	p := newPushes(t)
	p.write("doorward.yaml", pushBase+"control: {listen: \"127.0.0.1:9443\", address: \"doorward.internal:9443\", groups: [eu]}\n")
	p.open()
	request := certificateRequest(t)
	const js = "application/json"
	route := `{"name": "a", "from": "https://a.localhost", "to": "http://app:8080", "policy": "any_authenticated_user", "bearer": {"service_tokens": true}}`
	called := make(map[string]bool)
	for _, row := range []struct {
		method, target, body string
		status               int
	}{
		{"PUT", "/v1/routes/a?wait=1s", route, 200},
		{"POST", "/v1/routes/apply?wait=1s", `{"routes": [` + route + `]}`, 200},
		{"GET", "/v1/routes", "", 200},
		{"GET", "/v1/routes/a", "", 200},
		{"POST", "/v1/tokens?name=robot&route=a&life=1h&group=robots", "", 200},
		{"POST", "/v1/tokens?name=robot&route=a&life=1h", "", 409},
		{"POST", "/v1/tokens?name=robot&route=a&life=long", "", 400},
		{"POST", "/v1/tokens?name=robot&route=none&life=1h", "", 409},
		{"GET", "/v1/tokens", "", 200},
		{"POST", "/v1/tokens/robot/revoke", "", 200},
		{"GET", "/v1/sessions?limit=10", "", 200},
		{"GET", "/v1/sessions", "", 400},
		{"POST", "/v1/sessions/revoke?all=true", "", 200},
		{"POST", "/v1/sessions/revoke?session=none", "", 500},
		{"GET", "/v1/keys", "", 200},
		{"GET", "/v1/keys/jwks", "", 200},
		{"POST", "/v1/keys/rotate", "", 200},
		{"POST", "/v1/keys/rotate", "", 409},
		{"GET", "/v1/status", "", 200},
		{"POST", "/v1/seal/rotate", "", 200},
		{"GET", "/v1/explain?route=a&method=GET&path=/&client_ip=192.0.2.1", "", 200},
		{"GET", "/v1/explain?id=none", "", 404},
		{"GET", "/v1/decisions?last=x", "", 400},
		{"GET", "/v1/decisions?last=1", "", 200},
		{"GET", "/v1/captures?last=1", "", 200},
		{"GET", "/v1/policies", "", 200},
		{"GET", "/v1/envoys", "", 200},
		{"POST", "/v1/nodes/edge-1?life=24h&group=eu&request=" + request, "", 200},
		{"POST", "/v1/nodes/edge-1?life=24h&group=us&request=" + request, "", 409},
		{"POST", "/v1/nodes/-?life=24h&request=" + request, "", 409},
		{"POST", "/v1/nodes/edge-1?life=day&request=" + request, "", 400},
		{"POST", "/v1/nodes/edge-1?life=24h&request==", "", 400},
		{"GET", "/v1/nodes", "", 200},
		{"POST", "/v1/nodes/edge-1/revoke", "", 200},
		{"POST", "/v1/nodes/edge-2/revoke", "", 404},
		{"GET", "/v1/certificates", "", 200},
		{"GET", "/v1/openapi.json", "", 200},
		{"GET", "/metrics", "", 200},
		{"DELETE", "/v1/routes/a", "", 200},
	} {
		kind := ""
		if row.body != "" {
			kind = js
		}
		got := p.api(row.method, row.target, kind, row.body)
		if got.Code != row.status {
			t.Errorf("%s %s: %d %s, want %d", row.method, row.target, got.Code, got.Body, row.status)
		}
		path, _, _ := strings.Cut(row.target, "?")
		for _, part := range []struct{ of, as string }{{"/v1/routes/a", "/v1/routes/{name}"}, {"/v1/tokens/robot/revoke", "/v1/tokens/{name}/revoke"},
			{"/v1/nodes/edge-1", "/v1/nodes/{name}"}, {"/v1/nodes/edge-1/revoke", "/v1/nodes/{name}/revoke"}} {
			if path == part.of {
				path = part.as
			}
		}
		called[row.method+" "+path] = called[row.method+" "+path] || got.Code == http.StatusOK
	}
	if got := p.api("PUT", "/v1/routes/a", js, route); got.Code != 200 {
		t.Errorf("before the store is closed: %d %s", got.Code, got.Body)
	}
	kid := p.ring.Report().Keys[0].ID
	if got := p.api("POST", "/v1/keys/"+kid+"/retire", "", ""); got.Code != 409 {
		t.Errorf("retire: %d %s", got.Code, got.Body)
	}
	called["POST /v1/keys/{kid}/retire"] = p.api("POST", "/v1/keys/"+kid+"/retire?force=true", "", "").Code == 200
	if err := p.store.Close(); err != nil {
		t.Fatal(err)
	}
	if got := p.api("DELETE", "/v1/routes/a", "", ""); got.Code != 500 || !strings.HasPrefix(got.Body.String(), `{"error":"keep the routes: `) {
		t.Errorf("with the store closed: %d %s", got.Code, got.Body)
	}
	for path, operations := range described(t).Paths {
		for method := range operations {
			if name := strings.ToUpper(method) + " " + path; !called[name] {
				t.Errorf("%s was not asked for what it answers when all is well", name)
			}
		}
	}
}

// certificateRequest is what a node asks with, as a parameter.
func certificateRequest(t *testing.T) string {
	t.Helper()
	key, err := node.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	request, err := key.Request()
	if err != nil {
		t.Fatal(err)
	}
	return base64.RawURLEncoding.EncodeToString(request)
}

func TestRoutesAPI(t *testing.T) {
	p := newPushes(t)
	const yaml, js = "application/yaml", "application/json"
	one := `{"name": "a", "from": "https://a.localhost", "to": "http://app:8080", "policy": "public"}`
	two := strings.Replace(one, "8080", "8081", 1)
	created := p.api("PUT", "/v1/routes/a", js, one, "If-None-Match", "*")
	tag := created.Header().Get("ETag")
	if created.Code != 200 || len(tag) != 18 || !strings.Contains(created.Body.String(), `"action":"create"`) {
		t.Fatalf("created: %d %s %s", created.Code, tag, created.Body)
	}
	if got := p.api("GET", "/v1/routes/a", "", "").Header().Get("ETag"); got != tag {
		t.Errorf("ETag %s, want %s", got, tag)
	}
	for _, row := range []struct {
		method, target, kind, body, match string // match goes into If-Match
		status                            int
		want                              string
	}{
		{"PUT", "/v1/routes/a", js, two, `"other"`, 412, `{"error":"route \"a\" is another one by now (its ETag is ` + strings.ReplaceAll(tag, `"`, `\"`) + `): read it again","route":{"name":"a","host":"a.localhost","from":"https://a.localhost",`},
		{"PUT", "/v1/routes/z", js, two, `*`, 412, `{"error":"there is no pushed route \"z\" any more: read it again"}`},
		{"PUT", "/v1/routes/a", js, two, `other`, 400, `{"error":"If-Match: other is not an ETag; it is in quotes, as it came"}`},
		{"PUT", "/v1/routes/b", js, one, "", 422, `"a\" is not \"b\", which is the route's name here`},
		{"PUT", "/v1/routes/a", js, strings.Replace(one, `"name": "a", `, "", 1), "", 422, `routes[a].name: is missing; write name: a, which is the route's name here`},
		{"PUT", "/v1/routes/a", "text/plain", one, "", 415, `{"error":"the Content-Type must be application/json or application/yaml"}`},
		{"PUT", "/v1/routes/a?wait=2h", js, one, "", 400, `{"error":"wait=\"2h\": it is a time as 10s, at most 1m0s"}`},
		{"PUT", "/v1/routes/a?dry_run=maybe", js, one, "", 400, `{"error":"dry_run=\"maybe\": it is true or false"}`},
		{"PUT", "/v1/routes/a?validate=x", js, one, "", 400, `{"error":"validate=\"x\": it is envoy, or left out"}`},
		{"PUT", "/v1/routes/fixed", js, strings.Replace(one, `"a"`, `"fixed"`, 1), "", 409, `{"error":"route \"fixed\" stands in ` + p.dir + `/doorward.yaml:5:5; change it there"}`},
		{"POST", "/v1/routes/apply", js, `{"delete": ["fixed"]}`, "", 409, `{"error":"route \"fixed\" stands in ` + p.dir + `/doorward.yaml:5:5; change it there"}`},
		{"POST", "/v1/routes/apply", js, `{"routes": [` + strings.Replace(one, `"a"`, `"fixed"`, 1) + `]}`, "", 422, `is the name of the route at`},
		{"PUT", "/v1/routes/a", js, `{"name": "a"`, "", 400, `{"error":"the body is not JSON"}`},
		{"PUT", "/v1/routes/a", js, strings.Repeat(" ", maxRoutesDoc) + one, "", 413, `{"error":"the body has more than 67108864 bytes; push routes in several parts"}`},
		{"PUT", "/v1/routes/a", js, two, `"other", ` + tag, 200, `"action":"update"`},
		{"PUT", "/v1/routes/a", js, one, `W/` + tag, 400, `is not an ETag; it is in quotes, as it came`},
		{"PUT", "/v1/routes/a", js, one, "*", 200, `"action":"update"`},
		{"PUT", "/v1/routes/a", js, `{"name": "a", "from": "http://a.localhost", "policy": "nobody"}`, "", 422, `"problems":[{"file":"pushed route a","line":1,"column":1,"field":"routes[a]","message":"has none of to, redirect and response`},
		{"GET", "/v1/routes/none", "", "", "", 404, `{"error":"there is no route \"none\""}`},
		{"DELETE", "/v1/routes/none", "", "", "", 404, `{"error":"there is no such pushed route: \"none\""}`},
		{"DELETE", "/v1/routes/fixed", "", "", "", 409, `change it there`},
		{"DELETE", "/v1/routes/a", "", "", `"other"`, 412, `is another one by now`},
		{"POST", "/v1/routes/apply?dry_run=true", yaml, "routes: [" + two + "]", "", 200, `{"applied":false,"changes":[{"name":"a","action":"update"`},
		{"POST", "/v1/routes/apply", js, `{"routes": [` + two + `]}`, "", 200, `{"applied":true,"changes":[{"name":"a","action":"update"`},
		{"POST", "/v1/routes/apply?prune=true&wait=1s", js, `{"documents": []}`, "", 200, `{"applied":true,"changes":[{"name":"a","action":"delete"`},
		{"POST", "/v1/routes/apply", js, `{"documents": [{"file": "x", "dir": "up", "text": ""}]}`, "", 400, `{"error":"dir \"up\" is not an absolute path"}`},
		{"POST", "/v1/routes/apply", js, `{"rotes": []}`, "", 400, `{"error":"the body: unknown field \"rotes\""}`},
		{"POST", "/v1/routes/apply", js, `{"routes": [{"name": "s", "from": "https://s.localhost", "policy": "public", "response": {"body": "\ud83d\ude00 \\ud83d \ud83d \u00e9"}}]}`, "", 200, `"after":"name: \"s\"\nfrom: \"https://s.localhost\"\npolicy: \"public\"\nresponse: {\"body\": \"\\U0001F600 \\\\ud83d � é\"}\n"`},
		{"DELETE", "/v1/routes/s", "", "", "", 200, `"action":"delete"`},
		{"POST", "/v1/routes/apply", js, "{\n  \"expect\": {},\n  \"routes\": [\n    {\"name\": \"A\", \"policy\": 1}\n  ]\n}", "", 422, `"file":"request","line":4,"column":14,"field":"routes[0].name"`},
		{"POST", "/v1/routes/apply", js, `{"documents": [{"file": "x.yaml", "text": "routes: ["}], "delete": ["a"]}`, "", 422, `x.yaml`},
	} {
		var header []string
		if row.match != "" {
			header = []string{"If-Match", row.match}
		}
		got := p.api(row.method, row.target, row.kind, row.body, header...)
		if got.Code != row.status || !strings.Contains(got.Body.String(), row.want) {
			t.Errorf("%s %s %s: %d %s\nwant %d %s", row.method, row.target, row.body, got.Code, got.Body, row.status, row.want)
		}
	}
	p.shows("fixed served")
}
