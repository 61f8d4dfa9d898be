package cert

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"doorward/authz/config"
)

// Awaited gives the certificates that somebody else gets for us.
type Awaited interface {
	// Pair returns what is there for a host, or an error that is ErrPending.
	Pair(host string) (Pair, error)
}

// NothingYet is an Awaited that has got nothing, for looking at a configuration.
type NothingYet struct{}

// Pair is ErrPending.
func (NothingYet) Pair(string) (Pair, error) { return Pair{}, ErrPending }

// Source finds the certificate of a host: a file that names it, else the ACME server's or the local CA's. Immutable but for what those two have;
// safe for concurrent use.
type Source struct {
	files    []file
	byName   map[string]file // by DNS name of the certificate, in lower case, wildcards as they stand
	ca       *LocalCA
	acme     Awaited // nil for none
	everyone bool    // the CA may issue for any host, not only below .localhost
}

// file is a certificate from a file.
type file struct {
	Pair
	name string // of the file
}

// NewSource reads the configuration's certificate files. The error joins every file's problem. Where several name a host, the one that is
// good for longest serves it. Without tls.acme, acme is nil.
func NewSource(c *config.Config, ca *LocalCA, acme Awaited) (*Source, error) {
	s := &Source{byName: make(map[string]file), ca: ca, acme: acme, everyone: c.TLS.LocalCA}
	var errs []error
	for _, f := range c.TLS.Certificates {
		loaded, err := load(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.files = append(s.files, loaded)
		for _, name := range loaded.Leaf.DNSNames {
			name = strings.ToLower(name)
			if old, ok := s.byName[name]; !ok || loaded.Leaf.NotAfter.After(old.Leaf.NotAfter) {
				s.byName[name] = loaded
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// load proves a file: it parses, and the key is the certificate's.
func load(c config.Certificate) (file, error) {
	chain, err := os.ReadFile(c.CertFile)
	if err != nil {
		return file{}, fmt.Errorf("tls.certificates: %w", err)
	}
	key, err := os.ReadFile(c.KeyFile)
	if err != nil {
		return file{}, fmt.Errorf("tls.certificates: %w", err)
	}
	pair, err := NewPair(chain, key, FromFile)
	if err != nil {
		return file{}, fmt.Errorf("tls.certificates: %s with %s: %w", c.CertFile, c.KeyFile, err)
	}
	if len(pair.Leaf.DNSNames) == 0 {
		return file{}, fmt.Errorf("tls.certificates: %s names no host (subjectAltName): clients would refuse it", c.CertFile)
	}
	return file{pair, c.CertFile}, nil
}

// soon is how long before its end a certificate from a file is warned about.
const soon = 14 * 24 * time.Hour

// Warnings says which files are not good at the time given, or will not be soon. They are served all the same: the other hosts must not suffer.
func (s *Source) Warnings(now time.Time) []string {
	var warnings []string
	for _, f := range s.files {
		if w := dates(f.Leaf, now); w != "" {
			warnings = append(warnings, fmt.Sprintf("tls.certificates: %s %s", f.name, w))
		}
		if f.LacksStaple() {
			warnings = append(warnings, fmt.Sprintf("tls.certificates: %s is to be shown with an OCSP response (must-staple) and there is none: clients refuse it, get one without that", f.name))
		}
	}
	return warnings
}

// dates says what is wrong with the dates of a certificate, and the remedy; "" for nothing.
func dates(leaf *x509.Certificate, now time.Time) string {
	end := leaf.NotAfter.UTC().Format(time.DateTime)
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Sprintf("expired at %s: browsers refuse it, renew it", end)
	case now.Before(leaf.NotBefore):
		return fmt.Sprintf("is not valid before %s: use one that is, or correct this machine's clock", leaf.NotBefore.UTC().Format(time.DateTime))
	case now.Add(soon).After(leaf.NotAfter):
		return fmt.Sprintf("expires at %s: renew it", end)
	}
	return ""
}

// Pair returns the certificate of a host, exact and in lower case. A file that names the host wins over one with a wildcard, and either over
// what is issued. The error is ErrPending for a host whose certificate is on its way.
func (s *Source) Pair(host string) (Pair, error) {
	if f, ok := s.find(host); ok {
		return f.Pair, nil
	}
	switch {
	case s.everyone || config.IsLocalhost(host):
		return s.ca.Pair(host)
	case s.Issued(host):
		return s.acme.Pair(host)
	}
	return Pair{}, fmt.Errorf("no certificate for %s: add a file that names it to tls.certificates, or set tls.acme or tls.local_ca: true", host)
}

// Certificate is Pair as PEM, without a chain for a host whose first certificate is awaited.
func (s *Source) Certificate(host string) (chain, key []byte, err error) {
	if s.Local(host) {
		return s.ca.Certificate(host)
	}
	pair, err := s.Pair(host)
	if errors.Is(err, ErrPending) {
		return nil, nil, nil
	}
	return pair.Chain, pair.Key, err
}

// Staple is the OCSP response that a host's certificate is shown with; nil for none.
func (s *Source) Staple(host string) []byte {
	if !s.Issued(host) {
		return nil
	}
	pair, _ := s.Pair(host) // that there is none, Certificate says
	return pair.Staple
}

// Local says whether the local CA issues a host's certificate.
func (s *Source) Local(host string) bool {
	_, byFile := s.find(host)
	return !byFile && (s.everyone || config.IsLocalhost(host))
}

// Until is the end of a certificate of the local CA's that was issued already; zero for any other.
func (s *Source) Until(host string) time.Time {
	s.ca.mu.Lock()
	defer s.ca.mu.Unlock()
	if l, ok := s.ca.leaves[host]; ok && s.Local(host) {
		return l.renew.Add(renewBefore)
	}
	return time.Time{}
}

// Of says where a host's certificate comes from: the name of a file, "ACME" or "local CA".
func (s *Source) Of(host string) string {
	f, ok := s.find(host)
	switch {
	case ok:
		return f.name
	case s.Issued(host):
		return "ACME"
	}
	return "local CA"
}

// Issued says whether the ACME server issues a host's certificate.
func (s *Source) Issued(host string) bool {
	_, byFile := s.find(host)
	return s.acme != nil && !config.IsWildcard(host) && !byFile && !s.everyone && !config.IsLocalhost(host)
}

// find is the file that names a host. A wildcard stands for one label: RFC 9525, section 6.3.
func (s *Source) find(host string) (file, bool) {
	if f, ok := s.byName[host]; ok {
		return f, true
	}
	f, ok := s.byName[config.WildcardOf(host)]
	return f, ok
}
