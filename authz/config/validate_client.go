package config

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
)

// clientCertificates checks whose certificates clients of some hosts show.
func (c *checker) clientCertificates(list place) {
	seen := make(map[string]bool)
	for i, clients := range c.c.TLS.ClientCertificates {
		at := list.item(i)
		if len(clients.Hosts) == 0 {
			c.add(at.key("hosts"), "required; it names the hosts that want a certificate of the client")
		}
		for j, host := range clients.Hosts {
			h := at.key("hosts").orItem(j)
			switch {
			case host != strings.ToLower(host) || strings.ContainsAny(host, ":/*") || checkHostPort(host) != nil || checkDNSName(host) != nil:
				c.add(h, "%q is not a host; write its name in lower case, as vault.example.com, without scheme, port and wildcard", shorten(host))
			case seen[host]:
				c.add(h, "%q is listed twice; remove one of them", host)
			}
			seen[host] = true
		}
		if clients.CAFile == "" {
			c.add(at.key("ca_file"), "required; it names the PEM file of the CAs that vouch for clients")
		} else if err := c.pool(clients.CAFile); err != nil {
			c.add(at.key("ca_file"), "%s", err)
		}
		if clients.CRLFile != "" {
			if err := c.revocations(clients.CRLFile); err != nil {
				c.add(at.key("crl_file"), "%s", err)
			}
		}
		for j, name := range clients.Names {
			if fault := ruleFault(name); fault != "" {
				c.add(at.key("names").orItem(j), "%q %s", shorten(name), fault)
			}
		}
	}
}

// ruleFault says what is wrong with a rule for names of a client's certificate.
func ruleFault(rule string) string {
	kind, name, ok := strings.Cut(rule, ":")
	switch {
	case !ok || kind != "dns" && kind != "uri" && kind != "email":
		return "does not say of which kind the name is; write dns:, uri: or email: before it"
	case name == "" || name == "*":
		return "matches every name; leave names out for that"
	case strings.Contains(strings.TrimPrefix(strings.TrimSuffix(name, "*"), "*"), "*"), strings.HasPrefix(name, "*") && strings.HasSuffix(name, "*"):
		return "has a star that is not at its beginning or its end; there can be one of them"
	case !printable(name):
		return "has a character that no such name has"
	}
	return ""
}

// revocations checks a file of revocation lists.
func (c *checker) revocations(path string) error {
	data, err := c.files.file(path)
	if err != nil {
		return err
	}
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "X509 CRL" {
			return fmt.Errorf("%s holds a PEM block %q; it must hold revocation lists only", path, shorten(block.Type))
		}
		if _, err := x509.ParseRevocationList(block.Bytes); err != nil {
			return fmt.Errorf("list %d of %s does not parse: %s", n+1, path, strings.TrimPrefix(err.Error(), "x509: "))
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s holds no revocation list in PEM; it must hold those of the CAs", path)
	}
	return nil
}
