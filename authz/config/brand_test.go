package config

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/jpeg"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const branded = `brand: {name: "Example Inc.", logo_file: images/logo, support: "mailto:help@example.com"}
routes:
  - name: app
    from: https://app.localhost
    to: http://app:8080
    policy: public
`

// TestBrand holds that the kind of a logo is read from its content, and that the file is watched like any other.
func TestBrand(t *testing.T) {
	var photo bytes.Buffer
	if err := jpeg.Encode(&photo, image.NewGray(image.Rect(0, 0, 2, 2)), nil); err != nil {
		t.Fatal(err)
	}
	checksums := make(map[string]bool)
	for kind, data := range map[string]string{
		"image/png":     picture(t),
		"image/jpeg":    photo.String(),
		"image/svg+xml": "\ufeff <?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<!-- ours --><svg xmlns=\"http://www.w3.org/2000/svg\"><script>alert(1)</script></svg>\n",
	} {
		dir := write(t, map[string]string{"doorward.yaml": branded, "images/logo": data})
		c, err := Load(filepath.Join(dir, "doorward.yaml"))
		if err != nil {
			t.Errorf("%s: %v", kind, err)
			continue
		}
		if want := "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString([]byte(data)); c.Brand.Logo() != want {
			t.Errorf("the logo is %s, want %s", c.Brand.Logo(), want)
		}
		if c.Brand.Name != "Example Inc." || c.Brand.Support != "mailto:help@example.com" {
			t.Errorf("%+v", c.Brand)
		}
		if !slices.Contains(c.Files(), filepath.Join(dir, "images/logo")) {
			t.Errorf("the logo is not among the files that are watched: %v", c.Files())
		}
		checksums[c.Checksum] = true
	}
	if len(checksums) != 3 {
		t.Errorf("%d checksums of 3 logos", len(checksums))
	}
}

func TestSupport(t *testing.T) {
	for _, good := range []string{"mailto:help@example.com", "https://help.example.com/new?queue=it#form"} {
		if err := checkSupport(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{"", "mailto:", "mailto:a@b?bcc=c@d", "mailto:a@b%0abcc", "data:text/html,x", "//help.example.com", "https:help", "https:///x", "https://h\"onclick=x", "https://h/ü", "HTTPS//x"} {
		if checkSupport(bad) == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

// TestNameOfBrand has names of other scripts and emoji.
func TestNameOfBrand(t *testing.T) {
	for _, good := range []string{"Example Inc.", "شركة المثال", "例株式会社", "👩‍🚀 Space & Söhne <3", strings.Repeat("é", 60)} {
		if fault := brandNameFault(good); fault != "" {
			t.Errorf("%q %s", good, fault)
		}
	}
}
