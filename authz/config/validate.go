package config

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// maxTokenLifetime bounds jwt.lifetime: for so long can an upstream be shown a token after its session has ended.
	maxTokenLifetime = 5 * time.Minute
	// maxSocketPath is the longest path of a Unix socket: sun_path has 108 bytes, one of them for the final NUL (Linux, unix(7)).
	maxSocketPath = 107
	// longestSocket is the longest name of a socket in socket_dir.
	longestSocket = "/streams.sock"
)

// checker holds a decoded and completed configuration against everything that Doorward and Envoy ask of it.
type checker struct {
	*report
	files  *files
	c      *Config
	root   place
	routes []place // of c.Routes, in the same order
	pools  map[string]error
	pairs  map[Certificate]keyPair
}

// all runs every check. None relies on another one having passed.
func (c *checker) all() {
	c.pools, c.pairs = make(map[string]error), make(map[Certificate]keyPair)
	c.idps(c.root.key("idp"))
	c.tokenIssuers(c.root.key("token_issuers"))
	c.listen(c.root.key("listen"))
	c.admin(c.root.key("admin"))
	c.directories()
	c.bundles(c.root.key("bundles"))
	c.lifetimes()
	c.signing(c.root.key("jwt"))
	c.ownPaths(c.root.key("paths"))
	c.brand(c.root.key("brand"))
	c.edge()
	c.names()
	c.matches()
	c.groups()
	for i := range c.c.Routes {
		c.route(c.routes[i], &c.c.Routes[i])
	}
	c.tls(c.root.key("tls"))
	c.hosts()
	c.clientCertificates(c.root.key("tls").key("client_certificates"))
	c.control(c.root.key("control"))
	// Last, when every file that the configuration names has been read:
	c.decisionLog(c.root.key("decision_log"))
	c.jwksFile(c.root.key("jwt").key("jwks_file"))
}

// listen checks the addresses: they parse, and no two of them are the same.
func (c *checker) listen(p place) {
	l := &c.c.Listen
	if l.HTTP == "off" {
		l.HTTP = ""
	}
	if l.Internal == "off" {
		l.Internal = ""
	}
	if l.Metrics == "off" {
		l.Metrics = ""
	}
	if strings.HasPrefix(l.Metrics, ":") {
		c.add(p.key("metrics"), "%q is on every address, and who can connect can read; write the address too, as 127.0.0.1%s", shorten(l.Metrics), shorten(l.Metrics))
		l.Metrics = ""
	}
	if l.HTTPS == "" || l.HTTPS == "off" {
		c.add(p.key("https"), "cannot be turned off; give an address as :443")
		return
	}
	type listener struct {
		key  string
		addr netip.AddrPort
	}
	var others []listener
	for _, row := range []struct{ key, address string }{{"https", l.HTTPS}, {"http", l.HTTP}, {"internal", l.Internal}, {"metrics", l.Metrics}} {
		if row.address == "" {
			continue
		}
		addr, err := parseAddress(row.address)
		if err != nil {
			c.add(p.key(row.key), "%s", err)
			continue
		}
		for _, other := range others {
			if overlap(addr, other.addr) {
				c.add(p.key(row.key), "%q is the address of listen.%s too; give each a port of its own", row.address, other.key)
			}
		}
		others = append(others, listener{row.key, addr})
	}
}

// parseAddress reads host:port or :port. The host is an IP address, because that is what Envoy binds to.
func parseAddress(s string) (netip.AddrPort, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address; write it as :8443 or 127.0.0.1:8443", shorten(s))
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return netip.AddrPort{}, fmt.Errorf("the port %q is not a number from 1 to 65535", shorten(port))
	}
	ip := netip.IPv6Unspecified()
	if host != "" {
		if ip, err = netip.ParseAddr(host); err != nil || ip.Zone() != "" {
			return netip.AddrPort{}, fmt.Errorf("%q is not an IP address; write one, or only the port for all addresses", shorten(host))
		}
	}
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), nil
}

func overlap(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && (a.Addr() == b.Addr() || a.Addr().IsUnspecified() || b.Addr().IsUnspecified())
}

// directories checks data_dir, socket_dir and the policies. A directory that Doorward makes itself need not exist.
func (c *checker) directories() {
	for _, row := range []struct{ key, path string }{{"data_dir", c.c.DataDir}, {"socket_dir", c.c.SocketDir}} {
		if info, err := os.Stat(row.path); err == nil && !info.IsDir() {
			c.add(c.root.key(row.key), "%s is not a directory; remove it or name another path", row.path)
		}
	}
	if n := len(c.c.SocketDir) + len(longestSocket); n > maxSocketPath {
		c.add(c.root.key("socket_dir"), "%s is %d bytes too long for the path of a Unix socket; set socket_dir to a shorter path, as /run/doorward",
			c.c.SocketDir, n-maxSocketPath)
	}
	at := c.root.key("policies")
	for i, path := range c.c.Policies {
		if path == "" {
			c.add(at.item(i), "is empty; name a file or a directory, or remove it")
		} else if err := c.files.policies(path); err != nil {
			c.add(at.item(i), "%s", err)
		}
	}
}

func (c *checker) lifetimes() {
	session, jwt := c.root.key("session"), c.root.key("jwt")
	if c.c.Session.Lifetime <= 0 {
		c.add(session.key("lifetime"), "must be more than 0s")
	}
	if d := time.Duration(c.c.Session.IdleTimeout); d != 0 && d < time.Minute {
		c.add(session.key("idle_timeout"), "%s must be at least 1m0s, or 0s for no limit: when a session was last used is known to a twentieth of it", d)
	}
	if d := time.Duration(c.c.Session.RefreshInterval); d != 0 && d < time.Second {
		c.add(session.key("refresh_interval"), "%s must be at least 1s, or 0s for no refresh", d)
	}
	if c.c.Session.MaxStreams < 1 {
		c.add(session.key("max_streams"), "must be 1 or more; routes without allow_websockets and streams have none")
	}
	if l := time.Duration(c.c.JWT.Lifetime); l <= 0 || l > maxTokenLifetime {
		c.add(jwt.key("lifetime"), "%s must be more than 0s and at most %s; tokens are renewed without the user", l, maxTokenLifetime)
	}
	if c.c.JWT.ConsumerCache <= 0 {
		c.add(jwt.key("consumer_cache"), "must be more than 0s: a new key is published for so long before it signs")
	}
	if every, least := c.c.JWT.RotateEvery, max(3*c.c.JWT.ConsumerCache, Duration(time.Minute)); every != 0 && every < least {
		c.add(jwt.key("rotate_every"), "%s is less than %s, the least with this consumer_cache; 0s is for rotation by hand only", every, least)
	}
}

// signing checks the name of the identity header and the operator's key.
func (c *checker) signing(p place) {
	header := c.c.JWT.Header
	switch {
	case !headerName.MatchString(header) || len(header) > maxHeaderName:
		c.add(p.key("header"), "%q is not a header name (RFC 9110, section 5.1); it has letters, digits and hyphens", shorten(header))
	case reservedHeader(header) != "":
		c.add(p.key("header"), "%s %s; choose another name", header, reservedHeader(header))
	case takenHeader(header):
		c.add(p.key("header"), "%s has a meaning of its own, and what a client sends under the identity header's name is removed; choose another name", header)
	}
	if file := c.c.JWT.SigningKeyFile; file != "" {
		if err := c.signingKey(file); err != nil {
			c.add(p.key("signing_key_file"), "%s", err)
		}
	}
}

// ownPaths checks the paths that Doorward serves itself.
func (c *checker) ownPaths(p place) {
	paths := c.c.Paths
	for _, row := range []struct{ key, path string }{{"prefix", paths.Prefix}, {"jwks", paths.JWKS}} {
		at := p.key(row.key)
		if fault := pathFault(row.path, "reject"); fault != "" {
			c.add(at, "%s", fault)
		} else if strings.HasSuffix(row.path, "/") {
			c.add(at, "%q must not end with a slash", row.path)
		}
	}
	if ours(paths.JWKS, paths.Prefix) {
		c.add(p.key("jwks"), "%q is below paths.prefix %q; use a path outside it", paths.JWKS, paths.Prefix)
	}
}

// ours says whether a path is for Doorward itself, given a prefix that is valid.
func ours(path, prefix string) bool {
	return prefix != "" && !strings.HasSuffix(prefix, "/") && below(path, prefix)
}

// below says whether a path is a prefix of whole segments or lies below it.
func below(path, prefix string) bool {
	return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
}

func (c *checker) edge() {
	for _, row := range []struct{ key, value string }{
		{"escaped_slashes", c.c.Edge.EscapedSlashes},
		{"underscore_headers", c.c.Edge.UnderscoreHeaders},
	} {
		if !slices.Contains([]string{"reject", "keep"}, row.value) {
			c.add(c.root.key(row.key), "%q is not known; it is reject or keep", shorten(row.value))
		}
	}
}

// routeName is what names a route: it goes into logs, metrics and Envoy's resources.
var routeName = regexp.MustCompile(`^[a-z0-9._-]{1,63}$`)

// names checks that each route has a name of its own.
func (c *checker) names() {
	first := make(map[string]Position, len(c.c.Routes))
	for i, r := range c.c.Routes {
		at := c.routes[i].key("name")
		switch before, taken := first[r.Name]; {
		case !c.routes[i].has("name"):
			c.add(at, "required; give the route a name of its own")
		case !routeName.MatchString(r.Name):
			c.add(at, "%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(r.Name))
		case taken:
			c.add(at, "%q is the name of the route at %s too; rename one of them", r.Name, before)
		default:
			first[r.Name] = r.Source
		}
	}
}
