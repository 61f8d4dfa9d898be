package config

import (
	"fmt"
	"strconv"
	"strings"
)

// pathFault says why a path would never match, or "". Envoy normalises the path of a request before it matches (RFC 3986, section 6.2.2,
// and what Envoy 1.40 was seen to do on top); a path in the configuration is compared as it stands, so it must be written as it comes out.
func pathFault(s, escapedSlashes string) string {
	switch {
	case !strings.HasPrefix(s, "/"):
		return fmt.Sprintf(`%q must start with "/"`, shorten(s))
	case len(s) > maxPath:
		return fmt.Sprintf("has %d bytes; at most %d are possible", len(s), maxPath)
	case strings.ContainsAny(s, "?#"):
		return fmt.Sprintf("%q has a query or a fragment, but a route matches the path alone; remove it", s)
	case strings.Contains(s, ";"):
		return fmt.Sprintf(`%q has a ";", but path parameters are ignored in matching; remove it`, s)
	case strings.Contains(s, "//"):
		return fmt.Sprintf(`%q has "//", but Envoy merges slashes before it matches; write one slash`, s)
	case strings.Contains(s, `\`):
		return fmt.Sprintf(`%q has a "\", but Envoy makes it a slash before it matches; write "/"`, s)
	}
	for segment := range strings.SplitSeq(s, "/") {
		if segment == "." || segment == ".." {
			return fmt.Sprintf("%q has a segment %q, but Envoy resolves it before it matches; write the path that it leads to", s, segment)
		}
	}
	if escaped := escapePath(s); escaped != s {
		return fmt.Sprintf("%q has characters that Envoy has percent-encoded when it matches; write %q", s, escaped)
	}
	for i := range len(s) {
		if s[i] == '%' {
			if fault := escapeFault(s[i:], escapedSlashes); fault != "" {
				return fmt.Sprintf("%q has %s", s, fault)
			}
		}
	}
	return ""
}

// twoSpellings says why a path would match in only one of the ways in which clients write it, or "". Envoy decodes only unreserved
// characters before it matches (RFC 3986, section 6.2.2.2), while many applications decode all: with "/@admin" in one route and "/" in another,
// "/%40admin" would be decided by the other's policy and served as the first.
func twoSpellings(s string) string {
	for i := range len(s) {
		if !unreserved(s[i]) && s[i] != '/' {
			return fmt.Sprintf("%q has %q: clients may write it in another way (percent-encoded, or with other letters in the code) that would not match; "+
				"use regex and match every spelling", s, s[i:i+1])
		}
	}
	return ""
}

// escapePath percent-encodes what cannot stand in a path as it is.
func escapePath(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if pathByte(s[i]) || s[i] == '%' {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// escapeFault says why the percent-encoding at the beginning of rest never stands in a normalised path, or "".
func escapeFault(rest, escapedSlashes string) string {
	if len(rest) < 3 {
		return `a "%" without two hexadecimal digits; write %25 for the character itself`
	}
	code := rest[:3]
	n, err := strconv.ParseUint(rest[1:3], 16, 8)
	switch b := byte(n); {
	case err != nil:
		return `a "%" without two hexadecimal digits; write %25 for the character itself`
	case b == 0:
		return code + ", but Envoy refuses a path with a NUL; remove it"
	case (b == '/' || b == '\\') && escapedSlashes != "keep":
		return code + ", but a path with an escaped slash is refused; set escaped_slashes: keep, or write a slash"
	case unreserved(b):
		return fmt.Sprintf("%s, but Envoy decodes it before it matches; write %q", code, string(rune(b)))
	}
	return ""
}

// unreserved characters mean the same with and without percent-encoding (RFC 3986, section 2.3).
func unreserved(b byte) bool {
	return 'a' <= b && b <= 'z' || 'A' <= b && b <= 'Z' || '0' <= b && b <= '9' || strings.IndexByte("-._~", b) >= 0
}

// pathByte says whether a character stands in a path as it is (pchar and "/", RFC 3986, section 3.3).
func pathByte(b byte) bool {
	return unreserved(b) || strings.IndexByte("/!$&'()*+,=:@;", b) >= 0
}

// plainPath says why s cannot be a path that is written into a request or a Location, or "".
func plainPath(s string) string {
	if !strings.HasPrefix(s, "/") || strings.HasPrefix(s, "//") {
		return fmt.Sprintf("%q must start with one %q", shorten(s), "/")
	}
	for i := range len(s) {
		if !pathByte(s[i]) && s[i] != '%' {
			return fmt.Sprintf("%q has %q, which cannot stand in a path; write it percent-encoded", shorten(s), s[i:i+1])
		}
	}
	return ""
}

// printable says whether s is ASCII without spaces and control characters.
func printable(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
