package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os"
	"time"
)

// key is one signing key. It is never changed.
type key struct {
	id        string // its RFC 7638 thumbprint
	private   *ecdsa.PrivateKey
	jwk       string // public (RFC 7517), as JSON
	header    string // of the JWS that it signs, in base64url
	file      bool   // it was given by SigningKeyFile
	created   time.Time
	signsFrom time.Time
}

// newKey completes a key.
func newKey(private *ecdsa.PrivateKey) (*key, error) {
	point, err := private.PublicKey.Bytes() // 4, x, y (SEC 1, section 2.3.3)
	if err != nil {
		return nil, err
	}
	x, y := encode(point[1:33]), encode(point[33:])
	// The thumbprint is over these members in this order (RFC 7638, section 3.2).
	sum := sha256.Sum256([]byte(`{"crv":"P-256","kty":"EC","x":"` + x + `","y":"` + y + `"}`))
	id := encode(sum[:])
	return &key{
		id:      id,
		private: private,
		jwk:     `{"alg":"ES256","crv":"P-256","kid":"` + id + `","kty":"EC","use":"sig","x":"` + x + `","y":"` + y + `"}`,
		header:  encode([]byte(`{"alg":"ES256","kid":"` + id + `","typ":"JWT"}`)),
	}, nil
}

// generateKey makes a key whose id does not look like an option where it is an argument of a command.
func generateKey() (*key, error) {
	for {
		private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			return nil, fmt.Errorf("generate signing key: %w", err)
		}
		if k, err := newKey(private); err != nil || k.id[0] != '-' {
			return k, err
		}
	}
}

// readKey reads the private key of a PEM file. Its errors hold nothing of the key.
func readKey(file string) (*key, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read signing key: %w", err)
	}
	wrong := func(found string) error {
		return fmt.Errorf("signing key %s: %s; it must be an EC key of curve P-256 in PEM: "+
			"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out %s", file, found, file)
	}
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "EC PARAMETERS" {
			continue // openssl ecparam -genkey writes them before the key
		}
		var parsed any
		switch block.Type {
		case "PRIVATE KEY":
			parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			parsed, err = x509.ParseECPrivateKey(block.Bytes)
		default:
			return nil, wrong(fmt.Sprintf("a PEM block of type %q", block.Type))
		}
		if err != nil {
			return nil, wrong("a key that cannot be parsed, or is encrypted")
		}
		private, ok := parsed.(*ecdsa.PrivateKey)
		if !ok {
			return nil, wrong(fmt.Sprintf("a key of type %T", parsed))
		}
		if private.Curve != elliptic.P256() {
			return nil, wrong("a key of curve " + private.Curve.Params().Name)
		}
		k, err := newKey(private)
		if err != nil {
			return nil, wrong("a key that is not valid")
		}
		k.file = true
		return k, nil
	}
	return nil, wrong("no PEM block")
}

func encode(data []byte) string { return base64.RawURLEncoding.EncodeToString(data) }
