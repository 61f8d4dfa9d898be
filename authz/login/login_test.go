package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"html"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/store/bolt"
	"doorward/authz/web"
	demo "doorward/cmd/demo/provider"
)

const (
	authHost = "auth.example.com"
	grafana  = "https://grafana.example.com"
	wiki     = "https://wiki.example.com"
	auth     = "https://" + authHost
	prefix   = "/.pomerium"
	envoyID  = "5f2b8a4e-7c1d-4f7b-9a53-0a6f4f0e2c11"
)

// providerRSA is made once: what is tested is not the making of keys.
var providerRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

// world is Doorward's handler behind a TLS server that plays Envoy and authz, a real OpenID Connect provider, and a store in a file.
type world struct {
	*testing.T
	h        *Handler
	front    *httptest.Server
	issuer   string
	idp      http.Handler
	settings atomic.Pointer[Settings]
	offset   atomic.Int64 // of our clock from the real one
	down     atomic.Bool  // the provider answers 503
	asked    atomic.Int64 // requests to the provider's discovery
	log      logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newWorld has the demo's provider, which is made of a certified library.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := newWorldOf(t)
	w.idp = w.must(demo.New(demo.Config{
		Issuer: w.issuer, Key: providerRSA(),
		Client: demo.Client{ID: "doorward", Secret: "s3cret", RedirectURIs: []string{auth + prefix + "/callback"},
			PostLogoutRedirectURIs: []string{auth + prefix + "/signed_out"}},
		Users: []demo.User{
			{Username: "alice", Password: "alice", Name: "Alice Adams", Email: "alice@example.com", Groups: []string{"grafana-admins", "engineering"}},
			{Username: "bob", Password: "bob", Name: "Bob", Email: "bob@example.com"},
		},
	})).(http.Handler)
	return w
}

// newWorldOf has no provider yet, but its issuer.
func newWorldOf(t *testing.T) *world {
	t.Helper()
	w := &world{T: t}
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
			w.asked.Add(1)
		}
		if w.down.Load() {
			http.Error(rw, "<b>down</b>", http.StatusServiceUnavailable)
			return
		}
		w.idp.ServeHTTP(rw, r)
	}))
	t.Cleanup(server.Close)
	w.issuer = server.URL
	w.serve()
	return w
}

func (w *world) must(v any, err error) any {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
	return v
}

// serve starts the front door with hosts auth, grafana and wiki.
func (w *world) serve() {
	now := func() time.Time { return time.Now().Add(time.Duration(w.offset.Load())) }
	dir := w.TempDir()
	db := w.must(bolt.OpenAt(filepath.Join(dir, "store"), now)).(*bolt.Store)
	w.Cleanup(func() { _ = db.Close() })
	sealer := w.must(session.OpenSealer(filepath.Join(dir, "key"))).(*session.Sealer)
	sessions := w.must(session.New(session.Config{Store: db, Sealer: sealer, Now: now})).(*session.Sessions)
	settings := &Settings{
		Prefix: prefix, AuthURL: w.url(auth), Lifetime: 14 * time.Hour,
		IDP:   config.IDP{Name: "default", Issuer: w.url(w.issuer), ClientID: "doorward", ClientSecret: "s3cret"},
		Hosts: map[string]config.URL{authHost: w.url(auth), "grafana.example.com": w.url(grafana), "wiki.example.com": w.url(wiki)},
	}
	w.settings.Store(settings)
	w.h = w.must(New(Config{
		Settings: func() Settings { return *w.settings.Load() }, Sessions: sessions, Store: db, Sealer: sealer,
		Pages: w.must(web.New()).(*web.Pages), Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: now,
	})).(*Handler)
	w.front = httptest.NewTLSServer(http.HandlerFunc(w.envoy))
	w.Cleanup(w.front.Close)
}

func (w *world) url(s string) config.URL { return w.must(config.ParseURL(s)).(config.URL) }

// change replaces the settings.
func (w *world) change(f func(*Settings)) {
	s := *w.settings.Load()
	s.Hosts = maps.Clone(s.Hosts)
	f(&s)
	w.settings.Store(&s)
}

// envoy sets what Envoy sets, and does what authz does on all paths but ours.
func (w *world) envoy(rw http.ResponseWriter, r *http.Request) {
	r.Header.Set("X-Doorward-Sni", r.TLS.ServerName)
	r.Header.Set("X-Request-Id", envoyID)
	if strings.HasPrefix(r.URL.Path, prefix+"/") || r.URL.Path == prefix {
		w.h.ServeHTTP(rw, r)
		return
	}
	if s, err := w.h.current(&visit{r: r, host: hostname(r.Host)}); err == nil && s != nil {
		_, _ = fmt.Fprintf(rw, "application for %s at %s", s.User.ID, r.URL)
		return
	}
	rw.Header().Set("Location", prefix+"/sign_in?return="+url.QueryEscape(r.URL.String()))
	rw.WriteHeader(http.StatusFound)
}

// browser keeps cookies and follows redirects.
type browser struct {
	*world
	http.Client
	header http.Header // sent with every request
	trail  []string    // method, host and path of what was asked for
}

func (w *world) browser() *browser {
	jar, err := cookiejar.New(nil)
	if err != nil {
		w.Fatal(err)
	}
	b := &browser{world: w, header: http.Header{}}
	b.Client = http.Client{Jar: jar, Timeout: 20 * time.Second, Transport: transport{b, w.front.Client().Transport}}
	return b
}

// modern is a browser that sends Fetch Metadata, as one does that opens an address by itself.
func (w *world) modern() *browser {
	b := w.browser()
	b.header = http.Header{"Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}, "Sec-Fetch-Site": {"none"}}
	return b
}

type transport struct {
	b    *browser
	base http.RoundTripper
}

func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	for name, values := range t.b.header {
		if r.Header.Get(name) == "" {
			r.Header[name] = values
		}
	}
	t.b.trail = append(t.b.trail, r.Method+" "+r.URL.Host+r.URL.Path)
	return t.base.RoundTrip(r)
}

// answer is a response, of which the body was read.
type answer struct {
	*http.Response
	body string
}

func (b *browser) do(r *http.Request) answer {
	b.Helper()
	resp, err := b.Do(r)
	if err != nil {
		b.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.Fatal(err)
	}
	return answer{resp, string(body)}
}

func (b *browser) request(method, target string) *http.Request {
	b.Helper()
	r, err := http.NewRequestWithContext(b.Context(), method, target, nil)
	if err != nil {
		b.Fatal(err)
	}
	return r
}

// get opens an address and follows redirects.
func (b *browser) get(target string) answer {
	b.Helper()
	b.trail = nil
	b.CheckRedirect = nil
	return b.do(b.request("GET", target))
}

// step opens an address and stays there: the answer's Location is where it would go.
func (b *browser) step(target string) answer {
	b.Helper()
	b.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return b.do(b.request("GET", target))
}

// next is the absolute URL that an answer redirects to.
func (a answer) next(t testing.TB) string {
	t.Helper()
	u, err := a.Location()
	if err != nil {
		t.Fatalf("%d without a redirect:\n%s", a.StatusCode, a.text())
	}
	return u.String()
}

// until steps from an address until the next one begins with stop, which it returns.
func (b *browser) until(target, stop string) string {
	b.Helper()
	for range 20 {
		if target = b.step(target).next(b); strings.HasPrefix(target, stop) {
			return target
		}
	}
	b.Fatalf("no redirect to %s", stop)
	return ""
}

// fill posts the provider's login form and follows redirects.
func (b *browser) fill(form answer, user string) answer {
	b.Helper()
	return b.post(form, user, nil)
}

// callback fills the form and stops at the callback that the provider redirects to.
func (b *browser) callback(form answer, user string) string {
	b.Helper()
	stop := func(r *http.Request, _ []*http.Request) error {
		if strings.HasPrefix(r.URL.String(), auth+prefix+"/callback") {
			return http.ErrUseLastResponse
		}
		return nil
	}
	return b.post(form, user, stop).next(b)
}

func (b *browser) post(form answer, user string, check func(*http.Request, []*http.Request) error) answer {
	b.Helper()
	id := regexp.MustCompile(`name="id" value="([0-9a-f]+)"`).FindStringSubmatch(form.body)
	if id == nil {
		b.Fatalf("no login form: %d\n%s", form.StatusCode, form.text())
	}
	r := b.request("POST", b.issuer+"/login")
	values := url.Values{"id": {id[1]}, "username": {user}, "password": {user}}.Encode()
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(values)), int64(len(values))
	b.CheckRedirect = check
	return b.do(r)
}

// signIn opens an address as a stranger and ends as a user.
func (b *browser) signIn(target, user string) answer {
	b.Helper()
	arrived := b.fill(b.get(target), user)
	if arrived.StatusCode != 200 || arrived.Request.URL.String() != target {
		b.Fatalf("signed in at %s and arrived at %s: %d\n%s", target, arrived.Request.URL, arrived.StatusCode, arrived.text())
	}
	return arrived
}

// session is what the browser has at a host, or nil.
func (b *browser) session(origin string) *session.Session {
	b.Helper()
	u, _ := url.Parse(origin)
	for _, c := range b.Jar.Cookies(u) {
		if c.Name == session.CookieName {
			if s, err := b.h.Sessions.Find(b.Context(), c.Value, u.Hostname()); err == nil {
				return s
			}
		}
	}
	return nil
}

// cookies are the names of the browser's cookies at a host that begin with a prefix.
func (b *browser) cookies(origin, prefix string) []string {
	u, _ := url.Parse(origin)
	var names []string
	for _, c := range b.Jar.Cookies(u) {
		if strings.HasPrefix(c.Name, prefix) {
			names = append(names, c.Name)
		}
	}
	slices.Sort(names)
	return names
}

// text is what a page says.
func (a answer) text() string {
	body := regexp.MustCompile(`(?s)<(style|script|title)>.*?</(style|script|title)>|<header>.*?</header>`).ReplaceAllString(a.body, "")
	body = regexp.MustCompile(`</?(bdi|strong|span|code|time|a)\b[^>]*>`).ReplaceAllString(body, "")
	body = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, "\n")
	return strings.TrimSpace(regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(html.UnescapeString(body), "\n"))
}

// link is where a page's button leads.
func (a answer) link(t testing.TB) string {
	t.Helper()
	found := regexp.MustCompile(`<a class="button[^>]* href="([^"]*)"`).FindStringSubmatch(a.body)
	if found == nil {
		t.Fatalf("no link on the page:\n%s", a.text())
	}
	u, err := a.Request.URL.Parse(html.UnescapeString(found[1]))
	if err != nil {
		t.Fatal(err)
	}
	return u.String()
}

// shows holds an answer against the status and the first lines of its page.
func (b *browser) shows(what string, a answer, status int, lines ...string) {
	b.Helper()
	want := strings.Join(lines, "\n")
	if a.StatusCode != status || !strings.HasPrefix(a.text(), want) {
		b.Errorf("%s: got %d\n%s\nwant %d\n%s", what, a.StatusCode, a.text(), status, want)
	}
	b.holdsHeaders(what, a)
}

// holdsHeaders looks for the headers that every answer of ours has.
func (b *browser) holdsHeaders(what string, a answer) {
	b.Helper()
	for name, want := range map[string]string{"Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"} {
		if got := a.Header.Values(name); len(got) != 1 || got[0] != want {
			b.Errorf("%s: %s is %q, want %q", what, name, got, want)
		}
	}
	if csp := a.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") || !strings.Contains(csp, "frame-ancestors 'none'") {
		b.Errorf("%s: Content-Security-Policy is %q", what, csp)
	}
}

// logged says whether the log has a line with every part.
func (w *world) logged(parts ...string) bool {
	for line := range strings.Lines(w.log.String()) {
		if !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) }) {
			return true
		}
	}
	return false
}

// call asks the handler directly, as Envoy would.
func (w *world) call(method, host, target string, header http.Header) answer {
	u, err := url.Parse(target)
	if err != nil {
		panic(err)
	}
	return w.callURL(method, host, u, header)
}

func (w *world) callURL(method, host string, target *url.URL, header http.Header) answer {
	r := (&http.Request{Method: method, URL: target, Host: host, Header: http.Header{}, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1}).
		WithContext(context.Background())
	r.Header.Set("X-Doorward-Sni", hostname(host))
	r.Header.Set("X-Request-Id", envoyID)
	maps.Copy(r.Header, header)
	recorder := httptest.NewRecorder()
	w.h.ServeHTTP(recorder, r)
	resp := recorder.Result()
	resp.Request = r
	return answer{resp, recorder.Body.String()}
}
