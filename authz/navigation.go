package authz

import "strings"

// navigation says whether a person's browser is opening a page, so that a redirect to sign-in leads somewhere. Browsers say so in
// Sec-Fetch-Mode and Sec-Fetch-Dest (W3C Fetch Metadata); without those it is a safe method whose Accept prefers HTML.
func (r *request) navigation() bool {
	if r.method != "GET" && r.method != "HEAD" {
		return false
	}
	mode, hasMode := r.first("sec-fetch-mode")
	dest, hasDest := r.first("sec-fetch-dest")
	if hasMode || hasDest {
		return mode == "navigate" && dest == "document" && !r.prefetch()
	}
	accept, _ := r.first("accept")
	return prefersHTML(accept)
}

// frame says whether the answer will be shown in a frame or kept for later, where a page helps and a redirect does not.
func (r *request) frame() bool {
	if mode, _ := r.first("sec-fetch-mode"); mode != "navigate" || r.method == methodConnect {
		return false
	}
	return !r.navigation()
}

// grpc says whether the request is a call of gRPC, as Envoy tells one (gRPC over HTTP2, "Content-Type"). gRPC-Web is none: its answers are HTTP's.
func (r *request) grpc() bool {
	kind, _ := r.first("content-type")
	return kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+")
}

// prefetch says that the browser only prepares a navigation (Sec-Purpose, HTML Standard, speculative loading).
func (r *request) prefetch() bool {
	purpose, ok := r.first("sec-purpose")
	return ok && strings.HasPrefix(purpose, "prefetch")
}

// prefersHTML says whether the first media type that names HTML or JSON is HTML. Quality values are not weighed: browsers list HTML
// first, and clients of an API either leave it out or list it behind.
func prefersHTML(accept string) bool {
	for part := range strings.SplitSeq(accept, ",") {
		media, _, _ := strings.Cut(part, ";")
		switch media = lower(strings.TrimSpace(media)); {
		case media == "text/html" || media == "application/xhtml+xml":
			return true
		case strings.HasSuffix(media, "json"):
			return false
		}
	}
	return false
}
