package admin

import (
	"context"
	"errors"
	"mime"
	"net/http"
)

var errNoType = errors.New("a request that may change something has the Content-Type application/json or application/yaml, also without a body")

// Routed serves one request that came through the edge by a route to the API, on whose behalf it was let through: name is for logs, origin the route's.
// What may change something is done only for pages of that origin, and for programs, and never by a form (Fetch Standard, section 2.2.2, on
// simple requests).
func Routed(w http.ResponseWriter, r *http.Request, api http.Handler, name, origin string) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch r.Method {
	case http.MethodGet, http.MethodHead:
	default:
		if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" && kind != "application/yaml" {
			WriteRefusal(w, http.StatusUnsupportedMediaType, errNoType)
			return
		}
	}
	sameOrigin(api, origin).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, name)))
}
