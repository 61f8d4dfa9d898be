package config

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"image/jpeg"
	"image/png"
	"io"
	"net/mail"
	"net/url"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// maxLogo bounds a logo, in bytes: it is part of every page, and a page is part of an answer to Envoy.
	maxLogo = 64 << 10
	// maxBrand bounds the operator's name, in characters.
	maxBrand = 60
)

// Brand is whose pages they are that people see at sign-in and when they are refused. The zero value names nobody.
type Brand struct {
	Name     string `yaml:"name"`      // of the operator, at most 60 characters
	LogoFile string `yaml:"logo_file"` // PNG, JPEG or SVG, at most 64 KiB
	Support  string `yaml:"support"`   // where people find help: mailto:help@example.com, or an https URL

	logo string
}

// Logo is the image as a data URL (RFC 2397), in base64, or "" when there is none.
func (b Brand) Logo() string { return b.logo }

// brand checks the operator's name and support, and reads the logo.
func (c *checker) brand(p place) {
	b := &c.c.Brand
	if p.has("name") {
		if fault := brandNameFault(b.Name); fault != "" {
			c.add(p.key("name"), "%s", fault)
		}
	}
	if p.has("support") {
		if err := checkSupport(b.Support); err != nil {
			c.add(p.key("support"), "%s", err)
		}
	}
	if !p.has("logo_file") {
		return
	}
	if b.LogoFile == "" {
		c.add(p.key("logo_file"), "is empty; name an image, or remove it")
		return
	}
	data, err := c.files.file(b.LogoFile)
	if err == nil {
		b.logo, err = dataURL(b.LogoFile, data)
	}
	if err != nil {
		c.add(p.key("logo_file"), "%s", err)
	}
}

// brandNameFault says why a text cannot be shown as a name, or "".
func brandNameFault(name string) string {
	hidden := func(r rune) bool {
		return unicode.IsControl(r) || r == '\u2028' || r == '\u2029' || unicode.Is(unicode.Bidi_Control, r)
	}
	switch n := utf8.RuneCountInString(name); {
	case strings.TrimSpace(name) == "":
		return "is empty; write the name that people know you by, or remove it"
	case n > maxBrand:
		return fmt.Sprintf("has %d characters; at most %d are shown", n, maxBrand)
	case strings.ContainsFunc(name, hidden):
		return fmt.Sprintf("%q has characters that control how text is shown; remove them", shorten(name))
	}
	return ""
}

// checkSupport checks a link that people follow for help. Other schemes could run a program, or leave the page's own origin unprotected.
func checkSupport(s string) error {
	if address, ok := strings.CutPrefix(s, "mailto:"); ok {
		if parsed, err := mail.ParseAddress(address); err != nil || parsed.Address != address || !printable(address) || strings.ContainsAny(address, "?&%") {
			return fmt.Errorf("%q is not an address of mail; write it as mailto:help@example.com", shorten(s))
		}
		return nil
	}
	u, err := url.Parse(s)
	if err == nil {
		err = checkHostPort(strings.ToLower(u.Host))
	}
	switch {
	case err != nil || u.Scheme != "https" || !printable(s):
		return fmt.Errorf("%q is neither an https URL nor mailto: with an address; write it as https://help.example.com or mailto:help@example.com", shorten(s))
	case u.User != nil:
		return errors.New("the URL has a user name or password; remove it")
	}
	return nil
}

// dataURL makes an image a part of a page. What kind it is is read from its content: neither its name nor a browser's guess decides.
func dataURL(path string, data []byte) (string, error) {
	if len(data) > maxLogo {
		return "", fmt.Errorf("%s has %d bytes; a logo is part of every page and has %d at most", path, len(data), maxLogo)
	}
	kind, err := imageType(data)
	if err != nil {
		return "", fmt.Errorf("%s %w", path, err)
	}
	return "data:" + kind + ";base64," + base64.StdEncoding.EncodeToString(data), nil
}

// imageType returns the media type of an image.
func imageType(data []byte) (string, error) {
	switch {
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		if _, err := png.DecodeConfig(bytes.NewReader(data)); err != nil {
			return "", fmt.Errorf("is a broken PNG (%w); export it again", err)
		}
		return "image/png", nil
	case bytes.HasPrefix(data, []byte("\xff\xd8\xff")):
		if _, err := jpeg.DecodeConfig(bytes.NewReader(data)); err != nil {
			return "", fmt.Errorf("is a broken JPEG (%w); export it again", err)
		}
		return "image/jpeg", nil
	case bytes.HasPrefix(bytes.TrimLeft(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")), " \t\r\n"), []byte("<")):
		return "image/svg+xml", checkSVG(data)
	}
	return "", errors.New("is no image that is understood; it must be a PNG, a JPEG or an SVG")
}

// checkSVG wants a document that a browser shows: well-formed, and svg in its namespace at the root (SVG 2, section 5.1). What a script in
// it would do is not looked for, because nothing runs in a picture of an img element, and it loads nothing (SVG 2, section 2.2.2, secure
// static mode). A document type is refused, since entities can make a small file a large one.
func checkSVG(data []byte) error {
	d := xml.NewDecoder(bytes.NewReader(data))
	d.CharsetReader = func(charset string, _ io.Reader) (io.Reader, error) {
		return nil, fmt.Errorf("the encoding %q; save it as UTF-8", shorten(charset))
	}
	for root := true; ; {
		switch t, err := d.Token(); t := t.(type) {
		case nil:
			if errors.Is(err, io.EOF) && !root {
				return nil
			}
			return fmt.Errorf("is a broken SVG (%w); export it again", err)
		case xml.Directive:
			return errors.New("has a document type; remove the line that begins with <!DOCTYPE, a browser needs none")
		case xml.StartElement:
			if root && (t.Name != xml.Name{Space: "http://www.w3.org/2000/svg", Local: "svg"}) {
				return fmt.Errorf("begins with the element %q; an SVG begins with svg and xmlns=%q", shorten(t.Name.Local), "http://www.w3.org/2000/svg")
			}
			root = false
		}
	}
}
