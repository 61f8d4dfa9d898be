package xds

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// forged are headers that a client sends to pass for somebody else, in spellings that applications take for the same.
var forged = []string{
	"X-Pomerium-Jwt-Assertion", "x-pomerium-claim-email", "X-Doorward-Sni", "X-Doorward-Anything",
	"X-Webauth-User", "X-Auth-Request-Email", "Remote-User", "Remote-Groups", "X-Remote-User", "X-Remote-Extra-Scopes",
	"Impersonate-User", "Impersonate-Group", "Impersonate-Extra-X", "X-Forwarded-User", "X-Forwarded-Email",
	"X-Forwarded-Preferred-Username", "X-Forwarded-Groups", "X-Forwarded-Mail", "X-Forwarded-Displayname",
	"X-Forwarded-Access-Token", "X-Forwarded-Prefix", "X-Forwarded-Client-Cert", "X-Forwarded-Anything",
	"Forwarded", "X-Real-Ip", "X-Client-Ip", "True-Client-Ip", "X-Original-Url", "X-Original-Host", "X-Rewrite-Url",
	"X-Envoy-Original-Path", "X-Envoy-Internal", "X-Envoy-Retry-On", "X-Envoy-Upstream-Rq-Timeout-Ms", "X-Envoy-Decorator-Operation",
	"X-Envoy-Peer-Metadata", "X-Goog-Authenticated-User-Email", "X-Amzn-Oidc-Data", "X-Ms-Client-Principal-Name",
	"Cf-Access-Jwt-Assertion", "Ssl-Client-S-Dn", "X-Ssl-Client-Verify", "Oidc-Claim-Email", "X-Authenticated-User",
}

// wanted are headers that must arrive as they were sent.
var wanted = []string{
	"Authorization", "Cookie", "Accept", "X-Requested-With", "X-Csrf-Token", "X-Grafana-Org-Id", "X-Api-Key", "X-Auth-Token",
	"X-User-Agent", "X-Http-Method-Override", "Traceparent", "Remote", "Impersonate", "X-Pomerium", "Origin",
}

func TestEnvoyStripsForgedHeaders(t *testing.T) {
	f := newFront(t, "underscore_headers: keep")
	f.serve(fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", to: "http://%s", policy: public}
`, f.upstream("u")))
	for _, path := range []string{"/", "/.pomerium/", "/.well-known/pomerium/jwks.json"} {
		for _, separator := range []string{"-", "_", "."} {
			request := "GET " + path + " HTTP/1.1\r\nHost: a.localhost\r\nConnection: x-pomerium-jwt-assertion, close\r\n"
			for _, name := range forged {
				request += strings.ReplaceAll(name, "-", separator) + ": forged\r\n"
			}
			for _, name := range wanted {
				request += name + ": kept\r\n"
			}
			request += "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: evil\r\nX-Forwarded-Port: 1\r\n" +
				"X-Forwarded_For: forged\r\nX-Request-Id: forged\r\n"
			a := f.raw("a.localhost", request+"\r\n")
			if a.Status != 200 {
				t.Fatalf("%s with %q: %d", path, separator, a.Status)
			}
			for name, values := range a.Seen.Header {
				if strings.Contains(strings.Join(values, ","), "forged") {
					t.Errorf("%s with %q: %s reached the upstream as %q", path, separator, name, values)
				}
			}
			for _, c := range f.authz.taken() {
				for _, h := range c.Request.Http.HeaderMap.Headers {
					if string(h.RawValue) == "forged" {
						t.Errorf("%s with %q: %s reached ext_authz", path, separator, h.Key)
					}
				}
			}
			for _, name := range wanted {
				if a.Seen.Header.Get(name) != "kept" {
					t.Errorf("%s with %q: %s arrived as %q", path, separator, name, a.Seen.Header.Get(name))
				}
			}
			checkForwarded(t, f, a.Seen.Header)
			if want := map[bool]string{true: "", false: "a.localhost"}[path == "/"]; a.Seen.Header.Get(HeaderSNI) != want {
				t.Errorf("%s: %s is %q, want %q", path, HeaderSNI, a.Seen.Header.Get(HeaderSNI), want)
			}
		}
	}
}

// checkForwarded looks at the forwarded headers of a request that came from this machine to a.localhost.
func checkForwarded(t *testing.T, f *front, h http.Header) {
	t.Helper()
	if got := h.Values("X-Forwarded-For"); len(got) != 1 || strings.Contains(got[0], "6.6.6.6") {
		t.Errorf("X-Forwarded-For is %q", got)
	}
	for name, want := range map[string]string{
		"X-Forwarded-Proto": "https",
		"X-Forwarded-Host":  fmt.Sprintf("a.localhost:%d", f.https),
		"X-Forwarded-Port":  fmt.Sprint(f.https),
	} {
		if got := h.Values(name); !slices.Equal(got, []string{want}) {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
}

func TestEnvoyTrustsProxies(t *testing.T) {
	f := newFront(t, "trusted_hops: 1")
	f.serve(fmt.Sprintf(`
  - {name: a, from: "https://a.localhost:PORT", to: "http://%s", policy: public}
`, f.upstream("u")))
	a := f.get("a.localhost", "/", "X-Forwarded-For", "203.0.113.7", "X-Forwarded-User", "forged",
		"X-Envoy-Internal", "true", "X-Envoy-External-Address", "6.6.6.6")
	if got := a.Seen.Header.Get("X-Forwarded-For"); !strings.HasPrefix(got, "203.0.113.7,") {
		t.Errorf("X-Forwarded-For is %q", got)
	}
	if a.Seen.Header.Get("X-Forwarded-User") != "" || a.Seen.Header.Get("X-Envoy-Internal") != "" {
		t.Errorf("forged headers reached the upstream: %v", a.Seen.Header)
	}
	// The address that ext_authz is to take for the client's: Envoy's own header. The source of the check is the proxy.
	for _, c := range f.authz.taken() {
		for _, h := range c.Request.Http.HeaderMap.Headers {
			if h.Key == "x-envoy-external-address" && string(h.RawValue) == "203.0.113.7" {
				return
			}
		}
	}
	t.Error("ext_authz was not told the client's address")
}

func TestEnvoySetsHeaders(t *testing.T) {
	f := newFront(t, "")
	up := f.upstream("u")
	f.serve(fmt.Sprintf(`
  - name: a
    from: "https://a.localhost:PORT"
    to: "http://%[1]s"
    policy: public
    set_request_headers: {X-Percent: "100%% %%DOWNSTREAM_REMOTE_ADDRESS%%", X-Webauth-User: fixed, X-Forwarded-Host: other}
    remove_request_headers: [X-Gone]
    set_response_headers: {X-Frame-Options: DENY, X-Echo: "2"}
    remove_response_headers: [Content-Type]
  - {name: preserve, from: "https://a.localhost:PORT", path: /preserve, to: "http://%[1]s", preserve_host_header: true, policy: public}
  - {name: literal, from: "https://a.localhost:PORT", path: /literal, to: "http://%[1]s", host_rewrite: inner.example.com, policy: public}
`, up))
	a := f.get("a.localhost", "/", "X-Gone", "1", "X-Percent", "client", "X-Webauth-User", "forged")
	for name, want := range map[string]string{
		"X-Percent": "100% %DOWNSTREAM_REMOTE_ADDRESS%", "X-Webauth-User": "fixed", "X-Forwarded-Host": "other", "X-Gone": "",
		"X-Pomerium-Jwt-Assertion": "signed",
	} {
		if got := strings.Join(a.Seen.Header.Values(name), "|"); got != want {
			t.Errorf("request: %s is %q, want %q", name, got, want)
		}
	}
	for name, want := range map[string]string{"X-Frame-Options": "DENY", "X-Echo": "2", "Content-Type": ""} {
		if got := strings.Join(a.Header.Values(name), "|"); got != want {
			t.Errorf("response: %s is %q, want %q", name, got, want)
		}
	}
	for path, want := range map[string]string{
		"/": up, "/preserve": fmt.Sprintf("a.localhost:%d", f.https), "/literal": "inner.example.com",
	} {
		if a := f.get("a.localhost", path); a.Seen.Host != want {
			t.Errorf("%s: the upstream sees Host %q, want %q", path, a.Seen.Host, want)
		}
	}
}

func TestEnvoyWebSockets(t *testing.T) {
	f := newFront(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(upgrade)}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	f.serve(fmt.Sprintf(`
  - {name: plain, from: "https://a.localhost:PORT", to: "http://%[1]s", policy: public}
  - {name: live, from: "https://a.localhost:PORT", prefix: /live, to: "http://%[1]s", allow_websockets: true, policy: public}
`, l.Addr()))
	for path, want := range map[string]int{"/": 403, "/live": 101, "/live/x": 101, "/lively": 403, "/.pomerium/": 403} {
		request := "GET " + path + " HTTP/1.1\r\nHost: a.localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
		if a := f.raw("a.localhost", request); a.Status != want {
			t.Errorf("WebSocket to %s: %d, want %d", path, a.Status, want)
		}
	}
}

// upgrade accepts any upgrade and closes.
func upgrade(w http.ResponseWriter, r *http.Request) {
	c, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+r.Header.Get("Upgrade")+"\r\n\r\n")
	rw.Flush()
	bufio.NewReader(c).ReadByte()
}

func TestEnvoyWeights(t *testing.T) {
	f := newFront(t, "")
	f.serve(fmt.Sprintf(`
  - name: a
    from: "https://a.localhost:PORT"
    to: [{url: "http://%s", weight: 3}, {url: "http://%s", weight: 1}]
    policy: public
`, f.upstream("three"), f.upstream("one")))
	count := make(map[string]int)
	c := f.client("", true)
	for range 400 {
		count[f.do(c, "GET", fmt.Sprintf("https://a.localhost:%d/", f.https)).Seen.Upstream]++
	}
	// 300 expected; six standard deviations are 52.
	if n := count["three"]; n < 248 || n > 352 || n+count["one"] != 400 {
		t.Errorf("requests by upstream: %v, want 3 to 1", count)
	}
}

// secureUpstream is an https server with a certificate of the local CA for the names; it says which server name it was
// asked for, and which client certificate it got. It returns its port.
func (f *front) secureUpstream(host string, clients *x509.CertPool) string {
	f.t.Helper()
	chain, key, err := f.ca.Certificate(host)
	if err != nil {
		f.t.Fatal(err)
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		f.t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.TLS.ServerName + " " + r.Proto
		if len(r.TLS.PeerCertificates) > 0 {
			name += " " + r.TLS.PeerCertificates[0].Subject.CommonName
		}
		echo(name)(w, r)
	}))
	server.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: clients}
	if clients != nil {
		server.TLS.ClientAuth = tls.RequireAndVerifyClientCert
	}
	server.EnableHTTP2 = true
	server.StartTLS()
	f.t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		f.t.Fatal(err)
	}
	return u.Port()
}

func TestEnvoyVerifiesUpstreams(t *testing.T) {
	f := newFront(t, "")
	ca := filepath.Join(f.dir, "ca", "ca.pem")
	clientCert, clientKey := absolute(t, "testdata/in/cert.pem"), absolute(t, "testdata/in/key.pem")
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM([]byte(f.readFile(clientCert)))
	open, closed := f.secureUpstream("inner.localhost", nil), f.secureUpstream("inner.localhost", clients)
	pair := fmt.Sprintf("tls_client_cert_file: %s, tls_client_key_file: %s", clientCert, clientKey)
	own := "tls_custom_ca_file: " + ca
	rows := []struct{ name, port, options, want string }{
		{"the system does not know the CA", open, "tls_server_name: inner.localhost", "503"},
		{"another name", open, own, "503"},
		{"another name, given", open, own + ", tls_server_name: other.localhost", "503"},
		{"a CA and the name", open, own + ", tls_server_name: inner.localhost", "inner.localhost HTTP/2.0"},
		{"for WebSockets", open, own + ", tls_server_name: inner.localhost, allow_websockets: true", "inner.localhost HTTP/1.1"},
		{"unverified", open, "tls_skip_verify: true", " HTTP/2.0"},
		{"no client certificate", closed, own + ", tls_server_name: inner.localhost", "503"},
		{"a client certificate", closed, own + ", tls_server_name: inner.localhost, " + pair, "inner.localhost HTTP/2.0 fixture"},
	}
	var routes string
	for i, r := range rows {
		routes += fmt.Sprintf("  - {name: r%d, from: \"https://a.localhost:PORT\", prefix: /%[1]d, to: \"https://127.0.0.1:%s\", %s, policy: public}\n",
			i, r.port, r.options)
	}
	f.serve(routes)
	for i, r := range rows {
		a := f.get("a.localhost", fmt.Sprintf("/%d", i))
		got := a.Seen.Upstream
		if got == "" {
			got = fmt.Sprint(a.Status)
		}
		if got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
	}
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEnvoyTimeouts(t *testing.T) {
	f := newFront(t, "")
	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f.serve(fmt.Sprintf(`
  - {name: short, from: "https://a.localhost:PORT", prefix: /short, timeout: 100ms, to: "http://%[1]s", policy: public}
  - {name: idle, from: "https://a.localhost:PORT", prefix: /idle, timeout: 0s, idle_timeout: 200ms, to: "http://%[1]s", policy: public}
`, l.Addr()))
	for path, want := range map[string]int{"/short": 504, "/idle": 504} {
		if a := f.get("a.localhost", path); a.Status != want {
			t.Errorf("%s: %d %q, want %d", path, a.Status, a.Body, want)
		}
	}
}
