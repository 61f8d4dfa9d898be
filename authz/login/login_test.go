package login

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
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
	offset   atomic.Int64              // of our clock from the real one
	down     atomic.Bool               // the provider answers 503
	demands  map[string]session.Demand // of the routes, by their hosts; set before the first request
	asked    atomic.Int64              // requests to the provider's discovery
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
		IDPs:   config.IDPs{{Name: "default", Issuer: w.url(w.issuer), ClientID: "doorward", ClientSecret: "s3cret"}},
		Origin: originOf(map[string]config.URL{authHost: w.url(auth), "grafana.example.com": w.url(grafana), "wiki.example.com": w.url(wiki)}),
	}
	w.settings.Store(settings)
	w.h = w.must(New(Config{
		Settings: func() Settings { return *w.settings.Load() }, Sessions: sessions, Store: db, Sealer: sealer,
		Pages: w.must(web.New(web.Brand{})).(*web.Pages), Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: now,
	})).(*Handler)
	w.front = httptest.NewTLSServer(http.HandlerFunc(w.envoy))
	w.Cleanup(w.front.Close)
}

func (w *world) url(s string) config.URL { return w.must(config.ParseURL(s)).(config.URL) }

// change replaces the settings.
func (w *world) change(f func(*Settings)) {
	s := *w.settings.Load()
	s.IDPs = slices.Clone(s.IDPs)
	f(&s)
	w.settings.Store(&s)
}

// host gives a host another origin; a zero one takes it away.
func (w *world) host(name string, origin config.URL) {
	before := w.settings.Load().Origin
	w.change(func(s *Settings) {
		s.Origin = func(host string) config.URL {
			if host == name {
				return origin
			}
			return before(host)
		}
	})
}

// envoy sets what Envoy sets, and does what authz does on all paths but ours.
func (w *world) envoy(rw http.ResponseWriter, r *http.Request) {
	r.Header.Set("X-Doorward-Sni", r.TLS.ServerName)
	r.Header.Set("X-Request-Id", envoyID)
	if strings.HasPrefix(r.URL.Path, prefix+"/") || r.URL.Path == prefix {
		w.h.ServeHTTP(rw, r)
		return
	}
	q := url.Values{"return": {r.URL.String()}}
	want := w.demands[hostname(r.Host)]
	want.AddTo(q)
	if s, err := w.h.current(&visit{r: r, host: hostname(r.Host)}); err == nil && s != nil && want.Unmet(s, w.h.Now()) == "" {
		_, _ = fmt.Fprintf(rw, "application for %s at %s", s.User.ID, r.URL)
		return
	}
	rw.Header().Set("Location", prefix+"/sign_in?"+q.Encode())
	rw.WriteHeader(http.StatusFound)
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
