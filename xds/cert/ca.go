// Package cert is where the hosts' certificates come from: files, an ACME server (package acme gets them), and a local CA for hosts that nobody
// else would certify.
//
// It proves what it hands out (chain, key, names), warns of dates, and asks no server itself. The local CA is for development and for networks of one's own: its
// root is trusted by nobody until somebody installs it.
package cert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	rootLife = 10 * 365 * 24 * time.Hour
	// leafLife is below the 398 days that browsers accept, and short enough that a forgotten copy of a key ends by itself.
	leafLife = 90 * 24 * time.Hour
	// renewBefore leaves a third of a leaf's life for whatever is in the way.
	renewBefore = leafLife / 3
	// backdate is for clocks that are behind.
	backdate = time.Hour
)

// maxCommonName is in characters: RFC 5280, appendix A.1, ub-common-name. Nobody reads it where there is a subjectAltName.
const maxCommonName = 64

// LocalCA issues certificates for single hosts. Safe for concurrent use. Its root bears no name constraints: tls.local_ca lets it issue for
// any host of the configuration, hosts come and go, and a constraint cannot be changed without everybody trusting a new root. So ca.key is
// worth as much as the trust that people put into ca.pem; it never leaves its directory.
type LocalCA struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	now  func() time.Time

	mu     sync.Mutex // guards leaves
	leaves map[string]leaf
}

// leaf is a host's certificate as PEM, which is all of it that is kept, and when the next one is issued.
type leaf struct {
	chain, key []byte
	renew      time.Time
}

// NewLocalCA reads the CA's certificate and key from dir (ca.pem, ca.key), or makes them there, the key with mode 0600. ca.pem is what
// people and programs have to trust.
func NewLocalCA(dir string) (*LocalCA, error) { return openCA(dir, "local CA") }

// openCA reads or makes a CA. What it is called stands in its certificate and in errors.
func openCA(dir, called string) (*LocalCA, error) {
	certFile, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "ca.key")
	chain, err := os.ReadFile(certFile)
	if errors.Is(err, os.ErrNotExist) {
		return createCA(dir, called, certFile, keyFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read the %s: %w", called, err)
	}
	key, err := os.ReadFile(keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the %s's key: %w", called, err)
	}
	ca, err := parseCA(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s in %s: %w; remove the directory to have a new one made, which everybody has to trust again", called, dir, err)
	}
	return ca, nil
}

// Placeholder is a CA in memory, for checking a configuration without touching the data directory.
func Placeholder() (*LocalCA, error) {
	chain, key, err := newRoot("local CA")
	if err != nil {
		return nil, err
	}
	return parseCA(chain, key)
}

// createCA writes the certificate last, so that one that is there has its key.
func createCA(dir, called, certFile, keyFile string) (*LocalCA, error) {
	chain, key, err := newRoot(called)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(dir), 0o700), os.MkdirAll(dir, 0o755)); err != nil {
		return nil, fmt.Errorf("make the %s: %w", called, err)
	}
	if err := writeFile(keyFile, key, 0o600); err != nil {
		return nil, fmt.Errorf("make the %s: %w", called, err)
	}
	if err := writeFile(certFile, chain, 0o644); err != nil {
		return nil, fmt.Errorf("make the %s: %w", called, err)
	}
	return parseCA(chain, key)
}

// writeFile replaces a file whole, and returns once it is on the disk.
func writeFile(path string, data []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it has its name
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func newRoot(called string) (chain, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make the %s's key: %w", called, err)
	}
	now := time.Now()
	name, err := os.Hostname()
	if err != nil {
		name = "unknown machine"
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "Doorward " + called + " on " + name, Organization: []string{"Doorward"}},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(rootLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, fmt.Errorf("make the %s: %w", called, err)
	}
	key, err = encodeKey(private)
	return encodeCert(der), key, err
}

func parseCA(chain, key []byte) (*LocalCA, error) {
	block, _ := pem.Decode(chain)
	if block == nil {
		return nil, errors.New("ca.pem has no PEM block")
	}
	parsed, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, err
	}
	block, _ = pem.Decode(key)
	if block == nil {
		return nil, errors.New("ca.key has no PEM block")
	}
	private, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := private.(*ecdsa.PrivateKey)
	if !ok || !ec.PublicKey.Equal(parsed.PublicKey) {
		return nil, errors.New("ca.key is not the key of ca.pem")
	}
	if time.Now().After(parsed.NotAfter) {
		return nil, fmt.Errorf("ca.pem expired on %s", parsed.NotAfter.Format(time.DateOnly))
	}
	return &LocalCA{cert: parsed, key: ec, pem: chain, now: time.Now, leaves: make(map[string]leaf)}, nil
}

// Certificate returns a PEM chain and key for one host, issued anew when two thirds of the last one's life are over.
func (ca *LocalCA) Certificate(host string) (chain, key []byte, err error) {
	l, err := ca.leaf(host)
	return l.chain, l.key, err
}

// Pair is Certificate, parsed.
func (ca *LocalCA) Pair(host string) (Pair, error) {
	l, err := ca.leaf(host)
	if err != nil {
		return Pair{}, err
	}
	return NewPair(l.chain, l.key, FromLocalCA)
}

func (ca *LocalCA) leaf(host string) (leaf, error) {
	ca.mu.Lock()
	defer ca.mu.Unlock()
	now := ca.now()
	if l, ok := ca.leaves[host]; ok && now.Before(l.renew) {
		return l, nil
	}
	l, err := ca.issue(host, now)
	if err != nil {
		return leaf{}, fmt.Errorf("issue a certificate for %s: %w", host, err)
	}
	ca.leaves[host] = l
	return l, nil
}

func (ca *LocalCA) issue(host string, now time.Time) (leaf, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return leaf{}, err
	}
	subject := pkix.Name{Organization: []string{"Doorward"}}
	if len(host) <= maxCommonName {
		subject.CommonName = host
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial(),
		Subject:      subject,
		DNSNames:     []string{host},
		NotBefore:    now.Add(-backdate),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca.cert, private.Public(), ca.key)
	if err != nil {
		return leaf{}, err
	}
	key, err := encodeKey(private)
	return leaf{append(encodeCert(der), ca.pem...), key, now.Add(leafLife - renewBefore)}, err
}

// serial is 127 random bits: RFC 5280, section 4.1.2.2, asks for a positive number of at most 20 octets.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // never fails (crypto/rand)
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}
