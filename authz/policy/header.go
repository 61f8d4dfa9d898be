package policy

import (
	"errors"
	"fmt"
	"strings"
)

// checkHeader says why a header cannot be sent as it is (RFC 9110, sections 5.1 and 5.5; control characters are refused altogether).
func checkHeader(name, value string) error {
	if !isToken(name) {
		return errors.New("is not a header's name")
	}
	for i := range len(value) {
		if c := value[i]; c < 0x20 || c == 0x7f {
			return fmt.Errorf("the value holds the control character %#02x", c)
		}
	}
	return nil
}

// framing are the headers that say how a message is delimited and what one hop agrees with the next (RFC 9110, section 7.6.1). They
// are Envoy's.
var framing = map[string]bool{
	"connection":          true,
	"content-length":      true,
	"expect":              true,
	"http2-settings":      true,
	"keep-alive":          true,
	"proxy-authenticate":  true,
	"proxy-authorization": true,
	"proxy-connection":    true,
	"te":                  true,
	"trailer":             true,
	"transfer-encoding":   true,
	"upgrade":             true,
}

// checkRequestHeader refuses what would change where the request goes, how it is delimited, or who the upstream takes it to be from.
func checkRequestHeader(name, _ string) error {
	switch plain := strings.ReplaceAll(name, "_", "-"); {
	case plain == "host":
		return errors.New("is the route's to set (host_rewrite, preserve_host_header)")
	case plain == "cookie":
		return errors.New("cannot be set: the client's cookies are passed on without ours")
	default:
		return checkReserved(plain)
	}
}

// sessionCookies begin with this, in lower case.
const sessionCookies = "__host-doorward"

// checkResponseHeader refuses framing, and cookies that browsers or Doorward could take for a session's. A nameless cookie is sent back
// as its value alone, so the whole header is searched and not only its name.
func checkResponseHeader(name, value string) error {
	plain := strings.ReplaceAll(name, "_", "-")
	if plain == "set-cookie" && strings.Contains(strings.ToLower(value), sessionCookies) {
		return errors.New("cannot set a cookie of Doorward's")
	}
	return checkReserved(plain)
}

func checkReserved(name string) error {
	switch {
	case framing[name]:
		return errors.New("belongs to the connection and is Envoy's to set")
	case strings.HasPrefix(name, "x-envoy-"), strings.HasPrefix(name, "x-doorward-"):
		return errors.New("belongs to the proxy and cannot be set by a policy")
	}
	return nil
}

// isToken is RFC 9110, section 5.6.2, without upper-case letters.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0 {
			continue
		}
		return false
	}
	return s != ""
}
