package main

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"doorward/cmd/internal/markdown"
)

// step is a command of a walk-through of the README, and what it prints; "" for one that is not run: it says where the others run, or starts an
// application that the test has started.
type step struct{ line, want string }

// walkthroughCommands are those of the README's first walk-through, in its order. ID is the denied page's.
var walkthroughCommands = []step{
	{`cd .tools/demo`, ``},
	{`export PATH="$PWD/../bin:$PATH"`, ``},
	{`doorward policy test policies`, `^3 tests: 3 passed, 0 failed`},
	{`doorward check --wait doorward.yaml`, `(?m)^doorward.yaml: good and served, 3 routes on 3 hosts, `},
	{`doorward explain ID`, `(?s)bob@example.com.*deny.*Only admins may change the wiki. Ask Alice to become one.*policies/wiki.rego:\d+`},
}

// pushCommands are those of the second.
var pushCommands = []step{
	{`cd .tools/demo`, ``},
	{`export PATH="$PWD/../bin:$PATH"`, ``},
	{`python3 -m http.server 9000 --bind 127.0.0.1 --directory policies`, ``},
	{`doorward check --wait doorward.yaml`, `(?m)^doorward.yaml: good and served, `},
	{`doorward route apply -f notes.yaml`, `(?s)^--- route notes.*\+policy: notes\ncreate notes\nenvoy edge: acknowledged after \d+ms\n$`},
	{`curl --unix-socket data/control.sock http://doorward/v1/routes/notes`, `"name":"notes".*"status":"served"`},
}

// readmePush does what the section "Push a second application" of the README says, with its files and its commands.
func readmePush(t *testing.T, b *browser) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "<!doctype html><html lang=en><title>Notes</title><main>The notes of engineering.</main>")
	}))
	t.Cleanup(app.Close)
	w := &walk{t: t, demo: b.demo, steps: pushCommands, replace: strings.NewReplacer("8443", fmt.Sprint(b.demo.port), "127.0.0.1:9000", app.Listener.Addr().String())}
	for _, block := range markdown.Blocks(markdown.Section(string(text), "Push a second application")) {
		w.block(block)
	}
	if w.done != len(w.steps) {
		t.Errorf("the README has %d commands, want %d", w.done, len(w.steps))
	}
	b = startBrowser(t.Context(), t, findChromium(t), b.demo, "notes")
	x := b.person(t)
	x.open(b.demo.url("notes", "/"))
	x.signIn("alice")
	x.arrive(b.demo.url("notes", "/"))
	x.shows("The notes of engineering.")
	y := b.person(t)
	y.open(b.demo.url("notes", "/"))
	y.signIn("bob")
	y.do(chromedp.WaitVisible(chromedp.CSS("footer code")))
	y.shows("Access denied")
	y.looks("pushed-denied")
}

// readmeWalkthrough does what the section "Viewers read, admins write" of the README says, with its files and its commands.
func readmeWalkthrough(t *testing.T, b *browser) {
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{t: t, demo: b.demo, steps: walkthroughCommands, replace: strings.NewReplacer()}
	for _, block := range markdown.Blocks(markdown.Section(string(text), "Viewers read, admins write")) {
		if strings.HasPrefix(block, "doorward explain") {
			w.id = viewerMayOnlyRead(t, b)
		}
		w.block(block)
	}
	if w.done != len(w.steps) {
		t.Errorf("the README has %d commands, want %d", w.done, len(w.steps))
	}
	adminMayWrite(t, b)
}

// walk is how far a walk-through has come.
type walk struct {
	t    *testing.T
	demo *running
	done int    // commands
	id   string // of the decision

	steps   []step
	replace *strings.Replacer // of what is this test's own in the files that the README shows
}

// block writes a file that the README shows, or runs its commands in the demo's directory.
func (w *walk) block(block string) {
	w.t.Helper()
	file := ""
	switch name, _, _ := strings.Cut(block, "\n"); {
	case strings.HasPrefix(name, "package "):
		file = "policies/" + strings.TrimPrefix(name, "package ") + ".rego"
	case name == "routes:":
		file = "notes.yaml"
	}
	if file != "" {
		if err := os.WriteFile(w.demo.path(file), []byte(w.replace.Replace(block)), 0o600); err != nil {
			w.t.Fatal(err)
		}
		return
	}
	for line := range strings.Lines(block) {
		w.command(strings.TrimSpace(line))
	}
}

func (w *walk) command(line string) {
	w.t.Helper()
	if w.done == len(w.steps) || w.steps[w.done].line != line {
		w.t.Fatalf("no test holds what the README's command %q does at this place", line)
	}
	want := w.steps[w.done].want
	w.done++
	if want == "" {
		return // where the commands below run and what they find
	}
	cmd := exec.CommandContext(w.t.Context(), "sh", "-c", strings.Replace(line, "ID", w.id, 1))
	cmd.Dir = w.demo.dir
	cmd.Env = append(os.Environ(), "PATH="+w.demo.bin+string(os.PathListSeparator)+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	if err != nil || !regexp.MustCompile(want).Match(out) {
		w.t.Fatalf("%s prints\n%s\nwant %s\n%v", line, out, want, err)
	}
}

// viewerMayOnlyRead signs in as a viewer, who may read and not change anything, and returns the id of the decision on the denied page.
func viewerMayOnlyRead(t *testing.T, b *browser) string {
	x := b.person(t)
	x.open(b.demo.url("wiki", "/"))
	x.signIn("bob")
	x.arrive(b.demo.url("wiki", "/"))
	x.shows("Wiki (demo) Bob Brown", "Notes")
	b.demo.requests(t)
	x.click("button")
	x.do(chromedp.WaitVisible(chromedp.CSS("footer code")))
	x.shows("Access denied", "You are signed in as Bob Brown bob@example.com", "Only admins may change the wiki. Ask Alice to become one.",
		"ask whoever runs this site, and give them the decision id below", "sign out first", "Decision id ")
	x.looks("walkthrough-denied")
	id, err := chromedp.Run(x.ctx, chromedp.Evaluate[string](`document.querySelector("footer code").innerText`))
	if err != nil || id == "" {
		t.Fatalf("the page shows the decision id %q, %v", id, err)
	}
	if status, body := x.sends("DELETE", "/headers"); status != 403 || !strings.Contains(body, `"message":"Only admins may change the wiki. Ask Alice to become one."`) {
		t.Errorf("DELETE by a viewer gets %d %s", status, body)
	}
	for _, r := range b.demo.requests(t) {
		if r.Method != "GET" {
			t.Errorf("the wiki got %s %s of a viewer", r.Method, r.Path)
		}
	}
	return id
}

func adminMayWrite(t *testing.T, b *browser) {
	x := b.person(t)
	x.open(b.demo.url("wiki", "/"))
	x.signIn("alice")
	x.arrive(b.demo.url("wiki", "/"))
	x.do(chromedp.Clear(chromedp.CSS("#new")), chromedp.SendKeys(chromedp.CSS("#new"), "Written by an admin."))
	x.click("button")
	for begun := time.Now(); !strings.Contains(x.text(), "Last changed by Alice Adams") && time.Since(begun) < arriveWithin; {
		time.Sleep(20 * time.Millisecond)
	}
	x.shows("Written by an admin.", "Last changed by Alice Adams")
	if status, _ := x.sends("DELETE", "/headers"); status != 200 {
		t.Errorf("DELETE by an admin gets %d", status)
	}
}

// sends asks the wiki as a script of its own would, and returns status and body. The page that it asks from allows scripts to.
func (x *tab) sends(method, path string) (status int, body string) {
	x.t.Helper()
	x.visit(x.demo.url("wiki", "/headers"))
	script := fmt.Sprintf(`fetch(%q, {method: %q}).then(async r => ({Status: r.status, Body: await r.text()}))`, path, method)
	type answer struct {
		Status int
		Body   string
	}
	got, err := chromedp.Run(x.ctx, chromedp.Evaluate[answer](script, awaited))
	if err != nil {
		x.t.Fatalf("%s %s: %v", method, path, err)
	}
	return got.Status, got.Body
}
