package cert

import (
	"crypto/tls"
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
	ca       *LocalCA
	everyone bool // the CA may issue for any host, not only below .localhost
}

// file is a certificate from a file, with the names that it is good for.
type file struct {
	pair
	leaf *tls.Certificate
}

// NewSource reads the configuration's certificate files. The error joins every file's problem.
func NewSource(c *config.Config, ca *LocalCA) (*Source, error) {
	s := &Source{ca: ca, everyone: c.TLS.LocalCA}
	var errs []error
	for _, f := range c.TLS.Certificates {
		loaded, err := load(f, time.Now())
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.files = append(s.files, loaded)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return s, nil
}

// load proves a file: it parses, the key is the certificate's, and today is within its dates.
func load(c config.Certificate, now time.Time) (file, error) {
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
	if now.After(parsed.Leaf.NotAfter) {
		return file{}, fmt.Errorf("tls.certificates: %s expired on %s: renew it", c.CertFile, parsed.Leaf.NotAfter.Format(time.DateTime))
	}
	return file{pair{chain: chain, key: key}, &parsed}, nil
}

// Certificate returns the PEM chain and key of a host, exact and in lower case. A file wins over the local CA.
func (s *Source) Certificate(host string) (chain, key []byte, err error) {
	for _, f := range s.files {
		if f.leaf.Leaf.VerifyHostname(host) == nil {
			return f.chain, f.key, nil
		}
	}
	if s.everyone || host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return s.ca.Certificate(host)
	}
	return nil, nil, fmt.Errorf("no certificate for %s: add a file that names it to tls.certificates, or set tls.local_ca: true", host)
}
