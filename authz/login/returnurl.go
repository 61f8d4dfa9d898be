package login

import (
	"fmt"
	"net/url"
	"path"
	"strings"
)

// maxReturn is how long a return URL may be to be kept in a sealed cookie. With all else that stands there it stays below maxCookie.
const maxReturn = 800

// returnURL returns a path and query of this host that is safe to go back to, as it was asked for, with bytes that do not belong in a
// URL escaped; "/" for anything else. What it returns begins with exactly one slash and, read as the WHATWG URL Standard says (section
// 4.4: backslashes are slashes, tabs and newlines are dropped, dot segments are resolved), names a path of the same host. Our own
// paths are no place to return to, since they would loop or sign out, except the user page, the page that restores, and the question of a program.
func returnURL(raw, prefix string) string {
	const home = "/"
	if !strings.HasPrefix(raw, "/") || strings.HasPrefix(raw, "//") || strings.IndexFunc(raw, func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) >= 0 {
		return home
	}
	rawPath, _, _ := strings.Cut(raw, "?")
	decoded, err := url.PathUnescape(rawPath)
	if err != nil || strings.Contains(rawPath, `\`) || strings.HasPrefix(resolved(decoded), "//") || ours(decoded, prefix) {
		return home
	}
	if u, err := url.Parse(raw); err != nil || u.Scheme != "" || u.Host != "" || u.User != nil {
		return home
	}
	return escaped(raw)
}

// resolved is a decoded path as a browser reads it: dot segments are resolved while empty segments stand (WHATWG URL Standard, section
// 4.4, path state).
func resolved(p string) string {
	segments := strings.Split(strings.ReplaceAll(p, `\`, "/"), "/")[1:]
	var out []string
	for i, s := range segments {
		if s == ".." && len(out) > 0 {
			out = out[:len(out)-1]
		}
		if s != "." && s != ".." {
			out = append(out, s)
		} else if i == len(segments)-1 {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/")
}

// ours says whether a decoded path leads to one of our handlers that is no place to return to, read in any way: as it stands, as a
// browser resolves it, and as who merges slashes does. Path parameters (;x) are left out, as they are in matching.
func ours(p, prefix string) bool {
	for _, reading := range []string{p, resolved(p)} {
		segments := strings.Split(reading, "/")
		for i, s := range segments {
			segments[i], _, _ = strings.Cut(s, ";")
		}
		plain := strings.Join(segments, "/")
		for _, reading := range []string{plain, path.Clean(plain)} {
			if rest, below := strings.CutPrefix(reading, prefix+"/"); below && rest != "" && rest != "return" && rest != "cli" {
				return true
			}
		}
	}
	return false
}

// escaped replaces bytes that are not ASCII, so that the URL survives a header and JSON.
func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if s[i] < 0x80 {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}

// back is where a return URL leads: always an absolute URL at this host's own origin, so that no reading of the path can change the host.
func (v *visit) back(to string) string {
	if to == "/" && v.AuthOnly && v.atAuthHost() {
		return v.at("/")
	}
	return v.Origin(v.host).Origin() + to
}

// signInURL is where a sign-in at this host begins.
func (v *visit) signInURL(to string) string { return v.at("/sign_in?return=" + url.QueryEscape(to)) }

// target reads a parameter that names where to go after a sign-out: a path of this host, or an absolute URL at the origin of a host that
// we have. It returns an absolute URL, or "".
func (v *visit) target(raw string) string {
	if raw == "" {
		return ""
	}
	if strings.HasPrefix(raw, "/") {
		if to := returnURL(raw, v.Prefix); to == escaped(raw) {
			return v.back(to)
		}
		return ""
	}
	_, name, _ := strings.Cut(raw, "://")
	name = name[:strings.IndexFunc(name+"/", func(c rune) bool { return strings.ContainsRune("/:?#", c) })]
	origin := v.Origin(name).Origin()
	rest, ok := strings.CutPrefix(raw, origin)
	if origin == "" || !ok {
		return ""
	}
	if rest == "" {
		rest = "/"
	}
	if to := returnURL(rest, v.Prefix); to == escaped(rest) {
		return origin + to
	}
	return ""
}
