package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

// keyPair is what a certificate file and its key file came to.
type keyPair struct {
	leaf *x509.Certificate
	err  error
}

// pair reads a certificate chain and its key, each pair once.
func (c *checker) pair(files Certificate) (*x509.Certificate, error) {
	p, ok := c.pairs[files]
	if !ok {
		p.leaf, p.err = c.readPair(files)
		c.pairs[files] = p
	}
	return p.leaf, p.err
}

func (c *checker) readPair(files Certificate) (*x509.Certificate, error) {
	cert, certErr := c.files.file(files.CertFile)
	key, keyErr := c.files.file(files.KeyFile)
	if certErr != nil || keyErr != nil {
		return nil, firstOf(certErr, keyErr)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s are not a certificate in PEM and its key: %s", files.CertFile, files.KeyFile,
			strings.TrimPrefix(err.Error(), "tls: "))
	}
	return pair.Leaf, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// pool checks a file of trusted certificates, each file once.
func (c *checker) pool(path string) error {
	err, ok := c.pools[path]
	if !ok {
		err = c.readPool(path)
		c.pools[path] = err
	}
	return err
}

func (c *checker) readPool(path string) error {
	data, err := c.files.file(path)
	if err != nil {
		return err
	}
	n := 0
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type != "CERTIFICATE" {
			return fmt.Errorf("%s holds a PEM block %q; it must hold certificates only", path, shorten(block.Type))
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return fmt.Errorf("certificate %d of %s does not parse: %s", n+1, path, strings.TrimPrefix(err.Error(), "x509: "))
		}
		n++
	}
	if n == 0 {
		return fmt.Errorf("%s holds no certificate in PEM; it must hold those to trust", path)
	}
	return nil
}

// signingKey checks that a file holds an EC private key of the curve P-256, in PKCS #8 (RFC 5208) or SEC 1 (RFC 5915). Its errors hold
// nothing of the key.
func (c *checker) signingKey(path string) error {
	data, err := c.files.file(path)
	if err != nil {
		return err
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		switch block.Type {
		case "EC PARAMETERS": // openssl ecparam -genkey writes them before the key
		case "PRIVATE KEY", "EC PRIVATE KEY":
			return isP256(path, block.Bytes)
		default:
			return wrongKey(path, fmt.Sprintf("holds a PEM block %q", shorten(block.Type)))
		}
	}
	return wrongKey(path, "holds no PEM block")
}

func isP256(path string, der []byte) error {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		key, err = x509.ParseECPrivateKey(der)
	}
	if err != nil {
		return wrongKey(path, "holds a key that does not parse")
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return wrongKey(path, "holds a key of another kind")
	}
	if private.Curve != elliptic.P256() {
		return wrongKey(path, "holds a key of the curve "+private.Curve.Params().Name)
	}
	return nil
}

func wrongKey(path, what string) error {
	return errors.New(path + " " + what + "; it must be an EC private key of the curve P-256 in PEM: " +
		"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256")
}

// TrustedRoots are the system's certificates and those of a file in PEM; nil, which stands for the system's, without a file. The error names the
// file.
func TrustedRoots(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s has no certificate in PEM", file)
	}
	return pool, nil
}
