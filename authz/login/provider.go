package login

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"doorward/authz/config"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"
)

const (
	providerTimeout  = 10 * time.Second // of one exchange with the provider
	providerBody     = 1 << 20          // bytes of one answer of the provider
	discoveryFresh   = time.Hour        // after which discovery is repeated in the background
	answeredLately   = 5 * time.Second  // how old a good answer may be for a browser to be sent to the provider
	answersWithin    = 3 * time.Second  // how long a browser waits for a newer one
	discoveryBackoff = 10 * time.Second // longest wait between two failed discoveries
)

// providers finds out about providers when they are first needed, and remembers the last good answer.
type providers struct {
	now    func() time.Time
	client *http.Client // nil for one with the provider's CAFile

	mu    sync.Mutex
	known map[providerKey]*provider
}

// providerKey is all that discovery depends on.
type providerKey struct{ issuer, caFile string }

// provider is what is known of one issuer.
type provider struct {
	mu       sync.Mutex
	last     *metadata     // nil when there was no good answer yet
	tried    time.Time     // when the last discovery ended
	failures int           // since the last good answer
	err      error         // of the last discovery
	running  chan struct{} // closed when the discovery under way ends; nil when there is none
}

// metadata is a provider's answer to discovery (OpenID Connect Discovery 1.0, section 3), checked. Immutable.
type metadata struct {
	oidc       *oidc.Provider
	client     *http.Client
	issuer     string
	endSession string // "" when there is none that is a URL as it should be
	sendsIss   bool   // RFC 9207, section 3
	authStyle  oauth2.AuthStyle
}

// get returns what is known of the configured provider. It waits for discovery only when there was no good answer yet, and then for as
// long as ctx lives. After a failure it answers with the same error until it is time to try again.
func (ps *providers) get(ctx context.Context, idp config.IDP) (*metadata, error) {
	p, key := ps.of(idp)
	running, m, err := p.state(ps, key, discoveryFresh)
	if m != nil || running == nil {
		return m, err
	}
	select {
	case <-running:
		_, m, err = p.result()
		return m, err
	case <-ctx.Done():
		return nil, fmt.Errorf("discovery of %s: %w", key.issuer, ctx.Err())
	}
}

// answering is get for a browser that is to be sent to the provider: whoever does not answer us has a page of ours shown in place of the
// browser's own error. A provider that is only slow is left to the browser.
func (ps *providers) answering(ctx context.Context, idp config.IDP) (*metadata, error) {
	p, key := ps.of(idp)
	running, m, _ := p.state(ps, key, answeredLately)
	if running != nil && m != nil {
		select {
		case <-running:
		case <-time.After(answersWithin):
			return m, nil
		case <-ctx.Done():
			return nil, fmt.Errorf("discovery of %s: %w", key.issuer, ctx.Err())
		}
	}
	if m, err := ps.get(ctx, idp); m == nil {
		return nil, err
	}
	_, m, err := p.result()
	if err != nil {
		return nil, err
	}
	return m, nil
}

// of is what is known of the configured provider.
func (ps *providers) of(idp config.IDP) (*provider, providerKey) {
	key := providerKey{idp.Issuer.String(), idp.CAFile}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p := ps.known[key]
	if p == nil {
		p = &provider{}
		ps.known[key] = p
	}
	return p, key
}

// state returns the last good answer, or the discovery to wait for, or the error to give. It starts a discovery when one is
// due: when the last good answer is older than fresh, or after a failure its time has come.
func (p *provider) state(ps *providers, key providerKey, fresh time.Duration) (chan struct{}, *metadata, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	wait := min(time.Second<<min(p.failures, 10)/2, discoveryBackoff) // 1 s, 2 s, 4 s, ...
	if p.failures == 0 {
		wait = fresh
	}
	if p.running == nil && (p.tried.IsZero() || ps.now().Sub(p.tried) >= wait) {
		p.running = make(chan struct{})
		go p.discover(ps, key)
	}
	return p.running, p.last, p.err
}

func (p *provider) result() (chan struct{}, *metadata, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.running, p.last, p.err
}

// discover asks the provider. It does not depend on the request that started it, and ends by itself within providerTimeout.
func (p *provider) discover(ps *providers, key providerKey) {
	ctx, cancel := context.WithTimeout(context.Background(), providerTimeout)
	defer cancel()
	m, err := discover(ctx, ps.client, key)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = ps.now()
	if err == nil {
		p.last, p.err, p.failures = m, nil, 0
	} else {
		p.failures++
		p.err = err
	}
	close(p.running)
	p.running = nil
}

// discover reads and checks a provider's metadata.
func discover(ctx context.Context, base *http.Client, key providerKey) (*metadata, error) {
	client, err := newClient(base, key.caFile)
	if err != nil {
		return nil, err
	}
	p, err := oidc.NewProvider(oidc.ClientContext(ctx, client), key.issuer)
	if err != nil {
		return nil, fmt.Errorf("discovery of %s: %w", key.issuer, err)
	}
	var more struct {
		JWKS        string   `json:"jwks_uri"`
		EndSession  string   `json:"end_session_endpoint"`
		SendsIss    bool     `json:"authorization_response_iss_parameter_supported"`
		AuthMethods []string `json:"token_endpoint_auth_methods_supported"`
	}
	if err := p.Claims(&more); err != nil {
		return nil, fmt.Errorf("discovery of %s: %w", key.issuer, err)
	}
	var errs []error
	for _, e := range []struct{ name, url string }{
		{"authorization_endpoint", p.Endpoint().AuthURL}, {"token_endpoint", p.Endpoint().TokenURL}, {"jwks_uri", more.JWKS},
	} {
		if !isEndpoint(e.url, key.issuer) {
			errs = append(errs, fmt.Errorf("discovery of %s: %s %q is no URL with the issuer's scheme", key.issuer, e.name, e.url))
		}
	}
	if !isEndpoint(more.EndSession, key.issuer) {
		more.EndSession = ""
	}
	m := &metadata{oidc: p, client: client, issuer: key.issuer, endSession: more.EndSession, sendsIss: more.SendsIss}
	m.authStyle = authStyle(more.AuthMethods)
	return m, errors.Join(errs...)
}

// isEndpoint says whether an endpoint is an absolute https URL, or an http one of an http issuer.
func isEndpoint(endpoint, issuer string) bool {
	u, err := url.Parse(endpoint)
	i, err2 := url.Parse(issuer)
	return err == nil && err2 == nil && u.Host != "" && u.User == nil && u.Fragment == "" && (u.Scheme == "https" || u.Scheme == "http" && i.Scheme == "http")
}

// authStyle chooses how the client authenticates. Trying both, as x/oauth2 does when it is not told, could spend the code on the first.
func authStyle(methods []string) oauth2.AuthStyle {
	if len(methods) > 0 && !slices.Contains(methods, "client_secret_basic") && slices.Contains(methods, "client_secret_post") {
		return oauth2.AuthStyleInParams
	}
	return oauth2.AuthStyleInHeader // client_secret_basic is the default (OpenID Connect Discovery 1.0, section 3)
}

// oauth is our registration with the provider.
func (m *metadata) oauth(s *Settings, idp config.IDP) *oauth2.Config {
	endpoint := m.oidc.Endpoint()
	endpoint.AuthStyle = m.authStyle
	if idp.ClientSecret == "" {
		endpoint.AuthStyle = oauth2.AuthStyleInParams // a public client only names itself (RFC 6749, section 3.2.1)
	}
	return &oauth2.Config{
		ClientID: idp.ClientID, ClientSecret: string(idp.ClientSecret), Endpoint: endpoint,
		RedirectURL: s.atAuth("/callback"), Scopes: scopes(idp.Scopes),
	}
}

// scopes always have openid.
func scopes(configured []string) []string {
	if len(configured) == 0 {
		return []string{oidc.ScopeOpenID, oidc.ScopeProfile, oidc.ScopeEmail}
	}
	if slices.Contains(configured, oidc.ScopeOpenID) {
		return configured
	}
	return append([]string{oidc.ScopeOpenID}, configured...)
}

// newClient returns the client for one provider: bounded in time and size, and without redirects, which could carry the client's
// secret to another host. base nil means one that trusts the system's roots and those of caFile.
func newClient(base *http.Client, caFile string) (*http.Client, error) {
	var client http.Client
	if base != nil {
		client = *base
	} else {
		roots, err := config.TrustedRoots(caFile)
		if err != nil {
			return nil, fmt.Errorf("idp.ca_file: %w", err)
		}
		transport := http.DefaultTransport.(*http.Transport).Clone()
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
		client.Transport = transport
	}
	if client.Transport == nil {
		client.Transport = http.DefaultTransport
	}
	client.Transport = boundedTransport{client.Transport}
	client.Timeout = providerTimeout
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client, nil
}

// boundedTransport bounds the size of answers.
type boundedTransport struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (t boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = http.MaxBytesReader(nil, response.Body, providerBody)
	}
	return response, err
}
