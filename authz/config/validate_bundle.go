package config

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"
)

const (
	// MaxBundle is how large a bundle may be, packed, in bytes.
	MaxBundle = 32 << 20
	// minPoll bounds how often a server is asked for a bundle.
	minPoll = 10 * time.Second
)

// bundles checks where bundles come from and how they are verified. What is in them is not looked at.
func (c *checker) bundles(list place) {
	first := make(map[string]int)
	for i := range c.c.Bundles {
		b, p := &c.c.Bundles[i], list.item(i)
		before, taken := first[b.Name]
		switch {
		case !p.has("name"):
			c.add(p.key("name"), "required; give the bundle a name of its own")
		case !routeName.MatchString(b.Name):
			c.add(p.key("name"), "%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(b.Name))
		case strings.Trim(b.Name, ".") == "":
			c.add(p.key("name"), "%q cannot be the name of a file; choose another name", b.Name)
		case taken:
			c.add(p.key("name"), "%q is the name of bundles[%d] too; rename one of them", b.Name, before)
		default:
			first[b.Name] = i
		}
		switch {
		case p.has("url") == p.has("file"):
			c.add(p, "needs one of url and file")
		case p.has("file"):
			c.bundleFile(p, b)
		default:
			c.bundleURL(p, b)
		}
		if b.Signing != nil {
			c.signature(p.key("signing"), b.Signing)
		}
	}
}

func (c *checker) bundleFile(p place, b *Bundle) {
	for _, key := range []string{"poll", "bearer_token_file", "ca_file", "insecure_plain_http"} {
		if p.has(key) {
			c.add(p.key(key), "has no effect on a file; remove it")
		}
	}
	if _, err := c.files.file(b.File); b.File == "" {
		c.add(p.key("file"), "is empty; name a .tar.gz that opa build has made")
	} else if err != nil {
		c.add(p.key("file"), "%s", err)
	}
}

func (c *checker) bundleURL(p place, b *Bundle) {
	host := b.URL.Hostname()
	if b.URL.Scheme() == "http" && !b.PlainHTTP && !IsLocalhost(host) && host != "127.0.0.1" && host != "::1" {
		c.add(p.key("url"), "%q must be https: over http anybody on the way could decide who is let in; http is accepted for localhost, 127.0.0.1, [::1] and "+
			"hosts below .localhost, and with insecure_plain_http: true", shorten(b.URL.String()))
	}
	if poll := time.Duration(b.Poll); poll < minPoll {
		c.add(p.key("poll"), "%s must be at least %s", poll, minPoll)
	}
	if b.CAFile != "" {
		if err := c.pool(b.CAFile); err != nil {
			c.add(p.key("ca_file"), "%s", err)
		}
	}
	if b.BearerTokenFile == "" {
		return
	}
	data, err := c.files.file(b.BearerTokenFile)
	token := string(bytes.TrimSpace(data))
	switch {
	case err != nil:
		c.add(p.key("bearer_token_file"), "%s", err)
	case token == "" || !printable(token):
		c.add(p.key("bearer_token_file"), "%s must hold the token and nothing else", b.BearerTokenFile)
	}
}

// hashes are the shortest secrets of the HMAC algorithms, in bytes: the size of their hash (RFC 7518, section 3.2).
var hashes = map[string]int{"HS256": 32, "HS384": 48, "HS512": 64}

// curves are those of the ECDSA algorithms (RFC 7518, section 3.4).
var curves = map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}

var rsaAlgorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}

// signature checks that there is a key, and that it is one of the algorithm's.
func (c *checker) signature(p place, s *Signing) {
	known := hashes[s.Algorithm] > 0 || curves[s.Algorithm] != "" || slices.Contains(rsaAlgorithms, s.Algorithm)
	if !known {
		c.add(p.key("algorithm"), "%q is not known; it is one of ES256, ES384, ES512, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384 and RS512", shorten(s.Algorithm))
	}
	if s.KeyFile == "" {
		c.add(p.key("key_file"), "required; name the file with the key that verifies")
		return
	}
	data, err := c.files.file(s.KeyFile)
	if err == nil && known {
		err = verificationKey(s.KeyFile, data, s.Algorithm)
	}
	if err != nil {
		c.add(p.key("key_file"), "%s", err)
	}
}

// verificationKey says why data is not a key that verifies signatures of the algorithm. Its errors hold nothing of a secret.
func verificationKey(path string, data []byte, algorithm string) error {
	if least := hashes[algorithm]; least > 0 {
		if len(data) < least {
			return fmt.Errorf("%s has %d bytes; a secret for %s has at least %d", path, len(data), algorithm, least)
		}
		return nil
	}
	want := "an RSA public key"
	if curves[algorithm] != "" {
		want = "an EC public key of the curve " + curves[algorithm]
	}
	wrong := func(what string) error {
		return fmt.Errorf("%s %s; %s is verified with %s in PEM", path, what, algorithm, want)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return wrong("holds no PEM block")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var certificate *x509.Certificate
		if certificate, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = certificate.PublicKey
		}
	default:
		return wrong(fmt.Sprintf("holds a PEM block %q", shorten(block.Type)))
	}
	if err != nil {
		return wrong("holds a key that does not parse")
	}
	switch key := key.(type) {
	case *rsa.PublicKey:
		if slices.Contains(rsaAlgorithms, algorithm) {
			return nil
		}
	case *ecdsa.PublicKey:
		if key.Curve.Params().Name == curves[algorithm] {
			return nil
		}
	}
	return wrong("holds a key of another kind")
}
