package upstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

const (
	fetchTimeout = 30 * time.Second
	maxKeySet    = 1 << 20
)

// keySet holds the keys of a JWKS URL as Grafana does: it keeps whatever decodes for the whole time to live, an empty set too, and neither an
// unknown key id nor a failed refresh makes a difference to that.
type keySet struct {
	url    string
	caFile string
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	ttl    time.Duration
	now    func() time.Time

	mu      sync.Mutex // also held while fetching: one fetch at a time
	client  *http.Client
	keys    *jose.JSONWebKeySet
	expires time.Time
}

// byID returns the keys with exactly this id.
func (s *keySet) byID(ctx context.Context, kid string) ([]jose.JSONWebKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil || !s.now().Before(s.expires) {
		if err := s.fetch(ctx); err != nil {
			return nil, err
		}
	}
	return s.keys.Key(kid), nil
}

// fetch replaces the keys. The status of the answer is not looked at, only whether its body decodes. The caller holds the lock.
func (s *keySet) fetch(ctx context.Context) error {
	s.keys = nil
	client, err := s.httpClient()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
	if err != nil {
		return fmt.Errorf("fetch %s: %w", s.url, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("fetch the key set: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKeySet))
	if err != nil {
		return fmt.Errorf("fetch %s: %w", s.url, err)
	}
	var keys jose.JSONWebKeySet
	if err := json.NewDecoder(bytes.NewReader(body)).Decode(&keys); err != nil {
		return fmt.Errorf("fetch %s: %w", s.url, err)
	}
	s.keys, s.expires = &keys, s.now().Add(lifetime(s.ttl, resp.Header.Get("Cache-Control")))
	return nil
}

var maxAge = regexp.MustCompile(`max-age=(\d+)`)

// lifetime is the lesser of the time to live and the answer's max-age. no-store and no-cache are not looked at.
func lifetime(ttl time.Duration, cacheControl string) time.Duration {
	found := maxAge.FindStringSubmatch(strings.ToLower(cacheControl))
	if found == nil {
		return ttl
	}
	seconds, err := strconv.ParseInt(found[1], 10, 32)
	if err != nil || seconds <= 0 {
		return ttl
	}
	return min(ttl, time.Duration(seconds)*time.Second)
}

// httpClient makes the client at the first use, because the CA may be made after the application is started. The caller holds the lock.
func (s *keySet) httpClient() (*http.Client, error) {
	if s.client != nil {
		return s.client, nil
	}
	transport := &http.Transport{DialContext: s.dial, Proxy: nil, DisableKeepAlives: true}
	if s.caFile != "" {
		pem, err := os.ReadFile(s.caFile)
		if err != nil {
			return nil, fmt.Errorf("tls_client_ca: %w", err)
		}
		roots := x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, errors.New("tls_client_ca: " + s.caFile + " holds no certificate")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	s.client = &http.Client{Transport: transport, Timeout: fetchTimeout}
	return s.client, nil
}
