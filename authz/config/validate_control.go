package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// NoGroup is what an Envoy without a group says in the place of one: no group may be called so.
const NoGroup = "doorward"

// control checks where Envoys on other machines reach Doorward, and the groups of Envoys.
func (c *checker) control(p place) {
	ctl := &c.c.Control
	if ctl.Listen == "off" {
		ctl.Listen = ""
	}
	switch {
	case ctl.Listen == "" && ctl.Address != "":
		c.add(p.key("address"), "has no effect without control.listen; give that too, or remove it")
	case ctl.Listen != "" && ctl.Address == "":
		c.add(p.key("address"), "required with control.listen; name the host and port that Envoys on other machines connect to")
	}
	if ctl.Listen != "" {
		c.apart(p.key("listen"), ctl.Listen)
	}
	if ctl.Address != "" {
		if err := checkControlAddress(ctl.Address); err != nil {
			c.add(p.key("address"), "%s", err)
		}
	}
	for i, group := range ctl.Groups {
		switch at := p.key("groups").orItem(i); {
		case !routeName.MatchString(group):
			c.add(at, "%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(group))
		case group == NoGroup:
			c.add(at, "%q is what Envoys without a group are called; choose another name", group)
		case slices.Contains(ctl.Groups[:i], group):
			c.add(at, "%q is listed twice; remove one of them", group)
		}
	}
	if ctl.LocalGroup != "" && !slices.Contains(ctl.Groups, ctl.LocalGroup) {
		c.add(p.key("local_group"), "%q is not one of control.groups; add it there or correct it", shorten(ctl.LocalGroup))
	}
}

// apart checks an address against those of `listen` and others, each after its key.
func (c *checker) apart(at place, address string, others ...[2]string) {
	addr, err := parseAddress(address)
	if err != nil {
		c.add(at, "%s", err)
		return
	}
	l := c.c.Listen
	for _, row := range append(others, [][2]string{
		{"listen.https", l.HTTPS}, {"listen.http", l.HTTP}, {"listen.internal", l.Internal}, {"listen.metrics", l.Metrics},
	}...) {
		other, err := parseAddress(row[1])
		if err == nil && overlap(addr, other) {
			c.add(at, "%q is the address of %s too; give each a port of its own", address, row[0])
		}
	}
}

// checkControlAddress says why an address is none that an Envoy elsewhere could connect to.
func checkControlAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not a host and a port; write it as doorward.internal:9443", shorten(s))
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("the port %q is not a number from 1 to 65535", shorten(port))
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		if ip.IsUnspecified() || ip.Zone() != "" {
			return fmt.Errorf("%s is no address that one can connect to; write the address or the name that other machines know", host)
		}
		return nil
	}
	if host != strings.ToLower(host) {
		return fmt.Errorf("%q has upper-case letters; write it in lower case", shorten(host))
	}
	return checkDNSName(host)
}

// groups checks the groups of the routes: each is one of control.groups, and the routes of a host, or of a wildcard and the names below it, which
// Envoy gets as a whole, have the same.
func (c *checker) groups() {
	first := make(map[string]int)
	wild := make(map[string]bool)
	for _, r := range c.c.Routes {
		if IsWildcard(r.Host()) {
			wild[r.Host()] = true
		}
	}
	for i := range c.c.Routes {
		r := &c.c.Routes[i]
		for j, group := range r.Groups {
			at := c.routes[i].key("groups").orItem(j)
			if !slices.Contains(c.c.Control.Groups, group) {
				c.add(at, "%q is not one of control.groups; add it there or correct it", shorten(group))
			} else if slices.Contains(r.Groups[:j], group) {
				c.add(at, "%q is listed twice; remove one of them", group)
			}
		}
		if r.From.IsZero() {
			continue
		}
		host := r.Host()
		if of := WildcardOf(host); wild[of] {
			host = of
		}
		before, seen := first[host]
		if !seen {
			first[host] = i
			continue
		}
		if other := &c.c.Routes[before]; !slices.Equal(sorted(r.Groups), sorted(other.Groups)) {
			c.add(c.routes[i].key("groups"), "are %s, but %s has %s at %s; all routes of a host have the same groups",
				listed(r.Groups), other.Host(), listed(other.Groups), c.routes[before].position())
		}
	}
}

func sorted(names Names) []string { return slices.Sorted(slices.Values(names)) }

// listed is a list of groups as it is read.
func listed(groups Names) string {
	if len(groups) == 0 {
		return "none"
	}
	return strings.Join(sorted(groups), ", ")
}
