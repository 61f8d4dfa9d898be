package config

import (
	"slices"
	"strings"
)

// admin checks the admin API on the network: who can change routes decides who is let in, so it knows its clients or is not there.
func (c *checker) admin(p place) {
	if !c.root.has("admin") {
		return
	}
	a := &c.c.Admin
	for _, row := range []struct{ key, value, what string }{
		{"listen", a.Listen, "the address, as 10.0.0.1:9443"},
		{"cert_file", a.CertFile, "the PEM file of the certificate that clients are shown"},
		{"key_file", a.KeyFile, "the PEM file of its private key"},
		{"client_ca_file", a.ClientCAFile, "the PEM file of whoever issues the clients' certificates; there is no admin API on the network without them"},
	} {
		if row.value == "" {
			c.add(p.key(row.key), "required with admin; it is %s", row.what)
		}
	}
	if a.Listen != "" {
		c.apart(p.key("listen"), a.Listen, [2]string{"control.listen", c.c.Control.Listen})
	}
	if a.CertFile != "" && a.KeyFile != "" {
		if _, err := c.pair(Certificate{a.CertFile, a.KeyFile}); err != nil {
			c.add(p.key("cert_file"), "%s", err)
		}
	}
	if a.ClientCAFile != "" {
		if err := c.pool(a.ClientCAFile); err != nil {
			c.add(p.key("client_ca_file"), "%s", err)
		}
	}
	c.adminNames(p.key("allow"), a.Allow)
}

func (c *checker) adminNames(at place, names Names) {
	if len(names) == 0 {
		c.add(at, "required with admin; it is the list of the clients' names: DNS names, URIs or common names of their certificates")
	}
	for i, name := range names {
		switch {
		case name == "":
			c.add(at.orItem(i), "is empty; write a name of a client's certificate")
		case strings.Contains(name, "*"):
			c.add(at.orItem(i), "%q is no pattern: names are compared to the letter; write each one out", shorten(name))
		case slices.Contains(names[:i], name):
			c.add(at.orItem(i), "%q is listed twice; remove one of them", shorten(name))
		}
	}
}
