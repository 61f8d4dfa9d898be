package login

import (
	"html"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"doorward/authz/session"
)

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

// lose takes the session's cookie of a host from the browser.
func (b *browser) lose(origin string) {
	u, _ := url.Parse(origin)
	b.Jar.SetCookies(u, []*http.Cookie{{Name: session.CookieName, Path: "/", MaxAge: -1}})
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
