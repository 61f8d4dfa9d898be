package config

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
)

// host is one host that the edge serves, and where it is named first.
type host struct {
	name string
	url  URL
	at   place
}

// hosts checks what concerns hosts as a whole: the sign-in host, ports and certificates.
func (c *checker) hosts() {
	known, index := []host(nil), make(map[string]int)
	for i, r := range c.c.Routes {
		at := c.routes[i].key("from")
		if r.From.IsZero() {
			continue
		}
		j, seen := index[r.Host()]
		if !seen {
			index[r.Host()] = len(known)
			known = append(known, host{r.Host(), r.From, at})
		} else if first := known[j]; first.url.Port() != r.From.Port() {
			c.add(at, "port %d, but %s is at port %d at %s; one host has one port", r.From.Port(), r.Host(), first.url.Port(), first.at.position())
		}
	}
	if auth := c.authURL(known); !auth.url.IsZero() {
		if j, seen := index[auth.name]; !seen {
			known = append(known, auth)
		} else if first := known[j]; first.url.Port() != auth.url.Port() {
			c.add(auth.at, "port %d, but %s is at port %d at %s; one host has one port", auth.url.Port(), auth.name, first.url.Port(), first.at.position())
		}
	}
	c.certificates(known)
}

// authURL checks the sign-in host. One host is its own; with several it must be named, because it is registered with the provider.
func (c *checker) authURL(known []host) host {
	at := c.root.key("auth_url")
	if c.root.has("auth_url") {
		if c.c.AuthURL.IsZero() {
			return host{}
		}
		c.origin(at, c.c.AuthURL)
		return host{c.c.AuthURL.Hostname(), c.c.AuthURL, at}
	}
	if len(known) == 1 && IsWildcard(known[0].name) {
		c.add(at, "required because %s is no host that one can sign in at: name the one that signs in with the provider", known[0].name)
	}
	if len(known) > 1 {
		example := ""
		for _, h := range slices.Backward(known) {
			if !IsWildcard(h.name) {
				example = ", for example auth_url: " + h.url.Origin()
			}
		}
		names := make([]string, 0, 3)
		for _, h := range known[:min(3, len(known))] {
			names = append(names, h.name)
		}
		c.add(at, "required because there are %d hosts (%s%s): name the one that signs in with the provider%s",
			len(known), strings.Join(names, ", "), more(len(known)-3), example)
	}
	return host{}
}

func more(n int) string {
	if n <= 0 {
		return ""
	}
	return fmt.Sprintf(" and %d more", n)
}

// origin checks a URL that names a host of ours: https, a DNS name, no path.
func (c *checker) origin(at place, u URL) {
	if u.IsZero() {
		return
	}
	if u.Scheme() != "https" {
		c.add(at, "%q must be https; plain http is answered with a redirect to it", shorten(u.String()))
	}
	if u.Path() != "" && u.Path() != "/" {
		c.add(at, "%q has a path; give the host only", shorten(u.String()))
	}
	if err := checkDNSName(u.Hostname()); err != nil {
		c.add(at, "%s", err)
	}
}

// certificates checks the files, and that every host has one or gets one from the local CA.
func (c *checker) certificates(known []host) {
	c.c.covers = make(map[string]bool)
	at := c.root.key("tls").key("certificates")
	for i, pair := range c.c.TLS.Certificates {
		if leaf := c.certificate(at.item(i), pair); leaf != nil {
			for _, name := range leaf.DNSNames {
				c.c.covers[strings.ToLower(name)] = true
			}
		}
	}
	for _, h := range known {
		c.certified(h)
	}
}

// certified checks that a host has a certificate from a file or gets one.
func (c *checker) certified(h host) {
	if c.c.TLS.LocalCA || c.c.TLS.ACME != nil && !IsWildcard(h.name) || IsLocalhost(h.name) || c.c.covered(h.name) || checkDNSName(h.name) != nil {
		return
	}
	issue := "set tls.acme to have one issued, or tls.local_ca: true to issue one from the local CA"
	if IsWildcard(h.name) { // an ACME server would want to see a record in DNS
		issue = "set tls.local_ca: true to issue one from the local CA"
	}
	c.add(h.at, "no certificate for %s: add one that names it to tls.certificates, or %s, or use a host below .localhost", h.name, issue)
}

// covered says whether a certificate from a file names a host. A wildcard stands for one label (RFC 9525, section 6.3).
func (c *Config) covered(host string) bool {
	return c.covers[host] || c.covers[WildcardOf(host)]
}

// certificate checks one pair of files and returns the certificate, or nil.
func (c *checker) certificate(at place, pair Certificate) *x509.Certificate {
	complete := true
	for _, row := range []struct{ key, file, what string }{
		{"cert_file", pair.CertFile, "the certificate chain"},
		{"key_file", pair.KeyFile, "the certificate's private key"},
	} {
		if row.file == "" {
			c.add(at.key(row.key), "required; it names the PEM file of %s", row.what)
			complete = false
		}
	}
	if !complete {
		return nil
	}
	leaf, err := c.pair(pair)
	if err != nil {
		c.add(at, "%s", err)
		return nil
	}
	return leaf
}
