package upstream

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
)

// maxPage is how long the wiki's page may be.
const maxPage = 4 << 10

// Wiki is a page that everybody who gets here may read and change: who may do which is up to the front door's policy.
//
//	GET /              the page
//	POST /             changes it to the form's text
//	/headers           what arrived, as JSON
type Wiki struct {
	verifier *Verifier
	pages    *pages
	mux      *http.ServeMux

	mu     sync.Mutex
	text   string
	author string
}

// NewWiki returns a wiki with a text.
func NewWiki(s Settings) (*Wiki, error) {
	verifier, err := NewVerifier(s)
	if err != nil {
		return nil, fmt.Errorf("wiki: %w", err)
	}
	pages, err := newPages()
	if err != nil {
		return nil, err
	}
	k := &Wiki{verifier: verifier, pages: pages, mux: http.NewServeMux(), text: "Who may read and who may change this is up to policies/wiki.rego.", author: "the demo"}
	k.mux.HandleFunc("GET /{$}", k.read)
	k.mux.HandleFunc("POST /{$}", k.change)
	k.mux.HandleFunc("/headers", headers)
	return k, nil
}

// ServeHTTP implements http.Handler.
func (k *Wiki) ServeHTTP(w http.ResponseWriter, r *http.Request) { k.mux.ServeHTTP(w, r) }

// article is what the page shows.
type article struct {
	Reader, Text, Author string
}

func (k *Wiki) read(w http.ResponseWriter, r *http.Request) {
	who, err := k.verifier.Identify(r)
	if err != nil {
		k.pages.write(w, http.StatusUnauthorized, "login", err.Error())
		return
	}
	k.mu.Lock()
	shown := article{Reader: displayName(who), Text: k.text, Author: k.author}
	k.mu.Unlock()
	k.pages.write(w, http.StatusOK, "wiki", shown)
}

func (k *Wiki) change(w http.ResponseWriter, r *http.Request) {
	who, err := k.verifier.Identify(r)
	if err != nil {
		k.pages.write(w, http.StatusUnauthorized, "login", err.Error())
		return
	}
	if site := r.Header.Get("Sec-Fetch-Site"); site != "" && site != "same-origin" {
		http.Error(w, "the form came from another site", http.StatusForbidden)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, 4*maxPage)
	text := strings.TrimSpace(r.PostFormValue("text"))
	if text == "" || len(text) > maxPage {
		http.Error(w, fmt.Sprintf("the text must have 1 to %d bytes", maxPage), http.StatusBadRequest)
		return
	}
	k.mu.Lock()
	k.text, k.author = text, displayName(who)
	k.mu.Unlock()
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

// displayName is the best name that there is.
func displayName(who *Identity) string {
	for _, name := range []string{who.Name, who.Email, who.Login} {
		if name != "" {
			return name
		}
	}
	return who.Subject
}
