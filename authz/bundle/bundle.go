// Package bundle fetches OPA bundles over HTTP and keeps the last good one of each in a file. It knows nothing of what is in them: what it
// returns is not verified.
package bundle

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"syscall"
	"time"

	"doorward/authz/config"
)

const (
	// fetchTimeout bounds one request, with its redirects and the whole answer.
	fetchTimeout = 30 * time.Second
	dialTimeout  = 10 * time.Second
	// maxRedirects is how often a server may send on to another one.
	maxRedirects = 3
	// maxETag bounds what is remembered of a server's answer, in bytes.
	maxETag = 1 << 10
)

// ErrNotModified says that the server still has what the ETag names.
var ErrNotModified = errors.New("not modified")

// Source is where one bundle comes from. Safe for concurrent use.
type Source struct {
	bundle config.Bundle
	client *http.Client
}

// NewSource returns the source of a bundle with a URL. It opens no connection.
func NewSource(b config.Bundle) (*Source, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	transport.MaxIdleConns = 1
	transport.MaxResponseHeaderBytes = 64 << 10
	transport.DisableCompression = true // a bundle is compressed; what a server adds to that would be unpacked without a bound
	if b.CAFile != "" {
		roots, err := trusted(b.CAFile)
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig.RootCAs = roots
	}
	s := &Source{bundle: b}
	if b.URL.Scheme() == "http" && !b.PlainHTTP {
		// The name may be anybody's to resolve, so what counts is where it leads.
		transport.Proxy = nil
		transport.DialContext = (&net.Dialer{Timeout: dialTimeout, Control: onlyHere}).DialContext
	}
	s.client = &http.Client{Timeout: fetchTimeout, Transport: transport, CheckRedirect: s.redirect}
	return s, nil
}

func trusted(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		return nil, fmt.Errorf("read the system's certificates: %w", err)
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM", file)
	}
	return roots, nil
}

// onlyHere refuses to connect to another machine.
func onlyHere(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil {
		return err
	}
	if !to.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is another machine, and the URL is plain http", to.Addr())
	}
	return nil
}

// redirect follows a few, and none from https to http. The token is sent to the first host alone (net/http, Client).
func (s *Source) redirect(next *http.Request, before []*http.Request) error {
	if len(before) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	if next.URL.Scheme != "https" && before[0].URL.Scheme == "https" {
		return errors.New("a redirect from https to http")
	}
	return nil
}

// Fetch asks for the bundle. With the ETag of an answer that is still good, it returns ErrNotModified when the server has no other. The new ETag
// is "" when the server gives none. Errors name neither the token nor what the server wrote.
func (s *Source) Fetch(ctx context.Context, etag string) (archive []byte, newETag string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.bundle.URL.String(), nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "application/gzip, application/vnd.openpolicyagent.bundles, */*;q=0.1")
	req.Header.Set("User-Agent", "doorward")
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	if s.bundle.BearerTokenFile != "" {
		token, err := os.ReadFile(s.bundle.BearerTokenFile)
		if err != nil {
			return nil, "", fmt.Errorf("bearer_token_file: %w", err)
		}
		req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	}
	res, err := s.client.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	switch {
	case res.StatusCode == http.StatusNotModified && etag != "":
		return nil, "", ErrNotModified
	case res.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("get %s: status %d", s.bundle.URL, res.StatusCode)
	case res.ContentLength > config.MaxBundle:
		return nil, "", tooLarge(s.bundle.URL)
	}
	archive, err = io.ReadAll(io.LimitReader(res.Body, config.MaxBundle+1))
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", s.bundle.URL, err)
	}
	if len(archive) > config.MaxBundle {
		return nil, "", tooLarge(s.bundle.URL)
	}
	if newETag = res.Header.Get("ETag"); len(newETag) > maxETag {
		newETag = ""
	}
	return archive, newETag, nil
}

func tooLarge(u config.URL) error {
	return fmt.Errorf("get %s: it is larger than %d MiB", u, config.MaxBundle>>20)
}
