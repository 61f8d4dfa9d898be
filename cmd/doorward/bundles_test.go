package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/admin"
	"doorward/authz/config"
	"doorward/authz/policy"

	"github.com/open-policy-agent/opa/v1/bundle"
)

// bundleServer serves one bundle with an ETag, as long as it is not down.
type bundleServer struct {
	*httptest.Server
	private string
	public  []byte

	mu      sync.Mutex
	archive []byte
	down    bool
	answers map[int]int // by status
}

func newBundleServer(t *testing.T) *bundleServer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	s := &bundleServer{
		private: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})),
		public:  pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}),
		answers: map[int]int{},
	}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *bundleServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	status, etag := http.StatusOK, fmt.Sprintf(`"%x"`, sha256.Sum256(s.archive))
	switch {
	case s.down:
		status = http.StatusServiceUnavailable
	case r.Header.Get("If-None-Match") == etag:
		status = http.StatusNotModified
	}
	s.answers[status]++
	w.Header().Set("ETag", etag)
	w.WriteHeader(status)
	if status == http.StatusOK {
		_, _ = w.Write(s.archive)
	}
}

// serve changes what is served: an archive, or nil for nothing.
func (s *bundleServer) serve(archive []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.archive, s.down = archive, archive == nil
}

func (s *bundleServer) count(status int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.answers[status]
}

// shopBundle is a bundle of one policy that lets in who asks for an open path.
func shopBundle(t *testing.T, private, revision, open string) []byte {
	t.Helper()
	return shopBundleOf(t, private, revision, open, "package shop\n\nallow if input.request.path in data.shop_paths.open\n")
}

func shopBundleOf(t *testing.T, private, revision, open, rego string) []byte {
	t.Helper()
	b := bundle.Bundle{
		Manifest: bundle.Manifest{Revision: revision, Roots: &[]string{"shop", "shop_paths"}},
		Data:     map[string]any{"shop_paths": map[string]any{"open": []any{open}}},
		Modules:  []bundle.ModuleFile{{URL: "/shop.rego", Path: "/shop.rego", Raw: []byte(rego)}},
	}
	if private != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(private, "ES256", ""), "any", false); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := bundle.NewWriter(&out).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// running are the planes with a bundle, without an Envoy.
type running struct {
	*planes
	t    *testing.T
	log  *syncBuffer
	stop func()
}

// bundleConfig writes a configuration with the server's bundle and a route whose policy is in it.
func bundleConfig(t *testing.T, s *bundleServer) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "dw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	text := fmt.Sprintf(`
data_dir: data
auth_url: https://shop.localhost
idp: {issuer: https://idp.example.com, client_id: x}
bundles:
  - {name: shop, url: %s/shop.tar.gz, signing: {key_file: key.pem, algorithm: ES256}}
routes:
  - {name: shop, from: https://shop.localhost, to: http://shop, policy: shop, allow_anonymous: true}
  - {name: wiki, from: https://wiki.localhost, to: http://wiki, policy: any_authenticated_user}
`, s.URL)
	for name, data := range map[string]string{"doorward.yaml": text, "key.pem": string(s.public)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "doorward.yaml")
}

// run starts the planes as serve does, without sockets, asking for bundles many times a second.
func run(t *testing.T, file string) (*running, error) {
	t.Helper()
	c, err := config.Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range c.Bundles {
		c.Bundles[i].Poll = config.Duration(100 * time.Millisecond)
	}
	r := &running{t: t, log: new(syncBuffer)}
	if r.planes, err = open(t.Context(), c, slog.New(slog.NewTextHandler(r.log, nil))); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	r.stop = sync.OnceFunc(func() {
		cancel()
		group.Wait()
		r.planes.closeDecisions()
		if err := r.planes.store.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(r.stop)
	if err := r.start(ctx, c); err != nil {
		return r, err
	}
	group.Go(func() { _ = r.watch(ctx, c) })
	group.Go(func() { _ = r.bundles.run(ctx) })
	return r, nil
}

// asks decides a request for a path, "allow" or "deny", or "waiting".
func (r *running) asks(path string) string {
	r.t.Helper()
	got, err := r.authz.Try(r.t.Context(), "shop", policy.Input{Request: policy.Request{Method: "GET", Scheme: "https", Host: "shop.localhost", Path: path}})
	if err != nil {
		r.t.Fatal(err)
	}
	switch {
	case got.Decision.Err != nil:
		return "waiting"
	case got.Decision.Allow:
		return "allow"
	}
	return "deny"
}

func (r *running) until(what string, ok func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("it does not come to this: %s; %+v\n%s", what, r.bundles.report(), r.log)
		}
	}
}

func (r *running) bundle() admin.Bundle { return r.report().Bundles[0] }

func TestABundleIsRenewedAndABadOneIsNot(t *testing.T) {
	s := newBundleServer(t)
	other := newBundleServer(t)
	s.serve(shopBundle(t, s.private, "1", "/a"))
	r, err := run(t, bundleConfig(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if b := r.bundle(); r.asks("/a") != "allow" || r.asks("/b") != "deny" || b.Revision != "1" || b.ETag == "" || b.LastSuccess.IsZero() || b.LastError != "" || b.Waiting {
		t.Fatalf("the bundle does not decide: %+v", b)
	}
	r.until("the server says that it has no other", func() bool { return s.count(http.StatusNotModified) > 2 })
	if n := s.count(http.StatusOK); n != 1 {
		t.Errorf("the same bundle was sent %d times", n)
	}
	s.serve(shopBundle(t, s.private, "2", "/b"))
	r.until("the new one decides", func() bool { return r.asks("/b") == "allow" && r.bundle().Revision == "2" })
	if r.asks("/a") != "deny" {
		t.Error("the old one decides too")
	}
	good := r.bundle()
	for name, row := range map[string]struct {
		archive []byte
		want    string
	}{
		"unsigned":             {shopBundle(t, "", "3", "/a"), "is not signed"},
		"signed by another":    {shopBundle(t, other.private, "3", "/a"), "failed to verify JWT signature"},
		"no archive":           {[]byte("<html>"), "is no gzipped archive"},
		"does not compile":     {shopBundleOf(t, s.private, "3", "/a", "package shop\nallow if input.usr"), "there is no input.usr"},
		"does not parse":       {shopBundleOf(t, s.private, "3", "/a", "package shop\nallow if"), "bundle:shop/shop.rego:2:8: unexpected eof"},
		"has no policy shop":   {shopBundleOf(t, s.private, "3", "/a", "package shop.other\nallow := true"), "package shop has no rule `allow`"},
		"the server is down":   {nil, "status 503"},
		"overlaps the library": {shopBundleOf(t, s.private, "3", "/a", "package doorward.user\nin_group(x) := true"), "do not permit"},
	} {
		before := s.count(http.StatusOK) + s.count(http.StatusServiceUnavailable)
		s.serve(row.archive)
		r.until(name+" is said", func() bool { return strings.Contains(r.bundle().LastError, row.want) })
		r.until(name+" is tried again", func() bool { return s.count(http.StatusOK)+s.count(http.StatusServiceUnavailable) > before+2 })
		if b := r.bundle(); r.asks("/b") != "allow" || r.asks("/a") != "deny" || b.Revision != "2" || b.Sum != good.Sum || b.ETag != good.ETag {
			t.Errorf("%s: it decides, or is reported: %+v", name, b)
		}
		if n := strings.Count(r.log.String(), row.want); n == 0 || n > 3 {
			t.Errorf("%s is %d times in the log", name, n)
		}
	}
	if r.report().Refused != "" {
		t.Error("a bad bundle counts as a bad configuration")
	}
	s.serve(shopBundle(t, s.private, "4", "/c"))
	r.until("a good one decides again", func() bool { return r.asks("/c") == "allow" && r.bundle().LastError == "" })
}

// TestAStartWithoutTheServer has the last good bundle, which is verified again, and without one waits.
func TestAStartWithoutTheServer(t *testing.T) {
	s := newBundleServer(t)
	file := bundleConfig(t, s)
	s.serve(nil)
	r, err := run(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if b := r.bundle(); r.asks("/a") != "waiting" || !b.Waiting || !strings.Contains(b.LastError, "status 503") {
		t.Fatalf("it starts open: %+v", b)
	}
	s.serve(shopBundle(t, s.private, "1", "/a"))
	r.until("the first one decides", func() bool { return r.asks("/a") == "allow" && !r.bundle().Waiting })
	s.serve(shopBundle(t, s.private, "2", "/b"))
	r.until("the second one decides", func() bool { return r.asks("/b") == "allow" })
	r.stop()

	s.serve(nil)
	if r, err = run(t, file); err != nil {
		t.Fatal(err)
	}
	if b := r.bundle(); r.asks("/b") != "allow" || b.Revision != "2" {
		t.Fatalf("the one that is kept is not used: %+v", b)
	}
	r.stop()

	// What is kept is believed no more than what is fetched.
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(file), "data", "bundles", "*.tar.gz"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept are %q %v", kept, err)
	}
	if err := os.WriteFile(kept[0], shopBundle(t, "", "9", "/a"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r, err = run(t, file); err != nil {
		t.Fatal(err)
	}
	if r.asks("/a") != "waiting" {
		t.Fatal("a bundle is used that somebody else has put there")
	}
	if !strings.Contains(r.log.String(), "is not signed") {
		t.Errorf("nothing is said of it: %s", r.log)
	}
}

// TestAFirstBundleThatDoesNotWorkIsWaitedFor has a server whose bundle is bad from the beginning.
func TestAFirstBundleThatDoesNotWorkIsWaitedFor(t *testing.T) {
	s := newBundleServer(t)
	s.serve(shopBundleOf(t, s.private, "1", "/a", "package shop\nallow if input.usr"))
	r, err := run(t, bundleConfig(t, s))
	if err != nil {
		t.Fatal(err)
	}
	if b := r.bundle(); r.asks("/a") != "waiting" || !strings.Contains(b.LastError, "there is no input.usr") {
		t.Fatalf("it is %+v", b)
	}
	s.serve(shopBundle(t, s.private, "2", "/a"))
	r.until("a good one decides", func() bool { return r.asks("/a") == "allow" })
}

// TestAChangedKeyNeedsABundleSignedByIt changes the configuration of a bundle that decides: what cannot be had is refused as a whole.
func TestAChangedKeyNeedsABundleSignedByIt(t *testing.T) {
	s, other := newBundleServer(t), newBundleServer(t)
	s.serve(shopBundle(t, s.private, "1", "/a"))
	file := bundleConfig(t, s)
	r, err := run(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(file), "key.pem"), other.public, 0o600); err != nil {
		t.Fatal(err)
	}
	r.until("the change is refused", func() bool { return strings.Contains(r.report().Problem, "failed to verify JWT signature") })
	if r.asks("/a") != "allow" {
		t.Error("what was served is not")
	}
	s.serve(shopBundle(t, other.private, "2", "/b"))
	r.until("the new key's bundle decides", func() bool { return r.asks("/b") == "allow" && r.report().Problem == "" })
	kept, err := filepath.Glob(filepath.Join(filepath.Dir(file), "data", "bundles", "*.tar.gz"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept are %q %v", kept, err)
	}
}

// TestABundleThatIsAFile is watched like a policy.
func TestABundleThatIsAFile(t *testing.T) {
	s := newBundleServer(t)
	file := bundleConfig(t, s)
	dir := filepath.Dir(file)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, data []byte) {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("doorward.yaml", []byte(strings.Replace(string(text), "url: "+s.URL+"/shop.tar.gz", "file: shop.tar.gz", 1)))
	put("shop.tar.gz", shopBundle(t, "", "0", "/x"))
	if _, err := run(t, file); err == nil || !strings.Contains(err.Error(), "bundles[shop]: "+dir+"/shop.tar.gz is not signed, and signing is configured") {
		t.Fatalf("it starts with a bad file: %v", err)
	}
	os.RemoveAll(filepath.Join(dir, "data"))
	put("shop.tar.gz", shopBundle(t, s.private, "1", "/a"))
	r, err := run(t, file)
	if err != nil {
		t.Fatal(err)
	}
	if r.asks("/a") != "allow" {
		t.Fatal("it does not decide")
	}
	put("shop.tar.gz", shopBundle(t, "", "2", "/b"))
	r.until("a bad one is refused", func() bool { return strings.Contains(r.report().Problem, "is not signed") })
	if r.asks("/a") != "allow" {
		t.Error("what was served is not")
	}
	put("shop.tar.gz", shopBundle(t, s.private, "3", "/b"))
	r.until("a good one decides", func() bool { return r.asks("/b") == "allow" })
}
