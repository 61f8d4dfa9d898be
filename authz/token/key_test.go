package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// keyFile writes a new key and returns the file's name.
func keyFile(t *testing.T) string {
	t.Helper()
	k, err := generateKey()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		t.Fatal(err)
	}
	return pemFile(t, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func pemFile(t *testing.T, blocks ...*pem.Block) string {
	t.Helper()
	var data []byte
	for _, block := range blocks {
		data = append(data, pem.EncodeToMemory(block)...)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestSigningKeyFile(t *testing.T) {
	p256, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8 := func(key any) *pem.Block {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return &pem.Block{Type: "PRIVATE KEY", Bytes: der}
	}
	sec1, err := x509.MarshalECPrivateKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	parameters := &pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7}}
	want, err := newKey(p256)
	if err != nil {
		t.Fatal(err)
	}
	for name, file := range map[string]string{
		"PKCS #8":               pemFile(t, pkcs8(p256)),
		"SEC 1":                 pemFile(t, &pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}),
		"SEC 1 with parameters": pemFile(t, parameters, &pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1}),
	} {
		c, clock := setUp(t)
		c.SigningKeyFile = file
		r := open(t, c)
		hasKids(t, r, want.id)
		if err := verify(mint(t, r, alice()), r.JWKS(), clock.Now()); err != nil || r.KeyID() != want.id {
			t.Errorf("%s: kid %s, %v, want %s", name, r.KeyID(), err, want.id)
		}
	}
	for want, file := range map[string]string{
		"no PEM block":                                 pemFile(t),
		"a key of curve P-384":                         pemFile(t, pkcs8(p384)),
		"a key of type *rsa.PrivateKey":                pemFile(t, pkcs8(rsaKey)),
		"a key that cannot be parsed, or is encrypted": pemFile(t, &pem.Block{Type: "PRIVATE KEY", Bytes: sec1[:20]}),
		`a PEM block of type "CERTIFICATE"`:            pemFile(t, &pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}, pkcs8(p256)),
		`a PEM block of type "ENCRYPTED PRIVATE KEY"`:  pemFile(t, &pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}),
	} {
		c, _ := setUp(t)
		c.SigningKeyFile = file
		message := "signing key " + file + ": " + want + "; it must be an EC key of curve P-256 in PEM: " +
			"openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out " + file
		if _, err := Open(t.Context(), c); err == nil || err.Error() != message {
			t.Errorf("got %v\nwant %s", err, message)
		}
	}
}

func TestKeysAreNotPrinted(t *testing.T) {
	c, _ := setUp(t)
	r := open(t, c)
	secret, err := r.at(c.Now()).active.private.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	number := new(big.Int).SetBytes(secret)
	for _, format := range []string{"%v", "%+v", "%#v"} {
		printed := fmt.Sprintf(format, r)
		if strings.Contains(printed, number.String()) || strings.Contains(printed, number.Text(16)) || strings.Contains(printed, fmt.Sprint(secret)) {
			t.Errorf("%s prints the private key", format)
		}
	}
}
