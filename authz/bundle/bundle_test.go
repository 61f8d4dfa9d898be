package bundle

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"doorward/authz/config"
)

func source(t *testing.T, rawURL string, change func(*config.Bundle)) *Source {
	t.Helper()
	u, err := config.ParseURL(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	b := config.Bundle{Name: "acme", URL: u}
	if change != nil {
		change(&b)
	}
	s, err := NewSource(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestFetch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept-Encoding") == "gzip" {
			t.Error("it asks for compression")
		}
		w.Header().Set("ETag", `"one"`)
		if r.Header.Get("If-None-Match") == `"one"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		fmt.Fprint(w, "archive")
	}))
	defer server.Close()
	s := source(t, server.URL, nil)
	archive, etag, err := s.Fetch(t.Context(), "")
	if string(archive) != "archive" || etag != `"one"` || err != nil {
		t.Fatalf("got %q %s %v", archive, etag, err)
	}
	if _, _, err := s.Fetch(t.Context(), etag); !errors.Is(err, ErrNotModified) {
		t.Errorf("the same is fetched again: %v", err)
	}
	if archive, _, err := s.Fetch(t.Context(), `"zero"`); string(archive) != "archive" || err != nil {
		t.Errorf("another one is not fetched: %v", err)
	}
}

// TestAnswersThatAreRefused has a server per row and the error.
func TestAnswersThatAreRefused(t *testing.T) {
	for _, row := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"an error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "secret", 500) }, "get URL: status 500"},
		{"none", func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "get URL: status 404"},
		{"not modified, unasked", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNotModified) }, "get URL: status 304"},
		{"nothing", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusNoContent) }, "get URL: status 204"},
		{"announced as too large", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(config.MaxBundle+1))
		}, "get URL: it is larger than 32 MiB"},
		{"too large", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.Copy(w, io.LimitReader(zeros{}, config.MaxBundle+1))
		}, "get URL: it is larger than 32 MiB"},
		{"cut", func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "10")
			fmt.Fprint(w, "short")
		}, "get URL: unexpected EOF"},
		{"round and round", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/again", http.StatusFound) }, `Get "/again": more than 3 redirects`},
	} {
		server := httptest.NewServer(row.handler)
		_, _, err := source(t, server.URL+"/b.tar.gz", nil).Fetch(t.Context(), "")
		if got := strings.ReplaceAll(fmt.Sprint(err), server.URL+"/b.tar.gz", "URL"); got != row.want {
			t.Errorf("%s\ngot  %s\nwant %s", row.name, got, row.want)
		}
		server.Close()
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestTheTokenGoesToTheServerAlone follows a redirect to another host, and reads the token anew for each request.
func TestTheTokenGoesToTheServerAlone(t *testing.T) {
	var seen []string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, "other "+r.Header.Get("Authorization"))
	}))
	defer other.Close()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, "server "+r.Header.Get("Authorization"))
		http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
	}))
	defer server.Close()
	token := filepath.Join(t.TempDir(), "token")
	s := source(t, server.URL, func(b *config.Bundle) { b.BearerTokenFile = token })
	for _, text := range []string{"one\n", "two"} {
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, _, err := s.Fetch(t.Context(), ""); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := strings.Join(seen, ", "), "server Bearer one, other , server Bearer two, other "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestTLS(t *testing.T) {
	insecure := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "forged") }))
	defer insecure.Close()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/away" {
			http.Redirect(w, r, insecure.URL, http.StatusFound)
			return
		}
		fmt.Fprint(w, "archive")
	}))
	defer server.Close()
	if _, _, err := source(t, server.URL, nil).Fetch(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody is taken: %v", err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	trusting := func(b *config.Bundle) { b.CAFile = ca }
	if archive, _, err := source(t, server.URL, trusting).Fetch(t.Context(), ""); string(archive) != "archive" || err != nil {
		t.Errorf("ca_file is not trusted: %v", err)
	}
	if _, _, err := source(t, server.URL+"/away", trusting).Fetch(t.Context(), ""); err == nil || !strings.HasSuffix(err.Error(), "a redirect from https to http") {
		t.Errorf("it goes from https to http: %v", err)
	}
}

// TestPlainHTTPStaysHere has a URL of plain http that leads to another machine: nothing is sent there.
func TestPlainHTTPStaysHere(t *testing.T) {
	if _, _, err := source(t, "http://192.0.2.1:9/b.tar.gz", nil).Fetch(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "192.0.2.1 is another machine, and the URL is plain http") {
		t.Errorf("got %v", err)
	}
}

func TestKeep(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundles")
	if _, err := Kept(dir, "acme"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, text := range []string{"one", "two"} {
		if err := Keep(dir, "acme", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := Kept(dir, "acme"); !bytes.Equal(got, []byte(text)) || err != nil {
			t.Errorf("got %q %v", got, err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("the directory holds %v %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v %v", info.Mode(), err)
	}
	if err := errors.Join(Keep(dir, "old", nil), Prune(dir, []string{"acme"}), Prune(dir+"/none", nil)); err != nil {
		t.Fatal(err)
	}
	if _, err := Kept(dir, "old"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what is not used any more is kept: %v", err)
	}
	if _, err := Kept(dir, "acme"); err != nil {
		t.Error(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "full.tar.gz", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Keep(dir, "full", nil); err == nil {
		t.Error("nothing is kept, and there is no error")
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".new-*")); len(left) > 0 || err != nil {
		t.Errorf("%q is left", left)
	}
}
