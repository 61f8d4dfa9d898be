package xds

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
)

const (
	wantsPage  = "text/html,application/xhtml+xml,*/*;q=0.8"
	wantsJSON  = "application/json, text/plain"
	wantsNone  = "*/*"
	typePage   = "text/html; charset=utf-8"
	typeJSON   = "application/json"
	typePlain  = "text/plain"
	jwksOfHost = "/.well-known/pomerium/jwks.json"
)

// refusing starts an upstream that answers everything with a 404 of its own, and returns its host:port.
func (f *front) refusing() string {
	f.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		f.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/x-upstream")
		w.WriteHeader(http.StatusNotFound)
		_, _ = w.Write([]byte("the upstream's"))
	})}
	go server.Serve(l)
	f.t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// TestEnvoysOwnAnswers holds that what Envoy itself says is a page for a browser, JSON for a program that asks for it and a line otherwise,
// and that nobody else's answer is touched.
func TestEnvoysOwnAnswers(t *testing.T) {
	f := newFront(t, "")
	dead := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	f.serve(twoHosts(f.refusing()) + fmt.Sprintf(`
  - {name: dead, from: "https://dead.localhost:PORT", to: "http://%s", policy: public}
  - {name: fixed, from: "https://a.localhost:PORT", path: /fixed, response: {status: 404, body: fixed}, policy: public}
`, dead))
	port := fmt.Sprint(f.https)
	rows := []struct {
		name, sni, host, path string
		status                int
		page, code, plain     string
	}{
		{"no route", "a.localhost", "a.localhost", "/other", 404, "Page not found", "not_found", bodyNotFound},
		{"another host than the handshake's", "a.localhost", "b.localhost", "/", 421, "Wrong host", "wrong_host", bodyMisdirected},
		{"a host that nobody has", "a.localhost", "c.localhost", "/", 421, "Wrong host", "wrong_host", bodyMisdirected},
		{"a dead upstream", "dead.localhost", "dead.localhost", "/", 503, "No answer", "no_answer", bodyUpstream},
		{"a path parameter in the middle", "a.localhost", "a.localhost", "/app;x/y", 400, "Bad request", "bad_request", bodyAmbiguous},
	}
	for _, r := range rows {
		for accept, want := range map[string]struct{ kind, body string }{
			wantsPage: {typePage, "<!doctype html><title>" + r.page + "</title><p>100% "},
			wantsJSON: {typeJSON, `{"error":"` + r.code + `","message":"`},
			wantsNone: {typePlain, r.plain},
		} {
			a := f.do(f.client(r.sni, true), "GET", "https://127.0.0.1:"+port+r.path, "Host", r.host, "Accept", accept)
			if a.Status != r.status || a.Header.Get("Content-Type") != want.kind || !strings.HasPrefix(a.Body, want.body) {
				t.Errorf("%s, Accept %s: %d %s %q, want %d %s %q", r.name, accept, a.Status, a.Header.Get("Content-Type"), a.Body, r.status, want.kind, want.body)
			}
			if policy := a.Header.Get("Content-Security-Policy"); (policy == "default-src 'none'") != (accept == wantsPage) {
				t.Errorf("%s, Accept %s: the policy %q", r.name, accept, policy)
			}
		}
	}
	for _, r := range []struct {
		name, host, path string
		status           int
		kind, body       string
	}{
		{"the upstream's", "b.localhost", "/", 404, "text/x-upstream", "the upstream's"},
		{"a route's", "a.localhost", "/fixed", 404, typePlain, "fixed"},
		{"ext_authz's 400", "b.localhost", "/denied/400", 400, "text/x-own", "denied by authz"},
		{"ext_authz's 404", "b.localhost", "/denied/404", 404, "text/x-own", "denied by authz"},
		{"ext_authz's 503", "b.localhost", "/denied/503", 503, "text/x-own", "denied by authz"},
	} {
		for _, accept := range []string{wantsPage, wantsJSON, wantsNone} {
			if a := f.get(r.host, r.path, "Accept", accept); a.Status != r.status || a.Header.Get("Content-Type") != r.kind || a.Body != r.body {
				t.Errorf("%s, Accept %s: %d %s %q, want it as it was", r.name, accept, a.Status, a.Header.Get("Content-Type"), a.Body)
			}
		}
	}
	if a := f.raw("b.localhost", "GET /%00 HTTP/1.1\r\nHost: b.localhost\r\nAccept: text/html\r\n\r\n"); a.Status != 400 || a.Header.Get("Content-Type") != typePage {
		t.Errorf("a path that cannot be: %d %s %q", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	f.stopAuthz()
	f.stopOwn()
	for accept, kind := range map[string]string{wantsPage: typePage, wantsJSON: typeJSON, wantsNone: typePlain} {
		a := f.get("b.localhost", "/", "Accept", accept)
		if a.Status != 503 || a.Header.Get("Content-Type") != kind || !strings.Contains(strings.ToLower(a.Body), "whether you may see this cannot be decided at the moment") {
			t.Errorf("without authz, Accept %s: %d %s %q", accept, a.Status, a.Header.Get("Content-Type"), a.Body)
		}
		// An empty key set is what Grafana makes of any JSON object, and keeps it for an hour.
		for _, path := range []string{jwksOfHost, jwksOfHost + "?a=b", "/x/.." + jwksOfHost} {
			a = f.get("b.localhost", path, "Accept", accept)
			if a.Status != 503 || a.Header.Get("Content-Type") == typeJSON || json.Valid([]byte(a.Body)) {
				t.Errorf("%s without doorward, Accept %s: %d %s %q", path, accept, a.Status, a.Header.Get("Content-Type"), a.Body)
			}
		}
	}
}
