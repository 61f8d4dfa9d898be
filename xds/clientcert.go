package xds

import (
	"errors"
	"os"
	"strings"

	"doorward/authz/config"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// A host whose clients prove themselves in the handshake has a filter chain of its own: whether a certificate is asked for belongs to the chain's
// TLS. The host is in no scope, so that no connection of another chain leads to it. Who vouches for clients, and whom they have revoked, is a secret
// of its own, so that a new revocation list changes no listener.

// provesClients says whether a host wants certificates of its clients.
func provesClients(c *config.Config, host string) bool {
	_, ok := c.TLS.Clients(host)
	return ok
}

// provingBelow are the hosts below a wildcard that want certificates of their clients: its chain must not lead to them.
func provingBelow(c *config.Config, wildcard string) (hosts []string) {
	for _, clients := range c.TLS.ClientCertificates {
		for _, host := range clients.Hosts {
			if config.WildcardOf(host) == wildcard {
				hosts = append(hosts, host)
			}
		}
	}
	return hosts
}

// inScope says whether a host is found by its scope: it has no filter chain of its own.
func inScope(c *config.Config, host string) bool {
	return !config.IsWildcard(host) && !provesClients(c, host)
}

// clientsOf is the name of the secret that verifies the clients of a host. No host can be called so.
func clientsOf(host string) string { return clientsPrefix + host }

const clientsPrefix = "doorward/clients/"

// clientChains are the filter chains of the hosts that want certificates of their clients, and these hosts, in order.
func clientChains(in Input) (chains []*listenerv3.FilterChain, hosts []string, err error) {
	var errs []error
	for _, c := range in.Config.TLS.ClientCertificates {
		for _, host := range c.Hosts {
			socket, err := downstreamTLS(in.Config.TLS, alwaysNamed(host), &clientTLS{secret: clientsOf(host), optional: c.Optional})
			errs = append(errs, err)
			chains, hosts = append(chains, ownChain(in, host, socket)), append(hosts, host)
		}
	}
	return chains, hosts, errors.Join(errs...)
}

// clientTLS is what the handshake asks of clients.
type clientTLS struct {
	secret   string
	optional bool
}

// addClients adds the secrets that verify clients.
func addClients(out *Resources, c *config.Config) error {
	var errs []error
	for _, clients := range c.TLS.ClientCertificates {
		context, err := verification(clients)
		errs = append(errs, wrap("tls.client_certificates", err))
		for _, host := range clients.Hosts {
			if err == nil {
				errs = append(errs, out.add(secretKind, clientsOf(host), &tlsv3.Secret{
					Name: clientsOf(host), Type: &tlsv3.Secret_ValidationContext{ValidationContext: context},
				}))
			}
		}
	}
	return errors.Join(errs...)
}

// verification says whose certificates are good. A revocation list counts for the certificates that its CA has issued to clients; the CAs' own need none.
func verification(c config.ClientCertificates) (*tlsv3.CertificateValidationContext, error) {
	ca, err := os.ReadFile(c.CAFile)
	if err != nil {
		return nil, err
	}
	out := &tlsv3.CertificateValidationContext{TrustedCa: inline(ca), OnlyVerifyLeafCertCrl: true}
	if c.CRLFile != "" {
		crl, err := os.ReadFile(c.CRLFile)
		if err != nil {
			return nil, err
		}
		out.Crl = inline(crl)
	}
	for _, rule := range c.Names {
		out.MatchTypedSubjectAltNames = append(out.MatchTypedSubjectAltNames, nameRule(rule))
	}
	return out, nil
}

// nameRule is a rule of the configuration as Envoy has it.
func nameRule(rule string) *tlsv3.SubjectAltNameMatcher {
	kind, name, _ := strings.Cut(rule, ":")
	kinds := map[string]tlsv3.SubjectAltNameMatcher_SanType{
		"dns": tlsv3.SubjectAltNameMatcher_DNS, "uri": tlsv3.SubjectAltNameMatcher_URI, "email": tlsv3.SubjectAltNameMatcher_EMAIL,
	}
	m := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}}
	if suffix, ok := strings.CutPrefix(name, "*"); ok {
		m.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: suffix}
	} else if prefix, ok := strings.CutSuffix(name, "*"); ok {
		m.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: prefix}
	}
	return &tlsv3.SubjectAltNameMatcher{SanType: kinds[kind], Matcher: m}
}

// special are the server names that lead to filter chains of their own, as RE2, in the order in which they are looked at, with the chains' names.
type special struct{ expression, chain string }

func specials(clients, wildcards []string) []special {
	var all []special
	for _, host := range clients {
		all = append(all, special{quoted(host), host})
	}
	for _, host := range wildcards {
		all = append(all, special{covered(host), host})
	}
	return all
}
