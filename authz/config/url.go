package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// URL is an absolute http or https URL without user, query and fragment. The zero value means that none was given. That of a TCP service behind
// the edge, tcp+https://db.example.com:5432, is the https URL of its host at the edge, and that of a TCP upstream has the scheme tcp.
type URL struct {
	raw     string
	scheme  string
	host    string // lower case, with the port if there is one
	path    string
	service int // the port that names the service; 0 when it is none
}

// ParseURL parses an absolute http or https URL. Its host is a name or an IP address; what is stricter for the hosts of routes is
// checked by Load. The errors name the remedy and never repeat a password.
func ParseURL(s string) (URL, error) { return single(parseURL(s, "http", "https")) }

// ParseFrom is ParseURL for a route's from. Its host may be a wildcard; or it is that of a TCP service, whose port says which one it is and is no
// port of the edge.
func ParseFrom(s string) (URL, error) {
	u, err := parseURL(s, "http", "https", schemeService)
	if err != nil || u.scheme != schemeService {
		return u, err
	}
	host, port := splitPort(u.host)
	switch {
	case port == "":
		return URL{}, fmt.Errorf("%q has no port; name the one of the service, as %s://db.example.com:5432", shorten(s), schemeService)
	case IsWildcard(host):
		return URL{}, fmt.Errorf("the host %q is a wildcard; a TCP service has a host of its own", shorten(host))
	}
	u.scheme, u.host = "https", host
	u.service, err = strconv.Atoi(port)
	return u, err
}

// single refuses a wildcard.
func single(u URL, err error) (URL, error) {
	if err == nil && strings.HasPrefix(u.host, "*") {
		return URL{}, fmt.Errorf("the host %q is a wildcard, which only a route's from can be; name one host", shorten(u.host))
	}
	return u, err
}

// parseURL parses a URL of one of the schemes, the last of which is named last.
func parseURL(s string, schemes ...string) (URL, error) {
	switch scheme, rest, found := strings.Cut(s, "://"); {
	case s == "":
		return URL{}, errNoURL
	case !found:
		return URL{}, fmt.Errorf("%q is not a URL; write it with its scheme, as https://host.example.com", shorten(s))
	case !slices.Contains(schemes, strings.ToLower(scheme)):
		last := len(schemes) - 1
		return URL{}, fmt.Errorf("the scheme %q is not supported; it is %s or %s", shorten(scheme), strings.Join(schemes[:last], ", "), schemes[last])
	case strings.ContainsAny(rest, "?#"):
		return URL{}, fmt.Errorf("%q has a query or a fragment; remove it", shorten(s))
	case strings.Contains(strings.SplitN(rest, "/", 2)[0], "@"):
		return URL{}, errors.New("the URL has a user name or password; remove it")
	}
	u, err := url.Parse(s)
	if err != nil {
		var cause *url.Error
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return URL{}, fmt.Errorf("%q is not a URL: %w", shorten(s), err)
	}
	host := strings.ToLower(u.Host)
	if err := checkHostPort(host); err != nil {
		return URL{}, err
	}
	return URL{raw: s, scheme: strings.ToLower(u.Scheme), host: host, path: u.EscapedPath()}, nil
}

// UpstreamURL is where an upstream is: an http or https URL, or one with the scheme h2c, which is HTTP/2 without TLS (RFC 9113, section 3.3), or tcp,
// which has a port.
type UpstreamURL struct{ URL }

func parseUpstreamURL(s string) (UpstreamURL, error) {
	u, err := single(parseURL(s, "http", "https", "h2c", "tcp"))
	if err == nil && u.scheme == "tcp" && u.Port() == 0 {
		err = fmt.Errorf("%q has no port; TCP has none of its own, so write it as tcp://db:5432", shorten(s))
	}
	return UpstreamURL{u}, err
}

// schemeService is the scheme of `from` for a TCP service.
const schemeService = "tcp+https"

// Service is the port that a tcp+https URL names the service by; 0 for any other URL.
func (u URL) Service() int { return u.service }

// atPort is the URL at another port of its host.
func (u URL) atPort(port int) URL {
	u.host, _ = splitPort(u.host)
	if port != u.Port() {
		u.host += ":" + strconv.Itoa(port)
	}
	return u
}

// String returns the URL as it was given.
func (u URL) String() string { return u.raw }

// Scheme is http or https, or, of an upstream, h2c or tcp.
func (u URL) Scheme() string { return u.scheme }

// Hostname is the host in lower case, without the port and without the brackets of an IPv6 address.
func (u URL) Hostname() string { return (&url.URL{Host: u.host}).Hostname() }

// Port is the port; the one that the scheme implies when none is given, and 0 for the zero URL.
func (u URL) Port() int {
	if _, port := splitPort(u.host); port != "" {
		n, _ := strconv.Atoi(port)
		return n
	}
	switch u.scheme {
	case "http", "h2c":
		return 80
	case "https":
		return 443
	}
	return 0
}

// Host is host:port as it was given, in lower case; the port is left out when it was.
func (u URL) Host() string { return u.host }

// Path is "" or begins with "/". It is percent-encoded.
func (u URL) Path() string { return u.path }

// IsZero says that no URL was given.
func (u URL) IsZero() bool { return u.raw == "" }

// Origin is scheme://host[:port] as a browser writes it: in lower case, without the port that the scheme implies (RFC 6454, section
// 6.2). It is "" for the zero URL.
func (u URL) Origin() string {
	if u.IsZero() {
		return ""
	}
	host, port := splitPort(u.host)
	if implied := (URL{scheme: u.scheme}).Port(); port == "" || port == strconv.Itoa(implied) {
		return u.scheme + "://" + host
	}
	return u.scheme + "://" + u.host
}

// origin is the URL of the origin.
func (u URL) origin() URL {
	if u.IsZero() {
		return URL{}
	}
	s := u.Origin()
	return URL{raw: s, scheme: u.scheme, host: strings.TrimPrefix(s, u.scheme+"://")}
}

// MarshalJSON writes the URL as it was given.
func (u URL) MarshalJSON() ([]byte, error) { return json.Marshal(u.raw) }

// MarshalYAML writes the URL as it was given.
func (u URL) MarshalYAML() (any, error) { return u.raw, nil }

// splitPort takes the port from a host, "" when there is none. An IPv6 address keeps its brackets.
func splitPort(hostport string) (host, port string) {
	if i := strings.LastIndexByte(hostport, ':'); i > strings.LastIndexByte(hostport, ']') {
		return hostport[:i], hostport[i+1:]
	}
	return hostport, ""
}

// looseName is the name of an upstream or a provider: also with underscores, as container networks have them.
var looseName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?$`)

// checkHostPort checks the host of any URL, in lower case: a name or an IP address, with or without a port.
func checkHostPort(hostport string) error {
	host, port := splitPort(hostport)
	n, err := strconv.ParseUint(port, 10, 16)
	switch {
	case host == "":
		return errors.New("the URL has no host; write it as https://host.example.com")
	case strings.HasSuffix(hostport, ":"), port != "" && (err != nil || n == 0 || port[0] == '0'):
		return fmt.Errorf("the port %q is not a number from 1 to 65535", shorten(port))
	case strings.HasPrefix(host, "["):
		if ip, err := netip.ParseAddr(strings.Trim(host, "[]")); err != nil || ip.Zone() != "" {
			return fmt.Errorf("%q is not an IPv6 address", shorten(host))
		}
		return nil
	case strings.HasPrefix(host, "*."):
		if rest := strings.TrimPrefix(host, "*."); strings.Contains(rest, "*") || checkHostPort(rest) != nil || isIP(rest) || numeric(rest) {
			return fmt.Errorf("%q is not a wildcard host; write one star and a name, as *.apps.example.com", shorten(host))
		}
		return nil
	case strings.HasPrefix(host, "*"):
		return fmt.Errorf("%q is not a wildcard host; write one star and a name, as *.apps.example.com", shorten(host))
	case !ascii(host):
		return fmt.Errorf("the host %q is not ASCII; write it in punycode, as xn--... (RFC 3492)", shorten(host))
	case strings.HasSuffix(host, "."):
		return fmt.Errorf("the host %q ends with a dot; remove the dot", shorten(host))
	case numeric(host) && !isIP(host):
		return fmt.Errorf("the host %q ends with a number but is not an IPv4 address; use another name", shorten(host))
	case len(host) > 253 || !looseName.MatchString(host) || strings.Contains(host, ".."):
		return fmt.Errorf("the host %q is not a name; it has letters, digits and hyphens, with single dots between", shorten(host))
	}
	return nil
}

// dnsLabel is a label of a host name (RFC 1123, section 2.1), in lower case.
var dnsLabel = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// checkDNSName checks the name of a host that browsers reach and certificates name: RFC 1123, section 2.1. It is in lower case and has
// passed checkHostPort.
func checkDNSName(host string) error {
	if isIP(host) {
		return fmt.Errorf("%q is an IP address; use a host name, because clients send no server name (SNI) for an address", host)
	}
	if rest, wild := strings.CutPrefix(host, "*."); wild {
		if !strings.Contains(rest, ".") {
			return fmt.Errorf("%q is too wide a wildcard; it has two labels after the star at least, as *.apps.localhost", host)
		}
		host = rest
	}
	for label := range strings.SplitSeq(host, ".") {
		if len(label) > 63 {
			return fmt.Errorf("the label %q of the host is longer than 63 bytes", label)
		}
		if !dnsLabel.MatchString(label) {
			return fmt.Errorf("the label %q of the host is not valid; it has letters, digits and inner hyphens", label)
		}
	}
	return nil
}

// numeric says whether the last label of a host is a number: browsers take such a host for an IPv4 address (WHATWG URL, section 3.5).
func numeric(host string) bool {
	return strings.Trim(host[strings.LastIndexByte(host, '.')+1:], "0123456789") == ""
}

func isIP(host string) bool {
	_, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil
}

func ascii(s string) bool {
	for i := range len(s) {
		if s[i] >= 0x80 {
			return false
		}
	}
	return true
}

// IsWildcard says whether a host, without port, stands for every name that has one label in the place of its star.
func IsWildcard(host string) bool { return strings.HasPrefix(host, "*.") }

// WildcardOf is the wildcard host that covers a host, if there is one in the configuration; "" for a host that none can cover.
func WildcardOf(host string) string {
	label, rest, ok := strings.Cut(host, ".")
	if !ok || label == "*" || !dnsLabel.MatchString(label) {
		return ""
	}
	return "*." + rest
}

// at is the URL of one of the hosts that a wildcard's URL stands for.
func (u URL) at(host string) URL {
	_, port := splitPort(u.host)
	if port != "" {
		host += ":" + port
	}
	return URL{raw: u.scheme + "://" + host, scheme: u.scheme, host: host}.origin()
}

// IsLocalhost says whether a host, in lower case and without port, is localhost or below it: such hosts never leave the machine (RFC
// 6761, section 6.3) and get their certificates from the local CA.
func IsLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}
