package web

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
)

// shown is every page as people see it: with the least, with the usual, and with more than anybody should write.
func shown(t *testing.T) map[string]Page {
	plain, branded := pages(t), brandedPages(t, example)
	groups := append([]string{"المهندسون", "👩‍🚀 astronauts", strings.Repeat("group-without-end-", 20)}, strings.Fields(strings.Repeat("team ", 40))...)
	longHost := strings.Repeat("a-label-as-long-as-one-may-be.", 7) + "example.com"
	others := []Session{{"0c7d", "Firefox on Linux", created}, {"1d8e", "", created.Add(-time.Hour)}, {"2e9f", strings.Repeat("Agent", 40), created}}
	long := brandedPages(t, Brand{Name: strings.Repeat("Example ", 7), Logo: example.Logo, Support: "https://help.example.com"})
	return map[string]Page{
		"denied":       branded.Denied(Denied{host, alice, []string{"you are in no group that may use Grafana"}, decision, "/.pomerium/sign_out"}),
		"denied-plain": plain.Denied(Denied{Host: host, DecisionID: decision}),
		"denied-long": long.Denied(Denied{longHost, Person{strings.Repeat("أحمد بن محمد ", 20), "أحمد@" + longHost, nil}, []string{strings.Repeat("because ", 60), strings.Repeat("x", 300),
			"السبب هو \u202egnp.exe", "🙅‍♀️"}, decision, "/.pomerium/sign_out"}),
		"user":        branded.User(User{host, alice, "b4d6", "84e0c0eafaa95a34", created, created.Add(14 * time.Hour), "/.pomerium/sign_out", others[:2], "/.pomerium/"}),
		"user-plain":  plain.User(User{host, Person{}, "b4d6", "84e0c0eafaa95a34", created, created, "/x", nil, "/.pomerium/"}),
		"user-long":   long.User(User{longHost, Person{strings.Repeat("Name", 60), strings.Repeat("e", 250) + "@example.com", groups}, strings.Repeat("s", 200), "84e0c0eafaa95a34", created, created, "/x", others, "/.pomerium/"}),
		"signed-out":  branded.SignedOut(SignedOut{host, "/"}),
		"sign-out":    branded.SignOut(SignOut{host, "/.pomerium/sign_out"}),
		"choose":      branded.Choose(Choose{host, []Provider{{"Example Inc.", "/a"}, {"Partners and suppliers", "/b"}, {"login.example.org", "/c"}}}),
		"choose-long": long.Choose(Choose{longHost, []Provider{{strings.Repeat("Example", 40), "/a"}, {"شركة", "/b"}}}),
		"error":       branded.Error(Error{host, 503, "Sign-in is not available", "The sign-in service does not answer.", "Try again in a minute.", decision, "/retry"}),
		"error-plain": plain.Error(Error{Status: 421, Title: "Wrong host", Message: "This connection was made for another host."}),
		"continue":    branded.Continue(Continue{host, "Signing you out", "Your session here has ended.", "/stay"}),
		"sign-in":     branded.SignIn(SignIn{host, "/", 800, "/stay", "/stay"}),
		"return":      branded.Return(Return{host, "/stay"}),
	}
}

// looks are the ways in which a page is looked at. Zoomed is 200 % on a screen of 1280 pixels, tiny 400 % (WCAG 2.2, criterion 1.4.10).
var looks = []struct {
	name, scheme, forced string
	width                int64
}{
	{"light", "light", "none", 1000}, {"dark", "dark", "none", 1000}, {"phone", "light", "none", 390}, {"phone-dark", "dark", "none", 390},
	{"zoomed", "light", "none", 640}, {"tiny", "light", "none", 320}, {"forced", "dark", "active", 1000},
}

// audit is what a person with poor sight, a keyboard or a thumb would find. It returns the faults.
const audit = `(() => {
  const faults = [];
  for (const a of document.getAnimations()) a.finish();
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) faults.push("is " + wide + " pixels wide on a screen of " + innerWidth);
  const rgb = text => { const [r, g, b, a = 1] = text.match(/[\d.]+/g).map(Number); return {r, g, b, a}; };
  const light = ({r, g, b}) => [r, g, b].map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ratio = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + .05) / (y + .05); };
  const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.a === 1) return c; } return rgb("rgb(255,255,255)"); };
  if (!matchMedia("(forced-colors: active)").matches) {
    const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let n; n = walk.nextNode();) {
      const e = n.parentElement;
      if (!n.data.trim() || e.matches("script, style, noscript")) continue;
      const is = ratio(rgb(getComputedStyle(e).color), ground(e));
      if (is < 4.5) faults.push("contrast " + is.toFixed(2) + " of " + n.data.trim().slice(0, 40));
    }
    for (const e of document.querySelectorAll(".button")) {
      const s = getComputedStyle(e), edge = Math.max(ratio(rgb(s.borderTopColor), ground(e.parentElement)), ratio(rgb(s.backgroundColor), ground(e.parentElement)));
      if (edge < 3) faults.push("the edge of " + e.textContent + " has contrast " + edge.toFixed(2));
    }
  }
  for (const e of document.querySelectorAll("a, button")) {
    const box = e.getBoundingClientRect();
    if (e.matches(".button") && box.height < (innerWidth < 480 ? 44 : 24)) faults.push(e.textContent + " is " + box.height + " pixels high");
    if (box.left < 0 || box.right > innerWidth) faults.push(e.textContent + " sticks out");
  }
  for (const e of document.querySelectorAll("main *, header *, footer *"))
    if (e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).display !== "inline" && e.clientWidth) faults.push("<" + e.localName + " class=" + e.className + "> is cut off");
  for (const e of document.querySelectorAll("a, button")) {
    e.focus();
    if (document.activeElement !== e) faults.push(e.textContent + " takes no focus");
  }
  return faults;
})()`

// TestLooks opens every page in a real browser: nothing is cut off, everything can be read and reached, and nothing runs or is loaded that
// is not the page's own. With DOORWARD_SCREENSHOTS naming a folder it keeps pictures there.
func TestLooks(t *testing.T) {
	if os.Getenv("DOORWARD_E2E") != "1" && os.Getenv("DOORWARD_SCREENSHOTS") == "" {
		t.Skip("SKIPPED: every page in a real browser takes a quarter of a minute; make test looks at them (DOORWARD_E2E=1)")
	}
	path := chromium(t)
	all := shown(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if page, ok := all[strings.TrimPrefix(r.URL.Path, "/")]; ok {
			send(w, page)
			return
		}
		w.WriteHeader(http.StatusNoContent) // the browser stays where it is
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	ctx, stop := chromedp.NewExecAllocator(ctx, options...)
	defer stop()
	var faults faults
	ctx, stop = chromedp.NewContext(ctx, chromedp.WithListener(func(event any) { faults.listen(server.URL, event) }))
	defer stop()
	for name, page := range all {
		seen(ctx, t, "light", "none") // or a page would be drawn on the ground of the last one
		if err := chromedp.Do(ctx, chromedp.Navigate(server.URL+"/"+name)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		title, err := chromedp.Run(ctx, chromedp.Evaluate[string]("document.title"))
		if want, _, _ := strings.Cut(text(page), "\n"); err != nil || strings.Join(strings.Fields(title), " ") != strings.Join(strings.Fields(want), " ") {
			t.Errorf("%s: the title is %q, want %q: a script ran (%v)", name, title, want, err)
		}
		look(ctx, t, name)
	}
	for _, fault := range faults.found() {
		t.Error(fault)
	}
}

// seen sets what a person has asked the browser for.
func seen(ctx context.Context, t *testing.T, scheme, forced string) {
	media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}, {Name: "forced-colors", Value: forced}}}
	if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
		t.Fatal(err)
	}
}

func look(ctx context.Context, t *testing.T, name string) {
	folder := os.Getenv("DOORWARD_SCREENSHOTS")
	for _, l := range looks {
		seen(ctx, t, l.scheme, l.forced)
		if err := chromedp.Do(ctx, chromedp.EmulateViewport(l.width, 700)); err != nil {
			t.Fatal(err)
		}
		found, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](audit))
		if err != nil {
			t.Fatal(err)
		}
		for _, fault := range found {
			t.Errorf("%s, %s: %s", name, l.name, fault)
		}
		if folder == "" {
			continue
		}
		picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+"-"+l.name+".png"), picture, 0o600)
		}
		if err != nil {
			t.Errorf("keep a picture: %v", err)
		}
	}
}

// faults collects what the browser says of a page.
type faults struct {
	mu  sync.Mutex
	all []string
}

func (f *faults) listen(origin string, event any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if !strings.HasPrefix(e.Entry.Text, "Failed to load resource: the server responded with a status of") {
			f.all = append(f.all, fmt.Sprintf("the browser says: %s (%s)", e.Entry.Text, e.Entry.URL))
		}
	case *network.EventRequestWillBeSent:
		if !strings.HasPrefix(e.Request.URL, origin+"/") && !strings.HasPrefix(e.Request.URL, "data:") {
			f.all = append(f.all, "the browser asks for "+e.Request.URL)
		}
	}
}

func (f *faults) found() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.all
}
