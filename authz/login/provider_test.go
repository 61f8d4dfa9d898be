package login

import (
	"context"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestProviderDown(t *testing.T) {
	w := newWorld(t)
	b := w.browser()
	w.down.Store(true)
	page := b.get(grafana + "/d/x")
	down := []string{"Sign-in is not available", "The sign-in service at 127.0.0.1 does not answer as it should at the moment.",
		"Where you are signed in, you stay signed in. Try again in a minute; if it goes on, tell whoever runs this site.", "Try again"}
	b.shows("down from the start", page, 503, down...)
	if strings.Contains(page.body, "down</b>") {
		t.Error("the provider's answer is on the page")
	}
	if !w.logged("level=ERROR", "sign-in failed", "discovery of "+w.issuer+": 503 Service Unavailable") {
		t.Errorf("the cause is not in the log:\n%s", w.log.String())
	}
	asked := w.asked.Load()
	b.get(page.link(t))
	if w.asked.Load() != asked {
		t.Error("it was asked again at once")
	}
	w.down.Store(false)
	w.offset.Add(int64(time.Second))
	if got := b.fill(b.get(page.link(t)), "alice"); got.body != "application for alice at /" {
		t.Errorf("when it is back: %d %s", got.StatusCode, got.text())
	}
	w.down.Store(true)
	w.offset.Add(int64(2 * time.Hour))
	if got := b.get(wiki + "/"); got.body != "application for alice at /" {
		t.Errorf("who is signed in does not stay so: %d %s", got.StatusCode, got.text())
	}
	stranger := w.browser()
	stranger.shows("down again", stranger.step(auth+prefix+"/sign_in?return=%2F"), 503, down...)
	w.down.Store(false)
	w.offset.Add(int64(time.Second))
	if got := stranger.step(auth + prefix + "/sign_in?return=%2F").next(t); !strings.HasPrefix(got, w.issuer+"/authorize?") {
		t.Errorf("when it is back again: %s", got)
	}
}

func TestProviderRecovers(t *testing.T) {
	w := newWorld(t)
	w.down.Store(true)
	for i, wait := range []time.Duration{0, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second} {
		w.offset.Add(int64(wait) - int64(500*time.Millisecond))
		if i > 0 {
			w.browser().step(auth + prefix + "/sign_in")
			if got := w.asked.Load(); got != int64(i) {
				t.Errorf("before the wait of %v it was asked %d times, want %d", wait, got, i)
			}
		}
		w.offset.Add(int64(500 * time.Millisecond))
		w.browser().step(auth + prefix + "/sign_in")
		if got := w.asked.Load(); got != int64(i+1) {
			t.Errorf("after %v it was asked %d times, want %d", wait, got, i+1)
		}
	}
}

func TestProviderIsAnother(t *testing.T) {
	w := newWorld(t)
	w.change(func(s *Settings) { s.IDPs[0].Issuer = w.url(w.issuer + "/") })
	b := w.browser()
	b.shows("an issuer that differs by a slash", b.step(auth+prefix+"/sign_in"), 503, "Sign-in is not available")
	if !w.logged("discovery of " + w.issuer + "/: oidc: issuer URL provided to client") {
		t.Errorf("log: %s", w.log.String())
	}
}

// TestCAFile reaches a provider whose certificate only the configured file vouches for.
func TestCAFile(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		issuer := "https://" + r.Host
		writeJSON(w, http.StatusOK, map[string]string{"issuer": issuer, "authorization_endpoint": issuer + "/a", "token_endpoint": issuer + "/t", "jwks_uri": issuer + "/k"})
	}))
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	dir := t.TempDir()
	write := func(name string, content []byte) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ca := write("ca.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	for name, c := range map[string]struct{ file, want string }{
		"trusted":       {ca, ""},
		"not trusted":   {"", "failed to verify certificate"},
		"no such file":  {filepath.Join(dir, "none.pem"), "idp.ca_file: open " + filepath.Join(dir, "none.pem") + ": no such file or directory"},
		"an empty file": {write("empty.pem", nil), "idp.ca_file: " + filepath.Join(dir, "empty.pem") + " has no certificate in PEM"},
	} {
		m, err := discover(t.Context(), nil, providerKey{server.URL, c.file})
		switch {
		case c.want == "" && (err != nil || m.issuer != server.URL):
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
}

// TestDiscoveryIsShared has many people wait for one discovery, and one of them leave.
func TestDiscoveryIsShared(t *testing.T) {
	f := newFake(t)
	release := make(chan struct{})
	answers := f.idp
	f.idp = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		<-release
		answers.ServeHTTP(w, r)
	})
	idp := f.settings.Load().IDPs[0]
	gone, leave := context.WithCancel(t.Context())
	errs := make(chan error, 9)
	ask := func(ctx context.Context) {
		_, err := f.h.providers.get(ctx, idp)
		errs <- err
	}
	go ask(gone)
	leave()
	if err := <-errs; !errors.Is(err, context.Canceled) {
		t.Errorf("who left got %v", err)
	}
	for range 8 {
		go ask(t.Context())
	}
	close(release)
	for range 8 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	if got := f.asked.Load(); got != 1 {
		t.Errorf("asked %d times, want once", got)
	}
}
