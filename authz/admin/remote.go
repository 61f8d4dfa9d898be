package admin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"doorward/authz/config"
)

// Trust is what the API on the network proves itself with, and whom it answers. Immutable.
type Trust struct {
	pair  tls.Certificate
	roots *x509.CertPool
	allow []string
}

// LoadTrust reads the files of a configuration; nil when the API is not on the network.
func LoadTrust(c config.Admin) (*Trust, error) {
	if c.Listen == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	pem, err := os.ReadFile(c.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	t := &Trust{pair: pair, roots: x509.NewCertPool(), allow: c.Allow}
	if !t.roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("admin: %s has no certificate in PEM", c.ClientCAFile)
	}
	return t, nil
}

// Remote is the API on the network: over TLS 1.3 (RFC 8446), for clients with a certificate of their own that is named, and for nobody while there
// is no Trust. Safe for concurrent use.
type Remote struct {
	trust atomic.Pointer[Trust]
	now   func() time.Time
}

// NewRemote returns one that answers nobody yet.
func NewRemote(now func() time.Time) *Remote { return &Remote{now: now} }

// Adopt makes t count for every request from now on, those on connections that are open already among them.
func (r *Remote) Adopt(t *Trust) { r.trust.Store(t) }

var (
	errNoTrust     = errors.New("the admin API is not on the network")
	errCrossOrigin = errors.New("a page of another origin may not change anything here")
)

// TLS is the configuration of a listener. Sessions are not resumed: each connection proves itself by what counts now.
func (r *Remote) TLS() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		t := r.trust.Load()
		if t == nil {
			return nil, errNoTrust
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{t.pair}, NextProtos: []string{"http/1.1"},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: t.roots, SessionTicketsDisabled: true, Time: r.now,
		}, nil
	}}
}

// Guard lets requests of allowed clients through. A certificate is held against the trust anew for each request, so that one which has expired, and a
// name that was taken out of admin.allow, end at once. A browser that has such a certificate does what another site's page tells it, so what
// changes something is refused across origins.
func (r *Remote) Guard(next http.Handler) http.Handler {
	return sameOrigin(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		name, err := r.client(req.TLS)
		if err != nil {
			WriteRefusal(w, http.StatusForbidden, err)
			return
		}
		next.ServeHTTP(w, req.WithContext(context.WithValue(req.Context(), callerKey{}, name)))
	}))
}

// sameOrigin refuses requests of other origins' pages that may change something. Beside the one that the request's host says, origins are its own.
func sameOrigin(next http.Handler, origins ...string) http.Handler {
	cross := http.NewCrossOriginProtection()
	for _, origin := range origins {
		if err := cross.AddTrustedOrigin(origin); err != nil {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteRefusal(w, http.StatusForbidden, errCrossOrigin) })
		}
	}
	cross.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { WriteRefusal(w, http.StatusForbidden, errCrossOrigin) }))
	return cross.Handler(next)
}

// client is the allowed name of the connection's other end.
func (r *Remote) client(state *tls.ConnectionState) (string, error) {
	t := r.trust.Load()
	if t == nil || state == nil || len(state.PeerCertificates) == 0 {
		return "", errNoTrust
	}
	leaf, rest := state.PeerCertificates[0], x509.NewCertPool()
	for _, c := range state.PeerCertificates[1:] {
		rest.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{
		Roots: t.roots, Intermediates: rest, CurrentTime: r.now(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}); err != nil {
		return "", fmt.Errorf("the client's certificate: %w", err)
	}
	names := namesOf(leaf)
	for _, name := range names {
		if slices.Contains(t.allow, name) {
			return name, nil
		}
	}
	return "", fmt.Errorf("admin.allow has none of the names of the client's certificate: %s", strings.Join(names, ", "))
}

// namesOf are the names that a certificate was issued for: DNS names and URIs of the subjectAltName (RFC 5280, section 4.2.1.6), and the common name.
func namesOf(leaf *x509.Certificate) []string {
	names := slices.Clone(leaf.DNSNames)
	for _, u := range leaf.URIs {
		names = append(names, u.String())
	}
	if leaf.Subject.CommonName != "" {
		names = append(names, leaf.Subject.CommonName)
	}
	return names
}

type callerKey struct{}

// Caller names who asked, for logs: a client on the network by its certificate, or the control socket.
func Caller(ctx context.Context) string {
	if name, ok := ctx.Value(callerKey{}).(string); ok {
		return name
	}
	return "control socket"
}
