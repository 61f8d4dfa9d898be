package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"doorward/authz/config"
	"doorward/authz/policy"
	"doorward/xds"
	"doorward/xds/cert"
)

// withData is a route that any request may ask for and whose policy reads data, and one beside it.
const withData = `
  - {name: shop, from: "https://shop.localhost:{{.Port}}", to: "{{.Grafana}}", policy: shop, allow_anonymous: true, unauthenticated: "403"}
  - {name: wiki, from: "https://wiki.localhost:{{.Port}}", to: "{{.Wiki}}", policy: wiki, allow_anonymous: true, unauthenticated: "403"}
`

const (
	shopPolicy = "package shop\n\nallow if input.request.path in data.open.paths\n"
	wikiPolicy = "package wiki\n\nallow if data.wiki.open\n"
)

// within waits for a status, as long as an operator should have to after an edit.
func (s *stack) within(host, path string, want int) {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	got := s.status(host, path)
	for ; got != want && time.Now().Before(deadline); got = s.status(host, path) {
		time.Sleep(20 * time.Millisecond)
	}
	if got != want {
		s.t.Fatalf("%s%s: status %d, want %d\n%s", host, path, got, want, s.log)
	}
}

// TestDataChangesWhileItServes edits data documents, and breaks one, under a real Envoy.
func TestDataChangesWhileItServes(t *testing.T) {
	s := prepareStack(t, withData)
	s.write("policies/shop.rego", shopPolicy)
	s.write("policies/wiki.rego", wikiPolicy)
	s.write("policies/open/data.json", `{"paths": ["/a"]}`)
	s.write("policies/wiki/data.yaml", "open: true")
	s.start()
	s.within("shop", "/a", http.StatusOK)
	s.within("shop", "/b", http.StatusForbidden)
	s.within("wiki", "/b", http.StatusOK)

	s.write("policies/open/data.json", `{"paths": ["/b"]}`)
	s.within("shop", "/b", http.StatusOK)
	s.within("shop", "/a", http.StatusForbidden)

	s.write("policies/open/data.json", `{"paths": ["/a"], "paths": []}`)
	if out, err := s.check("--wait"); err == nil {
		t.Fatalf("a bad document was taken: %s", out)
	}
	s.within("shop", "/b", http.StatusOK)

	if err := os.Remove(filepath.Join(s.dir, "policies/wiki/data.yaml")); err != nil {
		t.Fatal(err)
	}
	s.write("policies/open/data.json", `{"paths": ["/a"]}`)
	if out, err := s.check("--wait"); err == nil {
		t.Fatalf("a policy whose data is gone was taken: %s", out)
	}
	s.within("wiki", "/", http.StatusOK)
	s.write("policies/wiki/data.yaml", "open: false")
	s.within("wiki", "/", http.StatusForbidden)
	s.within("shop", "/a", http.StatusOK)
}

// TestDataIsPartOfTheRevisionsThatReadIt changes a document: the route whose policy reads it is another one, the route beside it is not.
func TestDataIsPartOfTheRevisionsThatReadIt(t *testing.T) {
	dir := t.TempDir()
	put := func(name, text string) {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	revisions := func() (shop, wiki string) {
		c, err := config.Load(filepath.Join(dir, "doorward.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		ca, err := cert.Placeholder()
		if err != nil {
			t.Fatal(err)
		}
		source, err := cert.NewSource(c, ca, nil)
		if err != nil {
			t.Fatal(err)
		}
		change, err := build(t.Context(), c, policy.Config{Paths: c.Policies}, new(xds.Builder), source, []string{})
		if err != nil {
			t.Fatal(err)
		}
		return change.generation.Revision("shop"), change.generation.Revision("wiki")
	}
	put("doorward.yaml", "socket_dir: /tmp/dw\nauth_url: https://shop.localhost\nidp: {issuer: https://idp.example.com, client_id: x}\nroutes:\n"+
		"  - {name: shop, from: https://shop.localhost, to: http://shop, policy: shop}\n"+
		"  - {name: wiki, from: https://wiki.localhost, to: http://wiki, policy: wiki}\n")
	put("policies/shop.rego", shopPolicy)
	put("policies/wiki.rego", wikiPolicy)
	put("policies/open/data.json", `{"paths": ["/a"]}`)
	put("policies/wiki/data.yaml", "open: true")
	shop, wiki := revisions()
	put("policies/open/data.json", `{"paths": ["/b"]}`)
	nextShop, nextWiki := revisions()
	if shop == nextShop || wiki != nextWiki {
		t.Errorf("shop was %s and is %s, wiki was %s and is %s", shop, nextShop, wiki, nextWiki)
	}
	put("policies/wiki/data.yaml", "# the same\n\"open\": true\n")
	put("policies/unread/data.json", `{"x": 1}`)
	if lastShop, lastWiki := revisions(); lastShop != nextShop || lastWiki != nextWiki {
		t.Error("an unread document, or another form of a read one, is another revision")
	}
}

// TestABundleUnderARealEnvoy starts before the bundle's server does, and restarts when it is down again.
func TestABundleUnderARealEnvoy(t *testing.T) {
	s := prepareStack(t, withData)
	server := newBundleServer(t)
	server.serve(nil)
	s.write("policies/wiki.rego", "package wiki\n\nallow := true\n")
	s.write("key.pem", string(server.public))
	s.write("doorward.yaml", s.read("doorward.yaml")+fmt.Sprintf(`
bundles:
  - {name: shop, url: %s/shop.tar.gz, poll: 10s, signing: {key_file: key.pem, algorithm: ES256}}
`, server.URL))
	s.start()
	s.within("shop", "/a", http.StatusServiceUnavailable)
	s.within("wiki", "/a", http.StatusOK)
	server.serve(shopBundle(t, server.private, "1", "/a"))
	s.within("shop", "/a", http.StatusOK)
	s.within("shop", "/b", http.StatusForbidden)

	server.serve(nil)
	s.stop(syscall.SIGTERM)
	s.start()
	s.within("shop", "/a", http.StatusOK)
	server.serve(shopBundle(t, server.private, "2", "/b"))
	for deadline := time.Now().Add(15 * time.Second); s.status("shop", "/b") != http.StatusOK; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the new bundle is not applied\n%s", s.log)
		}
	}
	s.within("shop", "/a", http.StatusForbidden)
}
