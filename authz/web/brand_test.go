package web

import (
	"encoding/base64"
	"strings"
	"testing"
)

// vector is a logo that tries everything that an SVG can try.
const vector = `<?xml-stylesheet href="http://127.0.0.1:1/s.css"?><svg xmlns="http://www.w3.org/2000/svg" xmlns:x="http://www.w3.org/1999/xlink" viewBox="0 0 32 32" onload="document.title='run'">
<script>document.title = "run"; parent.document.title = "run"; top.location = "http://127.0.0.1:1/"</script>
<style>@import url("http://127.0.0.1:1/i.css")</style>
<rect width="32" height="32" rx="7" fill="#0b6e4f"/><path d="M9 21l7-11 7 11z" fill="#fff"/>
<image x:href="http://127.0.0.1:1/p.png" width="1" height="1"/><use href="http://127.0.0.1:1/u.svg#a"/>
<foreignObject width="1" height="1"><iframe xmlns="http://www.w3.org/1999/xhtml" src="http://127.0.0.1:1/f"></iframe></foreignObject>
</svg>`

var example = Brand{
	Name: "Example & Söhne Inc.", Support: "mailto:help@example.com",
	Logo: "data:image/svg+xml;base64," + base64.StdEncoding.EncodeToString([]byte(vector)),
}

func brandedPages(t testing.TB, b Brand) *Pages {
	t.Helper()
	p, err := New(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestBrandText(t *testing.T) {
	p := brandedPages(t, example)
	for name, c := range map[string]struct {
		page Page
		want string
	}{
		"denied": {p.Denied(Denied{Host: host, Person: alice, DecisionID: decision, SignOutURL: "/x"}), `
Access denied – grafana.example.com
Example & Söhne Inc. grafana.example.com
Access denied
You are signed in as Alice Example alice@example.com, and this account may not open this page.
If you should have access, ask whoever runs this site, and give them the decision id below. If you have another account, sign out first.
Sign out
Decision id ` + decision},
		"error": {p.Error(Error{host, 503, "Sign-in is not available", "It does not answer.", "Try again in a minute.", decision, "/retry"}), `
Sign-in is not available – grafana.example.com
Example & Söhne Inc. grafana.example.com
Sign-in is not available
It does not answer.
Try again in a minute.
If that does not help, ask whoever runs this site, and give them the request id below.
Try again
Status 503 Request id ` + decision},
		"error with the least": {p.Error(Error{Status: 421, Title: "Wrong host", Message: "This connection was made for another host."}), `
Wrong host
Example & Söhne Inc.
Wrong host
This connection was made for another host.
If that does not help, ask whoever runs this site.
Status 421`},
	} {
		if got := text(c.page); got != strings.TrimSpace(c.want) {
			t.Errorf("%s:\n%s\nwant%s", name, got, c.want)
		}
		if link := `<a href="mailto:help@example.com">whoever runs this site</a>`; !strings.Contains(string(c.page.Body), link) {
			t.Errorf("%s has no %s", name, link)
		}
	}
}

// TestBrandAlone holds that a branded page still asks for nothing from outside: its policy has images of the page itself and no others.
func TestBrandAlone(t *testing.T) {
	for name, page := range all(brandedPages(t, example), func(field string) string { return field }) {
		body := string(page.Body)
		image := `<img class="logo" src="` + example.Logo + `" alt="">`
		if strings.Count(body, "<img") != 1 || !strings.Contains(body, image) {
			t.Errorf("%s has no logo, or another image", name)
		}
		rest := strings.Replace(body, image, "", 1)
		for _, forbidden := range []string{" src=", "url(", "http://", "https://", "<link", "<svg"} {
			if strings.Contains(rest, forbidden) {
				t.Errorf("%s has %q", name, forbidden)
			}
		}
		if policy := page.Header["Content-Security-Policy"]; !strings.HasPrefix(policy, "default-src 'none'; style-src 'sha256-") ||
			strings.Count(policy, "img-src") != 1 || !strings.Contains(policy, "; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'") {
			t.Errorf("%s has the policy %s", name, policy)
		}
	}
}

// TestBrandHostile holds that what the operator wrote is text, too, and that a logo is nothing but one.
func TestBrandHostile(t *testing.T) {
	page := brandedPages(t, Brand{Name: `<script>"'`, Support: `javascript:alert(1)`}).Denied(Denied{Host: host})
	if body := string(page.Body); strings.Contains(body, "<script") || strings.Contains(body, "javascript:") {
		t.Error(body)
	}
	for _, logo := range []string{
		"https://example.com/logo.png", "data:text/html;base64,YQ==", `data:image/png;base64,YQ=="><script>`, "data:image/svg+xml,<svg>", "data:image/png;base64,YQ==\n", "data:image/png;base64,",
	} {
		if _, err := New(Brand{Logo: logo}); err == nil {
			t.Errorf("%q was taken", logo)
		}
	}
}

// TestAdopt holds that another brand takes the place of one without a new Pages.
func TestAdopt(t *testing.T) {
	p := pages(t)
	p.Adopt(brandedPages(t, example))
	page := p.SignedOut(SignedOut{Host: host})
	if body := string(page.Body); !strings.Contains(body, "Example &amp; Söhne Inc.") || !strings.Contains(body, example.Logo) ||
		!strings.Contains(page.Header["Content-Security-Policy"], "img-src data:") {
		t.Error(body)
	}
	p.Adopt(pages(t))
	if body := string(p.SignedOut(SignedOut{Host: host}).Body); strings.Contains(body, "<img") || strings.Contains(body, "Example") {
		t.Error(body)
	}
}
