package web

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"html"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

const (
	host     = "grafana.example.com"
	decision = "5f2b8a4e-7c1d-4f7b-9a53-0a6f4f0e2c11"
)

var (
	alice   = Person{Name: "Alice Example", Email: "alice@example.com", Groups: []string{"engineering", "grafana-admins"}}
	created = time.Date(2026, 3, 4, 10, 5, 0, 0, time.FixedZone("", 3600))
)

func pages(t testing.TB) *Pages {
	t.Helper()
	p, err := New(Brand{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// all renders every page with every field set to what s makes of its name.
func all(p *Pages, s func(field string) string) map[string]Page {
	person := Person{Name: s("name"), Email: s("email"), Groups: []string{s("group")}}
	return map[string]Page{
		"denied":     p.Denied(Denied{s("host"), person, []string{s("reason")}, s("decision"), s("url")}),
		"user":       p.User(User{s("host"), person, s("subject"), s("session"), created, created, s("url"), []Session{{s("other"), s("agent"), created}}, s("end")}),
		"signed_out": p.SignedOut(SignedOut{s("host"), s("url")}),
		"sign_out":   p.SignOut(SignOut{s("host"), s("url")}),
		"choose":     p.Choose(Choose{s("host"), []Provider{{s("label"), s("url")}}}),
		"continue":   p.Continue(Continue{s("host"), s("title"), s("message"), s("url")}),
		"program":    p.Program(Program{s("host"), s("account"), s("action"), s("url"), s("redirect"), s("challenge"), s("state"), s("hash")}),
		"sign_in":    p.SignIn(SignIn{s("host"), s("return"), 800, s("url"), s("keep")}),
		"return":     p.Return(Return{s("host"), s("url")}),
		"error":      p.Error(Error{s("host"), 503, s("title"), s("message"), s("remedy"), s("request"), s("url")}),
	}
}

// text is what a page says, without its markup and with runs of space made one.
func text(p Page) string {
	body := regexp.MustCompile(`(?s)<(style|script)>.*?</(style|script)>`).ReplaceAllString(string(p.Body), "")
	body = regexp.MustCompile(`</?(bdi|strong|span|code|time|a)\b[^>]*>`).ReplaceAllString(body, "")
	body = regexp.MustCompile(`<[^>]*>`).ReplaceAllString(body, "\n")
	return strings.TrimSpace(regexp.MustCompile(`\s*\n\s*`).ReplaceAllString(html.UnescapeString(body), "\n"))
}

func TestText(t *testing.T) {
	p := pages(t)
	for name, c := range map[string]struct {
		page   Page
		status int
		want   string
	}{
		"denied": {p.Denied(Denied{host, alice, []string{"mallory is in no group", "too late"}, decision, "/.pomerium/sign_out"}), 403, `
Access denied – grafana.example.com
grafana.example.com
Access denied
You are signed in as Alice Example alice@example.com, and this account may not open this page.
Reason
mallory is in no group
too late
If you should have access, ask whoever runs this site, and give them the decision id below. If you have another account, sign out first.
Sign out
Decision id ` + decision},
		"denied to nobody, without a reason": {p.Denied(Denied{Host: host, DecisionID: decision, SignOutURL: "/.pomerium/sign_out"}), 403, `
Access denied – grafana.example.com
grafana.example.com
Access denied
This page may not be opened.
If you should have access, ask whoever runs this site, and give them the decision id below.
Decision id ` + decision},
		"user": {p.User(User{host, alice, "b4d6", "84e0c0eafaa95a34", created, created.Add(14 * time.Hour), "/.pomerium/sign_out", nil, "/.pomerium/"}), 200, `
Your session – grafana.example.com
grafana.example.com
You are signed in
Alice Example alice@example.com
Groups
engineering
grafana-admins
Session
Signed in
4 March 2026, 09:05 UTC
Ends at the latest
4 March 2026, 23:05 UTC
Account id
b4d6
Session id
84e0c0eafaa95a34
Sign out`},
		"user without name and groups": {p.User(User{host, Person{}, "b4d6", "84e0c0eafaa95a34", created, created, "/x", []Session{{"0c7d", "Firefox on Linux", created}, {"1d8e", "", created}}, "/.pomerium/"}), 200, `
Your session – grafana.example.com
grafana.example.com
You are signed in
Groups
None
Session
Signed in
4 March 2026, 09:05 UTC
Ends at the latest
4 March 2026, 09:05 UTC
Account id
b4d6
Session id
84e0c0eafaa95a34
Sign out
Your other sessions
Firefox on Linux signed in 4 March 2026, 09:05 UTC
End
Another browser signed in 4 March 2026, 09:05 UTC
End`},
		"signed out": {p.SignedOut(SignedOut{host, "https://grafana.example.com/"}), 200, `
Signed out – grafana.example.com
grafana.example.com
You are signed out
Your session has ended. On a shared computer, close the browser as well.
Sign in again`},
		"sign out": {p.SignOut(SignOut{host, "/.pomerium/sign_out"}), 200, `
Sign out? – grafana.example.com
grafana.example.com
Sign out?
A link asks to end your session. It ends here and on every other host that you use with it.
Sign out`},
		"program": {p.Program(Program{host, "alice@example.com", "/.pomerium/cli", "/.pomerium/sign_out", "http://127.0.0.1:40000/", "c", "s", "84e0"}), 200, `
Let a program connect? – grafana.example.com
grafana.example.com
Let a program connect?
A program on this computer asks to connect to grafana.example.com as alice@example.com. If you have not just started it, close this page.
Let it connect
Sign out`},
		"choose": {p.Choose(Choose{host, []Provider{{"Example Inc.", "/.pomerium/sign_in?provider=main"}, {"Partners", "/.pomerium/sign_in?provider=partners"}}}), 200, `
Sign in – grafana.example.com
grafana.example.com
Sign in
With which account do you want to sign in?
Example Inc.
Partners`},
		"error": {p.Error(Error{host, 503, "Sign-in is not available", "It does not answer.", "Try again in a minute.", decision, "/retry"}), 503, `
Sign-in is not available – grafana.example.com
grafana.example.com
Sign-in is not available
It does not answer.
Try again in a minute.
Try again
Status 503 Request id ` + decision},
		"error without a status": {p.Error(Error{Title: "No answer", Message: "The application did not answer."}), 0, `
No answer
Doorward
No answer
The application did not answer.`},
		"error with the least": {p.Error(Error{Status: 421, Title: "Wrong host", Message: "This connection was made for another host."}), 421, `
Wrong host
Doorward
Wrong host
This connection was made for another host.
Status 421`},
	} {
		if got := text(c.page); got != strings.TrimSpace(c.want) || c.page.Status != c.status {
			t.Errorf("%s: status %d, want %d\n%s\nwant%s", name, c.page.Status, c.status, got, c.want)
		}
	}
}

func TestHeader(t *testing.T) {
	for name, page := range all(pages(t), func(field string) string { return field }) {
		body := string(page.Body)
		script := ""
		if found := element(body, "script"); found != "" {
			script = "; script-src " + hashOf(found)
		}
		if (script != "") != (name == "sign_in" || name == "return") {
			t.Errorf("%s: script %q", name, script)
		}
		want := map[string]string{
			"Content-Type": "text/html; charset=utf-8",
			"Content-Security-Policy": "default-src 'none'; style-src " + hashOf(element(body, "style")) + script +
				"; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
			"Cache-Control":          "no-store",
			"X-Content-Type-Options": "nosniff",
			"Referrer-Policy":        "no-referrer",
		}
		if fmt.Sprint(page.Header) != fmt.Sprint(want) {
			t.Errorf("%s: headers\n%v\nwant\n%v", name, page.Header, want)
		}
		page.Header["Content-Type"] = "spoiled"
	}
	if got := pages(t).SignedOut(SignedOut{}).Header["Content-Type"]; got != "text/html; charset=utf-8" {
		t.Errorf("a caller's change reached another page: %s", got)
	}
}

// element returns the content of the only element of a kind.
func element(body, kind string) string {
	found := regexp.MustCompile(`(?s)<`+kind+`>(.*?)</`+kind+`>`).FindAllStringSubmatch(body, -1)
	if len(found) != 1 {
		return ""
	}
	return found[0][1]
}

func hashOf(content string) string {
	sum := sha256.Sum256([]byte(content))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// TestAlone holds that a page loads nothing and has nothing inline that its policy forbids, and that it has what assistive technology needs.
func TestAlone(t *testing.T) {
	for name, page := range all(pages(t), func(field string) string { return field }) {
		body := string(page.Body)
		for _, forbidden := range []string{"<img", "<link", "<iframe", " src=", " style=", " onclick", "@import", "url(", "http://", "<base"} {
			if strings.Contains(body, forbidden) {
				t.Errorf("%s has %q", name, forbidden)
			}
		}
		for _, once := range []string{"<!doctype html>", `<html lang="en">`, "<title>", "<main", "<h1>", `name="viewport"`, `name="color-scheme"`, `<header>`} {
			if strings.Count(body, once) != 1 {
				t.Errorf("%s has %q %d times, want once", name, once, strings.Count(body, once))
			}
		}
		if strings.Contains(body, "ZgotmplZ") {
			t.Errorf("%s: a value stands where the template does not allow it", name)
		}
	}
}

// TestHostile fills every field with what tries to leave its place.
func TestHostile(t *testing.T) {
	p := pages(t)
	plain := all(p, func(field string) string { return field })
	for _, attack := range []string{
		`<script>alert(1)</script>`, `"><img src=x onerror=alert(1)>`, `' onmouseover='alert(1)`, `</title><script>`, `</style><script>`,
		`</script><script>alert(1)</script>`, `<!--`, `]]>`, `{{.}}`, "\x00", "\u202egnp.exe\u2066", "`${alert(1)}`", `0; url=https://evil.example/`,
		`&lt;script&gt;`, "a\nb\r\nSet-Cookie: x=y", "\xff\xfe", `javascript:alert(1)`, `JaVaScRiPt:alert(1)`, `data:text/html,<script>alert(1)</script>`,
	} {
		for name, page := range all(p, func(string) string { return attack }) {
			body := string(page.Body)
			if got, want := tags(body), tags(string(plain[name].Body)); got != want {
				t.Errorf("%s with %q has the tags\n%s\nwant\n%s", name, attack, got, want)
			}
			if regexp.MustCompile(`(?i)(href|action)="(javascript|data):|url=(javascript|data):`).MatchString(body) {
				t.Errorf("%s with %q has a link that runs", name, attack)
			}
			if !utf8.ValidString(body) {
				t.Errorf("%s with %q is not UTF-8", name, attack)
			}
			if got, want := fmt.Sprint(page.Header), fmt.Sprint(plain[name].Header); got != want {
				t.Errorf("%s with %q has other headers: %s", name, attack, got)
			}
		}
	}
}

// tags lists the elements and the names of their attributes.
func tags(body string) string {
	var b strings.Builder
	for _, tag := range regexp.MustCompile(`<[^>]*>`).FindAllString(body, -1) {
		b.WriteString(regexp.MustCompile(`="[^"]*"`).ReplaceAllString(tag, ""))
	}
	return b.String()
}

func TestIsolated(t *testing.T) {
	page := pages(t).Denied(Denied{Host: host, Person: Person{Name: "\u202eevil", Email: "e"}, Reasons: []string{"\u202er"}})
	for _, want := range []string{"<bdi>\u202eevil</bdi>", "<bdi>\u202er</bdi>", "<bdi>e</bdi>"} {
		if !strings.Contains(string(page.Body), want) {
			t.Errorf("no %q", want)
		}
	}
}

func TestBounded(t *testing.T) {
	long := strings.Repeat("ü", 100_000)
	var groups []string
	for i := range 2000 {
		groups = append(groups, fmt.Sprint("group-", i))
	}
	page := pages(t).User(User{long, Person{long, long, groups}, long, long, created, created, "/", nil, "/"})
	if len(page.Body) > 30_000 {
		t.Errorf("%d bytes", len(page.Body))
	}
	body := text(page)
	if !strings.Contains(body, "group-99\nand 1900 more\n") || strings.Contains(body, "group-100\n") || !strings.Contains(body, strings.Repeat("ü", 500)+"…\n") {
		t.Errorf("got %s", body)
	}
}

// TestKept holds what the script of the sign-in page relies on.
func TestKept(t *testing.T) {
	page := pages(t).SignIn(SignIn{host, `/d/x?a=1&b="2`, 800, "/p/sign_in?continue=1&return=%2Fd", "/p/sign_in?return=%2Fp%2Freturn%3Fattempt%3D"})
	for _, want := range []string{
		`<noscript><meta http-equiv="refresh" content="0; url=/p/sign_in?continue=1&amp;return=%2Fd"></noscript>`,
		`id="continue" href="/p/sign_in?continue=1&amp;return=%2Fd" data-return="/d/x?a=1&amp;b=&#34;2" data-limit="800" data-keep="/p/sign_in?return=%2Fp%2Freturn%3Fattempt%3D"`,
	} {
		if !strings.Contains(string(page.Body), want) {
			t.Errorf("no %s in\n%s", want, page.Body)
		}
	}
}

func BenchmarkDenied(b *testing.B) {
	p := pages(b)
	b.ReportAllocs()
	for b.Loop() {
		p.Denied(Denied{host, alice, []string{"no"}, decision, "/.pomerium/sign_out"})
	}
}
