package node

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"
)

// renewalPath is where ProtocolRenewal is answered.
const renewalPath = "/renew"

// renewalTime bounds one renewal.
const renewalTime = 15 * time.Second

// maxRequest bounds a certificate request, in bytes.
const maxRequest = 4 << 10

// Key is a node's private key before it has a certificate.
type Key struct{ private *ecdsa.PrivateKey }

// NewKey makes one.
func NewKey() (*Key, error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the node's key: %w", err)
	}
	return &Key{private}, nil
}

// Request is a request for a certificate (PKCS #10, DER). It says nothing but the key: who the node is is known to the other side.
func (k *Key) Request() ([]byte, error) {
	request, err := x509.CreateCertificateRequest(rand.Reader, new(x509.CertificateRequest), k.private)
	if err != nil {
		return nil, fmt.Errorf("make the node's certificate request: %w", err)
	}
	return request, nil
}

// Pair is the key with its certificate, as PEM in one text: one file can be replaced as a whole, two cannot.
func (k *Key) Pair(certificate []byte) ([]byte, error) {
	text, err := encodePair(certificate, k.private)
	if err != nil {
		return nil, err
	}
	if _, err := tls.X509KeyPair(text, text); err != nil {
		return nil, fmt.Errorf("the certificate is not for the node's key: %w", err)
	}
	return text, nil
}

func encodePair(certificate []byte, private *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), certificate...), nil
}

// RenewalHandler serves ProtocolRenewal: POST with a certificate request, answered with the certificate as PEM. What is refused is 403 with the reason.
func (n *Nodes) RenewalHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+renewalPath, func(w http.ResponseWriter, r *http.Request) {
		p := FromContext(r.Context())
		request, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRequest))
		if p == nil || err != nil {
			http.Error(w, "no certificate request of a node", http.StatusBadRequest)
			return
		}
		record, certificate, err := n.Renew(r.Context(), p, request)
		switch {
		case errors.Is(err, ErrRefused):
			n.log.Warn("a renewal is refused", "node", p.Name, "cause", err.Error())
			http.Error(w, err.Error(), http.StatusForbidden)
		case errors.Is(err, errTooSoon):
			http.Error(w, err.Error(), http.StatusTooManyRequests)
		case err != nil:
			n.log.Error("a renewal failed", "node", p.Name, "cause", err.Error())
			http.Error(w, "the certificate cannot be made now", http.StatusInternalServerError)
		default:
			n.log.Info("the certificate of a node is renewed", "node", p.Name, "until", record.Expires)
			_, _ = w.Write(certificate) // the node went away: it asks again
		}
	})
	return mux
}

// Renew asks the doorward at address (host:port) for the next certificate of the node whose key and certificate pair has, as Key.Pair made it. Root is
// the CA's certificate, as PEM. The result is the next pair. ErrRefused means that there will be none: the node has to be certified again.
func Renew(ctx context.Context, address string, pair, root []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, renewalTime)
	defer cancel()
	client, err := renewalClient(address, pair, root)
	if err != nil {
		return nil, err
	}
	defer client.CloseIdleConnections()
	key, err := NewKey()
	if err != nil {
		return nil, err
	}
	request, err := key.Request()
	if err != nil {
		return nil, err
	}
	post, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+renewalPath, bytes.NewReader(request))
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(post)
	if err != nil {
		return nil, unrenewed(address, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("renew the certificate: %w", err)
	}
	switch answer.StatusCode {
	case http.StatusOK:
		return key.Pair(text)
	case http.StatusForbidden:
		return nil, fmt.Errorf("renew the certificate: %w: %s", ErrRefused, bytes.TrimSpace(text))
	}
	return nil, fmt.Errorf("renew the certificate: status %s: %s", answer.Status, bytes.TrimSpace(text))
}

// unrenewed says what it is that doorward has not answered a renewal: the transport knows it by other names.
func unrenewed(address string, err error) error {
	var cause *url.Error
	if errors.As(err, &cause) {
		err = cause.Err
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "remote error" {
		return fmt.Errorf("renew the certificate: %s does not take the one that there is (%w): it was revoked, replaced or is over; certify the node again with doorward envoy bootstrap", address, op.Err)
	}
	return fmt.Errorf("renew the certificate at %s: %w", address, err)
}

// renewalClient speaks ProtocolRenewal. The TLS is below the transport, which knows HTTP by other names.
func renewalClient(address string, pair, root []byte) (*http.Client, error) {
	own, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		return nil, fmt.Errorf("the node's key and certificate: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		return nil, errors.New("the CA's certificate cannot be read")
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("address of doorward: %w", err)
	}
	dialer := &tls.Dialer{Config: &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: host, RootCAs: roots, Certificates: []tls.Certificate{own}, NextProtos: []string{ProtocolRenewal},
	}}
	return &http.Client{
		Transport:     &http.Transport{DialContext: dialer.DialContext, Proxy: nil, DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// Lifetime is when a pair's certificate ends.
func Lifetime(pair []byte) (expires time.Time, err error) {
	own, err := tls.X509KeyPair(pair, pair)
	if err != nil {
		return time.Time{}, fmt.Errorf("the node's key and certificate: %w", err)
	}
	return own.Leaf.NotAfter, nil
}
