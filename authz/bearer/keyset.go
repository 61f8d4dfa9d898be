package bearer

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz/config"

	jose "github.com/go-jose/go-jose/v4"
)

const (
	// keysFresh is after what time keys are fetched anew in the background, so that one that the issuer has withdrawn is not believed for long.
	keysFresh = 15 * time.Minute
	// unknownEvery is how often a key that is not known may have them fetched, however many tokens name one: anybody can make such tokens.
	unknownEvery = 10 * time.Second
	// longestRetry is how long to wait at most until they are fetched again after a failure.
	longestRetry = 30 * time.Second
	// keysWait is how long one request waits for a fetch. Envoy waits a second for the whole answer.
	keysWait = 300 * time.Millisecond
	// maxKeys bounds a set. Issuers have a few.
	maxKeys = 100
	// minRSA is the smallest RSA key that is used, in bits (RFC 7518, section 3.3).
	minRSA = 2048
)

// keys are the usable public keys of one answer of an issuer. They are never changed.
type keys struct {
	all    []jose.JSONWebKey
	digest [32]byte // of the answer
}

// keySet is an issuer's JSON Web Key Set (RFC 7517). The last good one is kept while the issuer cannot be asked.
type keySet struct {
	issuer config.TokenIssuer
	client *http.Client
	log    *slog.Logger
	now    func() time.Time

	current atomic.Pointer[keys] // nil when there was no good answer yet
	due     atomic.Int64         // when to fetch anew without any need, in Unix nanoseconds

	mu       sync.Mutex    // guards what follows
	ended    time.Time     // when the last fetch did; zero before the first
	failures int           // since the last good one
	err      error         // of the last fetch
	running  chan struct{} // closed when the fetch under way ends; nil when there is none
}

// with returns the issuer's keys, after a fetch when none has that kid and one is due. It waits for that no longer than keysWait. The error says that
// there was never an answer of the issuer's.
func (k *keySet) with(ctx context.Context, kid string) (*keys, error) {
	known := k.current.Load()
	if known != nil && (kid == "" || known.has(kid)) {
		k.keepFresh()
		return known, nil
	}
	if running := k.refresh(); running != nil {
		timer := time.NewTimer(keysWait)
		defer timer.Stop()
		select {
		case <-running:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	if known = k.current.Load(); known != nil {
		return known, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return nil, fmt.Errorf("the keys of the token issuer %s are not known: %w", k.issuer.Name, k.err)
	}
	return nil, fmt.Errorf("the keys of the token issuer %s are not known yet", k.issuer.Name)
}

// keepFresh starts a fetch when the keys are old. It waits for nothing.
func (k *keySet) keepFresh() {
	if k.now().UnixNano() >= k.due.Load() {
		k.refresh()
	}
}

// refresh starts a fetch unless there was one lately, and returns the one that is under way, or nil.
func (k *keySet) refresh() <-chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	wait := unknownEvery
	if k.failures > 0 {
		wait = min(time.Second<<min(k.failures-1, 10), longestRetry) // 1 s, 2 s, 4 s, ...
	}
	if k.running == nil && (k.ended.IsZero() || k.now().Sub(k.ended) >= wait) {
		k.running = make(chan struct{})
		go k.fetch()
	}
	return k.running
}

// fetch asks the issuer. It does not depend on the request that started it, and ends by itself within fetchTimeout.
func (k *keySet) fetch() {
	ctx, cancel := context.WithTimeout(context.Background(), fetchTimeout)
	defer cancel()
	fetched, err := fetchKeys(ctx, k.client, k.issuer)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended, k.err = k.now(), err
	if err != nil {
		if k.failures++; k.failures == 1 {
			k.log.Warn("the keys of a token issuer cannot be fetched; those that are known stay", "issuer", k.issuer.Name, "cause", err)
		}
		k.due.Store(0)
	} else {
		if k.failures > 0 {
			k.log.Info("the keys of a token issuer can be fetched again", "issuer", k.issuer.Name)
		}
		k.failures = 0
		k.due.Store(k.ended.Add(keysFresh).UnixNano())
		if known := k.current.Load(); known == nil || known.digest != fetched.digest {
			k.current.Store(fetched)
		}
	}
	close(k.running)
	k.running = nil
}

func (k *keys) has(kid string) bool {
	return slices.ContainsFunc(k.all, func(key jose.JSONWebKey) bool { return key.KeyID == kid })
}

// candidates are the keys that can have signed: of that kid, if there is one, and for that algorithm.
func (k *keys) candidates(kid, alg string) (found []any) {
	for _, key := range k.all {
		if (kid == "" || key.KeyID == kid) && (key.Algorithm == "" || key.Algorithm == alg) && fits(key.Key, alg) {
			found = append(found, key.Key)
		}
	}
	return found
}

// fits says whether a key is of the kind that an algorithm asks for (RFC 7518, section 3.1; RFC 8037, section 3.1). No secret is one.
func fits(key any, alg string) bool {
	switch key := key.(type) {
	case *rsa.PublicKey:
		return (strings.HasPrefix(alg, "RS") || strings.HasPrefix(alg, "PS")) && key.N.BitLen() >= minRSA
	case *ecdsa.PublicKey:
		return map[string]string{"ES256": "P-256", "ES384": "P-384", "ES512": "P-521"}[alg] == key.Curve.Params().Name
	case ed25519.PublicKey:
		return alg == "EdDSA"
	}
	return false
}

// parseKeys reads an answer. Keys that are not for signatures, not public or not understood are left out, as RFC 7517, section 5, asks for.
func parseKeys(answer []byte) (*keys, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(answer, &set); err != nil {
		return nil, errors.New("the key set is no JSON object with keys")
	}
	out := &keys{digest: sha256.Sum256(answer)}
	for _, text := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var key jose.JSONWebKey
		if key.UnmarshalJSON(text) != nil || key.Use != "" && key.Use != "sig" {
			continue
		}
		switch key.Key.(type) {
		case *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey:
			out.all = append(out.all, key)
		}
	}
	if len(out.all) == 0 {
		return nil, errors.New("the key set has no public key for signatures")
	}
	return out, nil
}
