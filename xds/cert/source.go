package cert

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"doorward/authz/config"
)

// Source finds the certificate of a host: a file that names it, else the local CA where that is allowed. Immutable but for the CA's leaves;
// safe for concurrent use.
type Source struct {
	files    []file
	byName   map[string]file // by DNS name of the certificate, in lower case, wildcards as they stand
	ca       *LocalCA
	everyone bool // the CA may issue for any host, not only below .localhost
}

// file is a certificate from a file.
type file struct {
	name       string // of the file
	chain, key []byte
	leaf       *x509.Certificate
}

// NewSource reads the configuration's certificate files. The error joins every file's problem. Where several name a host, the one that is
// good for longest serves it.
func NewSource(c *config.Config, ca *LocalCA) (*Source, error) {
	s := &Source{byName: make(map[string]file), ca: ca, everyone: c.TLS.LocalCA}
	var errs []error
	for _, f := range c.TLS.Certificates {
		loaded, err := load(f)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.files = append(s.files, loaded)
		for _, name := range loaded.leaf.DNSNames {
			name = strings.ToLower(name)
			if old, ok := s.byName[name]; !ok || loaded.leaf.NotAfter.After(old.leaf.NotAfter) {
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
	parsed, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return file{}, fmt.Errorf("tls.certificates: %s with %s: %w", c.CertFile, c.KeyFile, err)
	}
	if len(parsed.Leaf.DNSNames) == 0 {
		return file{}, fmt.Errorf("tls.certificates: %s names no host (subjectAltName): clients would refuse it", c.CertFile)
	}
	return file{c.CertFile, chain, key, parsed.Leaf}, nil
}

// soon is how long before its end a certificate from a file is warned about.
const soon = 14 * 24 * time.Hour

// Warnings says which files are not good at the time given, or will not be soon. They are served all the same: the other hosts must not suffer.
func (s *Source) Warnings(now time.Time) []string {
	var warnings []string
	for _, f := range s.files {
		end := f.leaf.NotAfter.UTC().Format(time.DateTime)
		switch {
		case now.After(f.leaf.NotAfter):
			warnings = append(warnings, fmt.Sprintf("tls.certificates: %s expired at %s: browsers refuse it, renew it", f.name, end))
		case now.Before(f.leaf.NotBefore):
			warnings = append(warnings, fmt.Sprintf("tls.certificates: %s is not valid before %s: use one that is, or correct this machine's clock", f.name, f.leaf.NotBefore.UTC().Format(time.DateTime)))
		case now.Add(soon).After(f.leaf.NotAfter):
			warnings = append(warnings, fmt.Sprintf("tls.certificates: %s expires at %s: renew it", f.name, end))
		}
	}
	return warnings
}

// find is the file that names a host. A wildcard stands for one label: RFC 9525, section 6.3.
func (s *Source) find(host string) (file, bool) {
	if f, ok := s.byName[host]; ok {
		return f, true
	}
	_, parent, _ := strings.Cut(host, ".")
	f, ok := s.byName["*."+parent]
	return f, ok
}

// Of says where a host's certificate comes from: the name of a file, or "local CA".
func (s *Source) Of(host string) string {
	if f, ok := s.find(host); ok {
		return f.name
	}
	return "local CA"
}

// Certificate returns the PEM chain and key of a host, exact and in lower case. A file that names the host wins over one with a
// wildcard, and either over the local CA.
func (s *Source) Certificate(host string) (chain, key []byte, err error) {
	if f, ok := s.find(host); ok {
		return f.chain, f.key, nil
	}
	if s.everyone || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return s.ca.Certificate(host)
	}
	return nil, nil, fmt.Errorf("no certificate for %s: add a file that names it to tls.certificates, or set tls.local_ca: true", host)
}
