package tunnel

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"doorward/authz/session"
)

// fakeEdge is an edge in front of a service that sends everything back. It takes the credentials that it gave, and names an address to sign in at.
type fakeEdge struct {
	*httptest.Server
	signIn string // in place of its own

	mu    sync.Mutex // guards what follows
	good  map[string]bool
	seen  []string // credentials that were shown
	codes map[string]string
}

func newFakeEdge(t *testing.T) *fakeEdge {
	t.Helper()
	e := &fakeEdge{good: map[string]bool{}, codes: map[string]string{}}
	e.Server = httptest.NewUnstartedServer(http.HandlerFunc(e.serve))
	e.EnableHTTP2 = true
	e.StartTLS()
	t.Cleanup(e.Close)
	return e
}

func (e *fakeEdge) serve(w http.ResponseWriter, r *http.Request) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if r.Method == http.MethodPost && r.URL.Path == "/.pomerium/cli/token" {
		sum := sha256.Sum256([]byte(r.PostFormValue("verifier")))
		if code := r.PostFormValue("code"); code == "" || e.codes[code] != base64.RawURLEncoding.EncodeToString(sum[:]) {
			http.Error(w, `{"error":"invalid_grant","message":"no such code"}`, http.StatusBadRequest)
			return
		}
		secret := fmt.Sprint("credential-", len(e.good))
		e.good[secret] = true
		_ = json.NewEncoder(w).Encode(Credential{Secret: secret, Account: "alice\x1b[2J@example.com", Expires: time.Now().Add(time.Hour)})
		return
	}
	shown := ""
	if c, err := r.Cookie(session.CookieName); err == nil {
		shown = c.Value
	}
	e.seen = append(e.seen, shown)
	if r.Method != http.MethodConnect || !e.good[shown] {
		at := e.signIn
		if at == "" {
			at = "https://db.example.com/.pomerium/cli"
		}
		w.WriteHeader(http.StatusUnauthorized)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": "unauthenticated", "message": "sign in", "sign_in": at})
		return
	}
	w.(http.Flusher).Flush()
	e.mu.Unlock()
	buffer := make([]byte, 1024)
	for {
		n, err := r.Body.Read(buffer)
		_, _ = w.Write(buffer[:n])
		w.(http.Flusher).Flush()
		if err != nil {
			break
		}
	}
	e.mu.Lock()
}

func (e *fakeEdge) shown() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.seen...)
}

// lets is a browser whose person says yes: it comes back to the program with a code.
func (e *fakeEdge) lets(t *testing.T) func(string) error {
	return func(at string) error {
		u, err := url.Parse(at)
		if err != nil {
			return err
		}
		q := u.Query()
		e.mu.Lock()
		code := fmt.Sprint("code-", len(e.codes))
		e.codes[code] = q.Get("challenge")
		e.mu.Unlock()
		go browse(t, q.Get("redirect")+"?"+url.Values{"code": {code}, "state": {q.Get("state")}}.Encode(), 200)
		return nil
	}
}

func browse(t *testing.T, at string, want int) {
	response, err := http.Get(at)
	if err != nil {
		t.Errorf("the browser: %v", err)
		return
	}
	defer response.Body.Close()
	if response.StatusCode != want {
		t.Errorf("%s: %d, want %d", at, response.StatusCode, want)
	}
	if csp := response.Header.Get("Content-Security-Policy"); !strings.Contains(csp, "default-src 'none'") {
		t.Errorf("%s: Content-Security-Policy is %q", at, csp)
	}
}

// tunnel is one to the edge, whose certificate is for example.com and what is below it.
func (e *fakeEdge) tunnel(t *testing.T, change func(*Config)) *Tunnel {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(e.Certificate())
	c := Config{Host: "db.example.com", Port: 5432, Edge: e.Listener.Addr().String(), Roots: roots, Tell: t.Logf, Open: e.lets(t)}
	if change != nil {
		change(&c)
	}
	tun, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tun.Close)
	return tun
}

// serve runs a tunnel and returns where it listens.
func serve(t *testing.T, tun *Tunnel) (address string, stop func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- tun.Serve(ctx, l) }()
	stop = func() error {
		cancel()
		select {
		case err := <-done:
			return err
		case <-time.After(5 * time.Second):
			return fmt.Errorf("Serve does not end")
		}
	}
	t.Cleanup(func() { cancel() })
	return l.Addr().String(), stop
}

func sendsBack(t *testing.T, address string) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, "hello"); err != nil {
		return err
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		return err
	}
	if got, err := io.ReadAll(conn); err != nil || string(got) != "hello" {
		return fmt.Errorf("got %q, %v", got, err)
	}
	return nil
}

// TestSignsInOnce for many connections that are refused at the same time, and again when the credential is no longer good.
func TestSignsInOnce(t *testing.T) {
	e := newFakeEdge(t)
	signIns := 0
	tun := e.tunnel(t, func(c *Config) {
		lets := c.Open
		c.Open = func(at string) error { signIns++; return lets(at) } // one at a time
		c.Store = NewStore(t.TempDir(), c.Host, c.Edge)
	})
	address, stop := serve(t, tun)
	connections := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if err := sendsBack(t, address); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
	connections()
	if signIns != 1 {
		t.Errorf("%d sign-ins for the first ten connections", signIns)
	}
	e.mu.Lock()
	clear(e.good)
	e.good["not it"] = true
	e.mu.Unlock()
	connections()
	if signIns != 2 {
		t.Errorf("%d sign-ins after the credential was refused", signIns)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if kept, err := tun.Store.Read(); err != nil || kept.Secret != "credential-1" || kept.Account != "alice [2J@example.com" {
		t.Errorf("kept %v, %v", kept, err)
	}
	second := e.tunnel(t, func(c *Config) { c.Store, c.Open = tun.Store, nil })
	if address, _ := serve(t, second); sendsBack(t, address) != nil {
		t.Error("another program does not go on with the credential that is kept")
	}
}

// TestNobodyElseEndsTheSignIn: any page can send the browser to the port that waits.
func TestNobodyElseEndsTheSignIn(t *testing.T) {
	e := newFakeEdge(t)
	tun := e.tunnel(t, func(c *Config) {
		lets := c.Open
		c.Open = func(at string) error {
			u, _ := url.Parse(at)
			to, state := u.Query().Get("redirect"), u.Query().Get("state")
			if len(state) != 43 || len(u.Query().Get("challenge")) != 43 || strings.Contains(at, "verifier") {
				t.Errorf("opened %s", at)
			}
			go func() { // a browser is not waited for
				browse(t, to+"?code=attacker", 400)
				browse(t, to+"?code=attacker&state=", 400)
				browse(t, to+"?code=attacker&state="+strings.Repeat("A", 43), 400)
				browse(t, to+"?code=attacker&code=x&state="+state, 400)
				browse(t, to+"x?code=attacker&state="+state, 400)
				browse(t, to, 400)
				if response, err := http.Post(to+"?code=attacker&state="+state, "text/plain", nil); err != nil || response.StatusCode != 400 {
					t.Errorf("a POST: %v, %v", response, err)
				}
				request, _ := http.NewRequest(http.MethodGet, to+"?code=attacker&state="+state, nil)
				request.Host = "evil.example" // a name that has come to lead here
				if response, err := http.DefaultClient.Do(request); err != nil || response.StatusCode != 400 {
					t.Errorf("by another name: %v, %v", response, err)
				}
				if err := lets(at); err != nil {
					t.Error(err)
				}
			}()
			return nil
		}
	})
	if address, _ := serve(t, tun); sendsBack(t, address) != nil {
		t.Error("the person's own sign-in does not count")
	}
}

// TestSignInAddressIsTheServices: an edge cannot send the person, or the code, elsewhere.
func TestSignInAddressIsTheServices(t *testing.T) {
	for _, at := range []string{
		"https://evil.example/.pomerium/cli", "http://db.example.com/.pomerium/cli", "https://db.example.com@evil.example/", "https://me@db.example.com/",
		"javascript:alert(1)", "file:///etc/passwd", "https://db.example.com.evil.example/", "--help", "\x1b[2J",
	} {
		e := newFakeEdge(t)
		e.signIn = at
		tun := e.tunnel(t, func(c *Config) {
			c.Open = func(at string) error { t.Errorf("opened %s", at); return nil }
		})
		if err := tun.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "which is no address of db.example.com") || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q: %v", at, err)
		}
	}
}

// TestTokenIsShownInPlaceOfASignIn and nothing that is kept is.
func TestTokenIsShownInPlaceOfASignIn(t *testing.T) {
	e := newFakeEdge(t)
	tun := e.tunnel(t, func(c *Config) {
		c.Token = "dw_token"
		c.Open = func(at string) error { t.Errorf("opened %s", at); return nil }
	})
	if err := tun.Ready(t.Context()); err == nil || err.Error() != "refused with status 401: sign in" {
		t.Errorf("got %v", err)
	}
	if seen := e.shown(); len(seen) != 1 || seen[0] != "" {
		t.Errorf("credentials %q were shown", seen)
	}
}

func TestEdgeIsVerified(t *testing.T) {
	e := newFakeEdge(t)
	for name, change := range map[string]func(*Config){
		"another CA":   func(c *Config) { c.Roots = x509.NewCertPool() },
		"another name": func(c *Config) { c.Host = "db.elsewhere.example" },
	} {
		tun := e.tunnel(t, change)
		if err := tun.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if seen := e.shown(); len(seen) != 0 {
		t.Errorf("credentials %q were shown", seen)
	}
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	s := NewStore(dir, "db.example.com", "db.example.com:443")
	if c, err := s.Read(); err != nil || c.Secret != "" {
		t.Errorf("nothing kept reads as %v, %v", c, err)
	}
	want := Credential{Secret: "x", Account: "alice", Expires: time.Now().Add(time.Hour).UTC().Round(time.Second)}
	for range 2 {
		if err := s.Write(want); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "doorward", "tcp", "db.example.com.json")
	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700} {
		if info, err := os.Stat(name); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if c, err := s.Read(); err != nil || c != want {
		t.Errorf("got %v, %v", c, err)
	}
	for _, edge := range []string{"edge.example.com:443", "db.example.com:8443", "../../x:1", "[::1]:443"} {
		other := NewStore(dir, "db.example.com", edge)
		if c, err := other.Read(); err != nil || c.Secret != "" || filepath.Dir(other.path) != filepath.Dir(path) {
			t.Errorf("%s: %v, %v at %s", edge, c, err, other.path)
		}
	}
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(); err == nil || !strings.Contains(err.Error(), "has mode 0644, so others could connect as you") {
		t.Errorf("a file that others can read: %v", err)
	}
	want.Expires = time.Now().Add(-time.Second)
	if err := s.Write(want); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Read(); err != nil || c.Secret != "" {
		t.Errorf("one that has expired reads as %v, %v", c, err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := s.Read(); err != nil || c.Secret != "" {
		t.Errorf("a broken one reads as %v, %v", c, err)
	}
}
