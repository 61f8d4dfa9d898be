package main

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"

	"doorward/authz/admin"
	"doorward/authz/config"
	"doorward/xds"
)

// openAPI is what the tests read of the description.
type openAPI struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas map[string]struct {
			Properties map[string]json.RawMessage `json:"properties"`
		} `json:"schemas"`
	} `json:"components"`
}

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
	mux := admin.Handler(api)
	for _, path := range []string{"/v1/status", "/v1/openapi.json", "/v1/decisions", "/v1/captures", "/v1/routes", "/v1/envoys", "/v1/certificates"} {
		answer := httptest.NewRecorder()
		if mux.ServeHTTP(answer, httptest.NewRequest("GET", path, nil)); answer.Code != http.StatusOK {
			t.Errorf("GET %s: %d %s", path, answer.Code, answer.Body)
		}
	}
}

// TestOpenAPIHasEveryField: the described objects have the fields of what is encoded.
func TestOpenAPIHasEveryField(t *testing.T) {
	schemas := described(t).Components.Schemas
	for name, v := range map[string]any{
		"Refusal": refused{}, "Problem": config.Problem{}, "Route": routeState{}, "RouteChange": routeChange{}, "Push": pushAnswer{},
		"EnvoyAnswer": xds.Answer{}, "Rejection": xds.Rejection{}, "Envoy": xds.Envoy{}, "Certificate": certificateState{}, "Apply": applied{},
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

// api asks the admin API of planes as a program would.
func (p *pushes) api(method, target, kind, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	admin.Handler(p.adminAPI(p.t.Context())).ServeHTTP(w, r)
	return w
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
		{"PUT", "/v1/routes/a", js, two, `"other"`, 412, `{"error":"route \"a\" is another one by now (its ETag is ` + strings.ReplaceAll(tag, `"`, `\"`) + `): read it again"}`},
		{"PUT", "/v1/routes/z", js, two, `*`, 412, `{"error":"there is no pushed route \"z\" any more: read it again"}`},
		{"PUT", "/v1/routes/a", js, two, `other`, 400, `{"error":"If-Match: other is not an ETag; it is in quotes, as it came"}`},
		{"PUT", "/v1/routes/b", js, one, "", 422, `"a\" is not \"b\", which is the route's name here`},
		{"PUT", "/v1/routes/a", "text/plain", one, "", 400, `{"error":"the Content-Type must be application/json or application/yaml"}`},
		{"PUT", "/v1/routes/a?wait=2h", js, one, "", 400, `{"error":"wait=\"2h\": it is a time as 10s, at most 1m0s"}`},
		{"PUT", "/v1/routes/a?dry_run=maybe", js, one, "", 400, `{"error":"dry_run=\"maybe\": it is true or false"}`},
		{"PUT", "/v1/routes/a?validate=x", js, one, "", 400, `{"error":"validate=\"x\": it is envoy, or left out"}`},
		{"PUT", "/v1/routes/fixed", js, strings.Replace(one, `"a"`, `"fixed"`, 1), "", 422, `is the name of the route at`},
		{"PUT", "/v1/routes/a", js, `{"name": "a", "from": "http://a.localhost", "policy": "nobody"}`, "", 422, `"problems":[{"file":"pushed route a","line":1,"column":1,"field":"routes[a]","message":"has none of to, redirect and response`},
		{"GET", "/v1/routes/none", "", "", "", 404, `{"error":"there is no route \"none\""}`},
		{"DELETE", "/v1/routes/none", "", "", "", 404, `{"error":"there is no such pushed route: \"none\""}`},
		{"DELETE", "/v1/routes/fixed", "", "", "", 422, `stands in this file; remove it here`},
		{"DELETE", "/v1/routes/a", "", "", `"other"`, 412, `is another one by now`},
		{"POST", "/v1/routes/apply?dry_run=true", yaml, "routes: [" + two + "]", "", 200, `{"applied":false,"changes":[{"name":"a","action":"update"`},
		{"POST", "/v1/routes/apply", js, `{"routes": [` + two + `]}`, "", 200, `{"applied":true,"changes":[{"name":"a","action":"update"`},
		{"POST", "/v1/routes/apply?prune=true&wait=1s", js, `{"documents": []}`, "", 200, `{"applied":true,"changes":[{"name":"a","action":"delete"`},
		{"POST", "/v1/routes/apply", js, `{"documents": [{"file": "x", "dir": "up", "text": ""}]}`, "", 400, `{"error":"dir \"up\" is not an absolute path"}`},
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
