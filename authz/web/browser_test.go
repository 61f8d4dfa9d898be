package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestFragmentInBrowser lets a real browser run the scripts: what a redirect loses is kept over a sign-in, and what leads to another
// origin is not followed.
func TestFragmentInBrowser(t *testing.T) {
	browser := chromium(t)
	for name, c := range map[string]struct {
		to, fragment, kept string // kept is put into the storage in place of what the page kept
		noStorage          bool
		visited, want      string
	}{
		"nothing to keep": {to: "/d/x?a=1", visited: "/sign_in /go?return=/d/x?a=1 /d/x?a=1", want: "/d/x?a=1"},
		"a fragment": {to: "/d/x?a=1&b=2", fragment: "#panel=3&c='\"<b>", visited: "/sign_in /go?return=/return?attempt=ID /return?attempt=ID /d/x?a=1&b=2",
			want: "/d/x?a=1&b=2#panel=3&c='%22%3Cb%3E"},
		"a long URL": {to: "/d/" + strings.Repeat("x", 900), visited: "/sign_in /go?return=/return?attempt=ID /return?attempt=ID /d/" + strings.Repeat("x", 900),
			want: "/d/" + strings.Repeat("x", 900)},
		"another origin":      {to: "/d", fragment: "#f", kept: "https://evil.example/x", visited: "/sign_in /go?return=/return?attempt=ID /return?attempt=ID /", want: "/"},
		"another host":        {to: "/d", fragment: "#f", kept: "//evil.example/x", visited: "/sign_in /go?return=/return?attempt=ID /return?attempt=ID /", want: "/"},
		"a path that is none": {to: "/d", fragment: "#f", kept: "/.//evil.example/x", visited: "/sign_in /go?return=/return?attempt=ID /return?attempt=ID //evil.example/x", want: "//evil.example/x"},
		"a script":            {to: "/d", fragment: "#f", kept: "javascript:document.title='run'", visited: "/sign_in /go?return=/return?attempt=ID /return?attempt=ID /", want: "/"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t, c.to, c.kept)
			title := s.title(t, browser, "/sign_in"+c.fragment)
			if want := s.URL + c.want; title != want {
				t.Errorf("arrived at %s\nwant %s", title, want)
			}
			if got := s.trail(); got != c.visited {
				t.Errorf("visited %s\nwant %s", got, c.visited)
			}
		})
	}
}

// TestContinueInBrowser holds that the page goes on by itself under its own policy.
func TestContinueInBrowser(t *testing.T) {
	browser := chromium(t)
	s := newSite(t, "/", "")
	if got, want := s.title(t, browser, "/leave"), s.URL+"/end?a=b&c=d"; got != want {
		t.Errorf("arrived at %s\nwant %s", got, want)
	}
}

// site plays the sign-in: /go stands for all of it.
type site struct {
	*httptest.Server
	mu      sync.Mutex
	visited []string
}

func newSite(t *testing.T, to, kept string) *site {
	p, s := pages(t), &site{}
	mux := http.NewServeMux()
	mux.HandleFunc("/sign_in", func(w http.ResponseWriter, _ *http.Request) {
		send(w, p.SignIn(SignIn{host, to, 800, "/go?return=" + to, "/go?return=/return?attempt="}))
	})
	mux.HandleFunc("/go", func(w http.ResponseWriter, r *http.Request) {
		_, next, _ := strings.Cut(r.URL.String(), "return=")
		if kept == "" {
			http.Redirect(w, r, next, http.StatusFound)
			return
		}
		_, name, _ := strings.Cut(next, "=")
		_, _ = w.Write([]byte(`<script>sessionStorage.setItem("doorward.return.` + name + `", "` + kept + `"); location.replace("` + next + `")</script>`))
	})
	mux.HandleFunc("/return", func(w http.ResponseWriter, _ *http.Request) { send(w, p.Return(Return{host, "/"})) })
	mux.HandleFunc("/leave", func(w http.ResponseWriter, _ *http.Request) {
		send(w, p.Continue(Continue{host, "Signing you out", "Your session has ended.", "/end?a=b&c=d"}))
	})
	mux.HandleFunc("/favicon.ico", http.NotFound)
	arrived := func(w http.ResponseWriter) {
		_, _ = w.Write([]byte("<title></title><script>document.title = location.href</script>"))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { arrived(w) })
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/favicon.ico" {
			s.mu.Lock()
			s.visited = append(s.visited, r.URL.String())
			s.mu.Unlock()
		}
		if strings.HasPrefix(r.URL.Path, "//") { // the mux would clean it
			arrived(w)
			return
		}
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func send(w http.ResponseWriter, page Page) {
	for name, value := range page.Header {
		w.Header().Set(name, value)
	}
	w.WriteHeader(page.Status)
	_, _ = w.Write(page.Body)
}

// trail is what was visited, with the random name of what was kept as ID.
func (s *site) trail() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	trail := strings.Join(s.visited, " ")
	if _, after, ok := strings.Cut(trail, "attempt="); ok && len(after) >= 32 {
		trail = strings.ReplaceAll(trail, after[:32], "ID")
	}
	return trail
}

// title opens a URL and returns the title of where it ends.
func (s *site) title(t *testing.T, browser, path string) string {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--user-data-dir="+t.TempDir(),
		"--virtual-time-budget=5000", "--dump-dom", s.URL+path).Output()
	if err != nil {
		t.Fatalf("%s: %v", browser, err)
	}
	_, after, _ := strings.Cut(string(out), "<title>")
	title, _, _ := strings.Cut(after, "</title>")
	return strings.ReplaceAll(title, "&amp;", "&")
}

func chromium(t *testing.T) string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("DOORWARD_E2E") == "1" {
		t.Fatal("Chromium is missing: install the package chromium")
	}
	t.Skip("SKIPPED: Chromium is missing, so the scripts of the pages are not run")
	return ""
}
