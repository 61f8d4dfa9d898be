package main

import (
	"strings"
	"testing"
)

// TestBrandFollowsItsFiles holds that the pages of both halves, the one that decides and the one that signs in, have the operator's name and
// logo, and follow the configuration and the image without a restart.
func TestBrandFollowsItsFiles(t *testing.T) {
	s := prepareStack(t, "")
	logo := `<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h1v1z"/><!--` + strings.Repeat("x", 65_000) + `--></svg>` // about the largest that there may be
	s.write("logo.svg", logo)
	s.writeConfig(twoHosts + "brand: {name: Example Inc., logo_file: logo.svg, support: \"mailto:help@example.com\"}\n")
	s.start()
	b := s.browser()
	denied := b.signIn(s.url("grafana", "/"), "mallory")
	user := b.get(s.url("grafana", "/.pomerium/"))
	for name, page := range map[string]answer{"denied": denied, "user": user} {
		if !strings.Contains(page.text, "Example Inc.") || strings.Count(page.text, `src="data:image/svg+xml;base64,`) != 1 ||
			!strings.Contains(page.Header.Get("Content-Security-Policy"), "img-src data:;") {
			t.Errorf("%s: status %d without the brand: %s", name, page.StatusCode, page.text)
		}
	}
	if denied.StatusCode != 403 || !strings.Contains(denied.text, `<a href="mailto:help@example.com">`) {
		t.Errorf("status %d: %s", denied.StatusCode, denied.text)
	}
	s.write("logo.svg", strings.Replace(logo, "M0", "M9", 1))
	s.served()
	if now := b.get(s.url("grafana", "/")); now.StatusCode != 403 || !strings.Contains(now.text, `src="data:image/svg+xml;base64,`) || now.text == denied.text ||
		strings.Contains(now.text, image(denied.text)) {
		t.Errorf("the logo is still the old one: %s", now.text)
	}
	s.write("logo.svg", "<html></html>")
	if out, err := s.check(); err == nil || !strings.Contains(out, `brand.logo_file: `+s.dir+`/logo.svg begins with the element "html"`) {
		t.Errorf("a file that is no logo: %v\n%s", err, out)
	}
	s.writeConfig(twoHosts)
	s.served()
	if now := b.get(s.url("grafana", "/")); now.StatusCode != 403 || strings.Contains(now.text, "<img") || strings.Contains(now.text, "Example Inc.") {
		t.Errorf("the brand is still there: %s", now.text)
	}
}

// image is the address of a page's only image.
func image(text string) string {
	_, after, _ := strings.Cut(text, `src="`)
	address, _, _ := strings.Cut(after, `"`)
	return address
}
