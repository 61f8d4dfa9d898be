package xds

import (
	"fmt"
	"time"

	"doorward/authz/config"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
)

// strictTransport is the Strict-Transport-Security header (RFC 6797, section 6.1), in the place of the upstream's; none for nil.
func strictTransport(h *config.HSTS) []*corev3.HeaderValueOption {
	if h == nil {
		return nil
	}
	value := fmt.Sprintf("max-age=%d", int(time.Duration(h.MaxAge).Seconds()))
	if h.IncludeSubdomains {
		value += "; includeSubDomains"
	}
	if h.Preload {
		value += "; preload"
	}
	return []*corev3.HeaderValueOption{setHeader("strict-transport-security", value)}
}

// agreedHSTS is what all routes of the host say, for the answers that no route gives: Doorward's own pages and those of Envoy. Browsers keep one
// value for a host; where the routes differ, the others stay silent.
func (s site) agreedHSTS() *config.HSTS {
	var agreed *config.HSTS
	for i, r := range s.routes {
		if r.HSTS == nil || i > 0 && *r.HSTS != *agreed {
			return nil
		}
		agreed = r.HSTS
	}
	return agreed
}
