package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/audits"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// arriveWithin is how long a way may take, of which the longest has a dozen redirects.
const arriveWithin = 15 * time.Second

// browser is a real one, with the demo that it may visit.
type browser struct {
	ctx  context.Context
	demo *running
}

// findChromium skips when there is none to be used. With DOORWARD_E2E=1 that is a failure.
func findChromium(t *testing.T) string {
	t.Helper()
	if os.Getenv("DOORWARD_E2E") != "1" {
		t.Skip("SKIPPED: this test runs the demo with a real Envoy and a real browser; make test runs it (DOORWARD_E2E=1)")
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Fatal("Chromium is missing: install the package chromium")
	return ""
}

// startBrowser starts one that lives until ctx ends, and trusts the demo's hosts, and more.
func startBrowser(ctx context.Context, t *testing.T, path string, d *running, more ...string) *browser {
	t.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.UserDataDir(t.TempDir()), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("ignore-certificate-errors-spki-list", d.keys(ctx, t, more...)))
	allocator, stop := chromedp.NewExecAllocator(ctx, options...)
	t.Cleanup(stop)
	b := &browser{demo: d}
	b.ctx, stop = chromedp.NewContext(allocator)
	t.Cleanup(stop)
	if err := chromedp.Do(b.ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	return b
}

// tab is one of a person's. What goes wrong in it fails the test: an error of a script, a violation of a page's policy, and a request
// that leaves the demo.
type tab struct {
	t    *testing.T
	ctx  context.Context
	demo *running

	mu       sync.Mutex
	faults   []string
	careless bool   // faults are what the test is about
	at       string // the address of the page
}

// person opens a tab with cookies of its own.
func (b *browser) person(t *testing.T) *tab {
	t.Helper()
	return newTab(b.ctx, t, b.demo, chromedp.WithNewBrowserContext())
}

// second opens another tab with the same cookies.
func (x *tab) second() *tab {
	x.t.Helper()
	return newTab(x.ctx, x.t, x.demo)
}

func newTab(parent context.Context, t *testing.T, d *running, options ...chromedp.ContextOption) *tab {
	t.Helper()
	x := &tab{t: t, demo: d}
	ctx, stop := chromedp.NewContext(parent, append(options, chromedp.WithListener(x.listen))...)
	x.ctx = ctx
	t.Cleanup(func() {
		stop()
		x.mu.Lock()
		defer x.mu.Unlock()
		if len(x.faults) > 0 && !x.careless {
			t.Error(strings.Join(x.faults, "\n"))
		}
	})
	if _, err := chromedp.Call(ctx, audits.Enable, cdp.Empty{}); err != nil {
		t.Fatalf("open a tab: %v", err)
	}
	return x
}

// listen notes what must not happen.
func (x *tab) listen(event any) {
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		x.note("a script failed: " + e.ExceptionDetails.Text)
	case *runtime.EventConsoleAPICalled:
		x.note(fmt.Sprintf("a script wrote to the console: %s", e.Type))
	case *log.EventEntryAdded:
		if !strings.HasPrefix(e.Entry.Text, "Failed to load resource: the server responded with a status of") && !x.foreign(e.Entry.URL) {
			x.note(fmt.Sprintf("the browser says: %s (%s)", e.Entry.Text, e.Entry.URL))
		}
	case *audits.EventIssueAdded:
		// Chrome counts a host that only redirects as a tracker, when it is another site; here each host below .localhost is one.
		details, _ := json.Marshal(e.Issue.Details) // "null" is as good
		if e.Issue.Code != audits.InspectorIssueCodeBounceTrackingIssue && !x.foreign(string(details)) {
			x.note(fmt.Sprintf("the browser found an issue: %s %s", e.Issue.Code, details))
		}
	case *page.EventFrameNavigated:
		if e.Frame.ParentID == "" {
			x.mu.Lock()
			x.at = e.Frame.URL
			x.mu.Unlock()
		}
	case *network.EventRequestWillBeSent:
		if !x.demo.has(e.Request.URL) {
			x.note("a request left the demo: " + e.Request.URL)
		}
	}
}

// foreign says whether the tab shows a page of somebody else's, or a text tells of one: it looks and behaves as it likes.
func (x *tab) foreign(text string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.demo.others, func(origin string) bool {
		return strings.HasPrefix(x.at, origin+"/") || strings.Contains(text, origin+"/")
	})
}

// has says whether an address is one of the demo's.
func (r *running) has(address string) bool {
	u, err := url.Parse(address)
	if err != nil {
		return false
	}
	switch origin := u.Scheme + "://" + u.Host; origin {
	case r.url("grafana", ""), r.url("wiki", ""), r.url("auth", ""), r.url("notes", ""), r.issuer():
		return true
	default:
		return slices.Contains(r.others, origin)
	}
}

func (x *tab) note(fault string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.faults = append(x.faults, fault)
}

// notes waits until a fault was noted that holds a text.
func (x *tab) notes(text string) {
	x.t.Helper()
	for begun := time.Now(); time.Since(begun) < arriveWithin && x.ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		x.mu.Lock()
		found := slices.ContainsFunc(x.faults, func(fault string) bool { return strings.Contains(fault, text) })
		x.mu.Unlock()
		if found {
			return
		}
	}
	x.t.Errorf("nobody noticed: %s", text)
}

// open types an address and does not wait.
func (x *tab) open(address string) {
	x.t.Helper()
	result, err := chromedp.Call(x.ctx, page.Navigate, page.NavigateParams{URL: address})
	if err != nil || result.ErrorText != "" {
		x.t.Fatalf("open %s: %v %s", address, err, result.ErrorText)
	}
}

// arrive waits until the tab shows an address, or one that begins with it when the address ends where a random part would begin.
func (x *tab) arrive(want string) {
	x.t.Helper()
	var last string
	for begun := time.Now(); time.Since(begun) < arriveWithin && x.ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		// A page that is left while it is asked is no error.
		place, err := chromedp.Run(x.ctx, chromedp.Evaluate[string](`document.readyState == "complete" ? location.href : ""`))
		if err != nil || place == "" {
			continue
		}
		if last = place; last == want || strings.HasSuffix(want, "=") && strings.HasPrefix(last, want) {
			return
		}
	}
	x.t.Fatalf("the tab is at %s\nwant %s\n%s", last, want, x.text())
}

// form is where the provider's login form begins.
func (r *running) form() string { return r.issuer() + "/login?id=" }

// visit opens an address that needs no more sign-in.
func (x *tab) visit(address string) {
	x.t.Helper()
	x.open(address)
	x.arrive(address)
}

// signIn fills the provider's form in and sends it.
func (x *tab) signIn(name string) {
	x.t.Helper()
	x.fill(name)
	x.click("button")
}

func (x *tab) fill(name string) {
	x.t.Helper()
	x.do(chromedp.Clear(chromedp.CSS("#username")), chromedp.SendKeys(chromedp.CSS("#username"), name), chromedp.SendKeys(chromedp.CSS("#password"), name))
}

func (x *tab) click(selector string) {
	x.t.Helper()
	x.do(chromedp.Click(chromedp.CSS(selector), chromedp.NodeVisible))
}

func (x *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(x.ctx, arriveWithin)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		x.t.Fatalf("%v\n%s", err, x.text())
	}
}

// run lets the page run a script, as if a person had just clicked on something.
func (x *tab) run(script string) {
	x.t.Helper()
	if _, err := chromedp.Run(x.ctx, chromedp.Evaluate[chromedp.Void](script, asPerson)); err != nil {
		x.t.Fatalf("%s: %v", script, err)
	}
}

func awaited(p *runtime.EvaluateParams) { p.AwaitPromise = new(true) }

func asPerson(p *runtime.EvaluateParams) { p.UserGesture = new(true) }

// text is what the page shows, in one line.
func (x *tab) text() string {
	text, err := chromedp.Run(x.ctx, chromedp.Evaluate[string]("document.body.innerText"))
	if err != nil {
		return err.Error()
	}
	return strings.Join(strings.Fields(text), " ")
}

// shows wants each text on the page.
func (x *tab) shows(texts ...string) {
	x.t.Helper()
	shown := x.text()
	for _, text := range texts {
		if !strings.Contains(shown, text) {
			x.t.Errorf("the page does not say %q:\n%s", text, shown)
		}
	}
}

// look is one way to see a page.
type look struct {
	name, scheme  string
	width, height int64
}

// looks holds the page against a wide screen and a narrow one, on which nothing may stick out at the side, and keeps pictures of it when
// DOORWARD_SCREENSHOTS names a folder.
func (x *tab) looks(name string) {
	x.t.Helper()
	folder := os.Getenv("DOORWARD_SCREENSHOTS")
	for _, l := range []look{{"light", "light", 1000, 700}, {"dark", "dark", 1000, 700}, {"narrow", "light", 390, 700}} {
		media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: l.scheme}}}
		if _, err := chromedp.Call(x.ctx, emulation.SetEmulatedMedia, media); err != nil {
			x.t.Fatal(err)
		}
		x.do(chromedp.EmulateViewport(l.width, l.height))
		width, err := chromedp.Run(x.ctx, chromedp.Evaluate[int64]("document.documentElement.scrollWidth"))
		if err != nil || width > l.width && !x.foreign("") {
			x.t.Errorf("%s is %d pixels wide on a screen of %d (%v)", name, width, l.width, err)
		}
		if folder == "" {
			continue
		}
		picture, err := chromedp.Run(x.ctx, chromedp.FullScreenshot(100))
		if err == nil {
			err = os.WriteFile(filepath.Join(folder, name+"-"+l.name+".png"), picture, 0o600)
		}
		if err != nil {
			x.t.Errorf("keep a picture: %v", err)
		}
	}
	x.do(chromedp.ResetViewport())
}

// scripts turns a page's own scripts on or off.
func (x *tab) scripts(on bool) {
	x.t.Helper()
	if _, err := chromedp.Call(x.ctx, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: !on}); err != nil {
		x.t.Fatal(err)
	}
}
