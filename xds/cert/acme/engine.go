package acme

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"time"

	"doorward/authz/config"
	"doorward/xds/cert"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"
	"go.uber.org/zap"
)

const (
	// checkEvery is how often a certificate that is well is looked after: whether the server wants it renewed sooner (ARI, RFC 9773), and whether
	// its OCSP response is still fresh.
	checkEvery = 10 * time.Minute
	// tendTimeout bounds one try to get or renew a certificate; orderTimeout the part of it in which the server looks for the challenge.
	tendTimeout, orderTimeout = 5 * time.Minute, 2 * time.Minute
	// renewMargin is how long after that moment it is looked after: certmagic must not find that it is too early still.
	renewMargin = time.Second
	// renewShare of a certificate's life is left when it is renewed, where the server says nothing else.
	renewShare = 1.0 / 3
)

// engine is certmagic with the settings of one configuration. It does what it is told to, once, and starts nothing by itself: when is Client's
// concern.
type engine struct {
	settings *config.ACME
	storage  *storage
	cache    *certmagic.Cache
	magic    *certmagic.Config
	issuer   *certmagic.ACMEIssuer
}

// newEngine reads the files that the settings name.
func newEngine(settings *config.ACME, s *storage, ports solverPorts) (*engine, error) {
	roots, err := config.TrustedRoots(settings.CAFile)
	if err != nil {
		return nil, fmt.Errorf("tls.acme.ca_file: %w", err)
	}
	e := &engine{settings: settings, storage: s}
	e.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert:   func(certmagic.Certificate) (*certmagic.Config, error) { return e.magic, nil },
		RenewCheckInterval: checkEvery,
		Logger:             zap.NewNop(),
	})
	e.cache.Stop() // its own maintenance; the cache goes on
	e.magic = certmagic.New(e.cache, certmagic.Config{
		Storage: s, RenewalWindowRatio: renewShare, DisableStorageCheck: true,
		OCSP:   certmagic.OCSPConfig{HTTPProxy: http.ProxyFromEnvironment}, // without one it waits for ever
		Logger: zap.NewNop(),                                               // its errors are returned too
	})
	e.issuer = certmagic.NewACMEIssuer(e.magic, certmagic.ACMEIssuer{
		CA: settings.Directory.String(), Email: settings.Email, Agreed: true,
		ExternalAccount:         externalAccount(settings.EAB),
		DisableHTTPChallenge:    !settings.Solves(config.ChallengeHTTP),
		DisableTLSALPNChallenge: !settings.Solves(config.ChallengeTLSALPN),
		ListenHost:              "127.0.0.1", AltHTTPPort: ports.http, AltTLSALPNPort: ports.tls,
		TrustedRoots: roots, CertObtainTimeout: orderTimeout, Logger: zap.NewNop(),
	})
	e.magic.Issuers = []certmagic.Issuer{e.issuer}
	return e, nil
}

func externalAccount(e *config.EAB) *acme.EAB {
	if e == nil {
		return nil
	}
	return &acme.EAB{KeyID: e.KeyID, MACKey: string(e.HMACKey)}
}

// kept is a certificate of the store.
type kept struct {
	cert.Pair
	renew time.Time // when it is due to be renewed
}

// load reads the certificate of a host, without an OCSP response. The error is fs.ErrNotExist when there is none.
func (e *engine) load(ctx context.Context, host string) (kept, error) {
	issuer := e.issuer.IssuerKey()
	chain, err := e.storage.Load(ctx, certmagic.StorageKeys.SiteCert(issuer, host))
	if err != nil {
		return kept{}, err
	}
	key, err := e.storage.Load(ctx, certmagic.StorageKeys.SitePrivateKey(issuer, host))
	if err != nil {
		return kept{}, err
	}
	meta, err := e.storage.Load(ctx, certmagic.StorageKeys.SiteMeta(issuer, host))
	if err != nil {
		return kept{}, err
	}
	pair, err := cert.NewPair(chain, key, cert.FromACME)
	if err == nil {
		err = pair.Covers(host)
	}
	if err != nil {
		return kept{}, fmt.Errorf("the certificate that is kept for %s: %w", host, err)
	}
	return kept{pair, renewal(pair.Leaf, meta)}, nil
}

// renewal is when a certificate is due to be renewed: when a share of its life is left, or when the server wants it if that is sooner. meta is what
// certmagic keeps beside the certificate.
func renewal(leaf *x509.Certificate, meta []byte) time.Time {
	end := leaf.NotAfter.Add(time.Second) // of the second that it is good for still, as certmagic counts
	at := end.Add(-time.Duration(float64(end.Sub(leaf.NotBefore)) * renewShare))
	var resource certmagic.CertificateResource
	var issued acme.Certificate
	if json.Unmarshal(meta, &resource) != nil || json.Unmarshal(resource.IssuerData, &issued) != nil || issued.RenewalInfo == nil {
		return at
	}
	if wanted := issued.RenewalInfo.SelectedTime; !wanted.IsZero() && wanted.Before(at) {
		return wanted
	}
	return at
}

// tend gets the certificate of a host when there is none, renews it when it is due, and fetches its OCSP response, each at most once; failures says how
// often that has failed in a row. It returns what is there afterwards, which may be the old one beside an error.
func (e *engine) tend(ctx context.Context, host string, failures int) (kept, error) {
	ctx, cancel := context.WithTimeout(ctx, tendTimeout)
	defer cancel()
	// After a failure, Let's Encrypt's staging server is tried first, since production bears few failures an hour.
	ctx = context.WithValue(ctx, certmagic.AttemptsCtxKey, &failures)
	e.forget(host)
	defer e.forget(host)
	err := e.magic.ManageSync(ctx, []string{host})
	k, loadErr := e.load(ctx, host)
	if loadErr != nil {
		if err == nil || !errors.Is(loadErr, fs.ErrNotExist) {
			err = errors.Join(err, loadErr)
		}
		return kept{}, err
	}
	for _, cached := range e.cache.AllMatchingCertificates(host) {
		if cached.Leaf != nil && cached.Leaf.Equal(k.Leaf) {
			k.Staple = cached.OCSPStaple
		}
	}
	return k, err
}

// forget has certmagic read the certificate from the store again; it would take one that it has in memory for up to date.
func (e *engine) forget(host string) {
	e.cache.RemoveManaged([]certmagic.SubjectIssuer{{Subject: host}})
}
