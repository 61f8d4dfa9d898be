package token

import (
	"crypto/sha256"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// ServeHTTP serves the JWKS to GET and HEAD, with a max-age and an ETag (RFC 9110, section 8.8.3). It comes from memory, so nothing can go
// wrong here but the method, and 405 has no JSON body: there are consumers that do not look at the status and take a JSON error for an
// empty key set, which they keep.
func (r *Ring) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		h.Set("Allow", "GET, HEAD")
		http.Error(w, "Only GET and HEAD are served here.", http.StatusMethodNotAllowed)
		return
	}
	s := r.at(r.config.Now())
	h.Set("Cache-Control", "public, max-age="+strconv.Itoa(int(r.config.maxAge()/time.Second)))
	h.Set("ETag", s.etag)
	if matches(req.Header.Values("If-None-Match"), s.etag) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(s.jwks)))
	if req.Method == http.MethodGet {
		_, _ = w.Write(s.jwks) // a client that went away is no concern of ours
	}
}

// etag names a body.
func etag(body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + encode(sum[:12]) + `"`
}

// matches says whether the client has what the tag names (RFC 9110, section 13.1.2: a weak comparison).
func matches(lines []string, tag string) bool {
	for _, line := range lines {
		for held := range strings.SplitSeq(line, ",") {
			held = strings.TrimSpace(held)
			if held == "*" || strings.TrimPrefix(held, "W/") == tag {
				return true
			}
		}
	}
	return false
}
