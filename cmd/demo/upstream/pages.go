package upstream

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
)

//go:embed pages.html
var pagesSource string

// pages are the applications' HTML.
type pages struct{ set *template.Template }

func newPages() (*pages, error) {
	set, err := template.New("pages").Parse(pagesSource)
	if err != nil {
		return nil, fmt.Errorf("upstream: pages: %w", err)
	}
	return &pages{set}, nil
}

// write renders one page. Pages load nothing from anywhere.
func (p *pages) write(w http.ResponseWriter, status int, name string, data any) {
	var body bytes.Buffer
	if err := p.set.ExecuteTemplate(&body, name, data); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(body.Bytes())
}
