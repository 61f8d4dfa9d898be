package config

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"image"
	"image/png"
	"math/big"
	"strings"
	"testing"
	"time"
)

// newFixtures makes the certificates and keys that the tests' configurations name, below fixtures/.
func newFixtures(t testing.TB) map[string]string {
	t.Helper()
	files := make(map[string]string)
	for name, at := range map[string]time.Time{
		"app":  time.Now().AddDate(0, -1, 0),
		"next": time.Now().AddDate(0, -1, 0),
	} {
		key := ecKey(t, elliptic.P256())
		files["fixtures/"+name+".pem"] = certificate(t, key, at, "app.example.com", "*.wild.example.com")
		files["fixtures/"+name+".key"] = pkcs8(t, key)
	}
	files["fixtures/p384.key"] = pkcs8(t, ecKey(t, elliptic.P384()))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	files["fixtures/rsa.key"] = pkcs8(t, rsaKey)
	sec1, err := x509.MarshalECPrivateKey(ecKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	files["fixtures/sec1.key"] = armour("EC PARAMETERS", []byte{6, 0}) + armour("EC PRIVATE KEY", sec1)
	files["fixtures/garbled.key"] = armour("PRIVATE KEY", []byte("garbled"))
	files["fixtures/garbled.pem"] = files["fixtures/app.pem"] + armour("CERTIFICATE", []byte("garbled"))
	files["fixtures/logo.png"] = picture(t)
	files["fixtures/broken.png"] = files["fixtures/logo.png"][:20]
	files["fixtures/large.svg"] = `<svg xmlns="http://www.w3.org/2000/svg"><!--` + strings.Repeat("x", 64<<10) + `--></svg>`
	return files
}

// picture is a small PNG.
func picture(t testing.TB) string {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, 2, 2))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func ecKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// certificate is valid for three months.
func certificate(t testing.TB, key crypto.Signer, from time.Time, names ...string) string {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "test"},
		DNSNames:     names,
		NotBefore:    from,
		NotAfter:     from.AddDate(0, 3, 0),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return armour("CERTIFICATE", der)
}

func pkcs8(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return armour("PRIVATE KEY", der)
}

func armour(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}
