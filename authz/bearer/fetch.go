package bearer

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"doorward/authz/config"
)

const (
	// fetchTimeout bounds one fetch of an issuer's keys, with the discovery before it.
	fetchTimeout = 10 * time.Second
	// maxAnswer bounds one answer of an issuer, in bytes.
	maxAnswer = 1 << 20
)

// newClient returns the client for one issuer. It follows no redirects: keys are believed from where the configuration or the issuer itself
// says that they are.
func newClient(caFile string) (*http.Client, error) {
	roots, err := config.TrustedRoots(caFile)
	if err != nil {
		return nil, fmt.Errorf("ca_file: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	transport.MaxIdleConns, transport.MaxResponseHeaderBytes = 1, 64<<10
	return &http.Client{
		Transport: transport, Timeout: fetchTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, nil
}

// fetchKeys returns an issuer's keys, from where the configuration says, or discovery (OpenID Connect Discovery 1.0, section 4).
func fetchKeys(ctx context.Context, client *http.Client, i config.TokenIssuer) (*keys, error) {
	at := i.JWKSURL.String()
	if at == "" {
		var err error
		if at, err = discover(ctx, client, i.Issuer.String()); err != nil {
			return nil, err
		}
	}
	answer, err := get(ctx, client, at)
	if err != nil {
		return nil, err
	}
	return parseKeys(answer)
}

func discover(ctx context.Context, client *http.Client, issuer string) (string, error) {
	answer, err := get(ctx, client, strings.TrimSuffix(issuer, "/")+"/.well-known/openid-configuration")
	if err != nil {
		return "", err
	}
	var found struct {
		Issuer string `json:"issuer"`
		JWKS   string `json:"jwks_uri"`
	}
	if json.Unmarshal(answer, &found) != nil || found.Issuer != issuer {
		return "", fmt.Errorf("discovery of %s: what is there is of another issuer", issuer)
	}
	u, err := url.Parse(found.JWKS)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && (u.Scheme != "http" || !strings.HasPrefix(issuer, "http:")) {
		return "", fmt.Errorf("discovery of %s: its jwks_uri is no URL with the issuer's scheme", issuer)
	}
	return found.JWKS, nil
}

// get returns the body of a good answer. Errors do not repeat what the issuer wrote.
func get(ctx context.Context, client *http.Client, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json, application/jwk-set+json")
	res, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: status %d", at, res.StatusCode)
	}
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err == nil && len(answer) > maxAnswer {
		err = errors.New("the answer is larger than 1 MiB")
	}
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", at, err)
	}
	return answer, nil
}
