package bearer

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"

	jose "github.com/go-jose/go-jose/v4"
)

// IssuersConfig is what Issuers need. Only Log is required.
type IssuersConfig struct {
	Log    *slog.Logger
	Client *http.Client     // for tests; else one for each issuer
	Now    func() time.Time // time.Now when nil
}

// Issuers verify JWTs of the issuers that are configured. Their keys are fetched in the background and kept, so that an issuer that is down keeps
// nobody out whose token its known keys verify. Safe for concurrent use.
type Issuers struct {
	IssuersConfig
	set atomic.Pointer[IssuerSet]
}

// IssuerSet is the issuers of one configuration, with the tokens of theirs that were verified. A token is verified once, and again when the
// issuer's keys have changed.
type IssuerSet struct {
	configured []config.TokenIssuer
	byName     map[string]*issuer
	verified   *verified
}

// issuer is one of them.
type issuer struct {
	config.TokenIssuer
	version    uint64 // a hash of the configuration, which says how claims are read
	algorithms []jose.SignatureAlgorithm
	keys       *keySet
}

// NewIssuers returns Issuers that know none yet.
func NewIssuers(c IssuersConfig) (*Issuers, error) {
	if c.Log == nil {
		return nil, errors.New("bearer: Log is required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	x := &Issuers{IssuersConfig: c}
	x.set.Store(&IssuerSet{verified: new(verified)})
	return x, nil
}

// Prepare makes a set, with what is known of issuers that have not changed. It starts nothing.
func (x *Issuers) Prepare(configured []config.TokenIssuer) (*IssuerSet, error) {
	old := x.set.Load()
	if reflect.DeepEqual(old.configured, configured) {
		return old, nil
	}
	set := &IssuerSet{configured: configured, byName: make(map[string]*issuer), verified: new(verified)}
	for _, c := range configured {
		if before := old.byName[c.Name]; before != nil && reflect.DeepEqual(before.TokenIssuer, c) {
			set.byName[c.Name] = before
			continue
		}
		made, err := x.newIssuer(c)
		if err != nil {
			return nil, fmt.Errorf("token_issuers[%s]: %w", c.Name, err)
		}
		set.byName[c.Name] = made
	}
	return set, nil
}

func (x *Issuers) newIssuer(c config.TokenIssuer) (*issuer, error) {
	text, err := json.Marshal(c)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(text)
	i := &issuer{TokenIssuer: c, version: binary.BigEndian.Uint64(sum[:])}
	for _, name := range c.Algorithms {
		i.algorithms = append(i.algorithms, jose.SignatureAlgorithm(name))
	}
	client := x.Client
	if client == nil {
		if client, err = newClient(c.CAFile); err != nil {
			return nil, err
		}
	}
	i.keys = &keySet{issuer: c, client: client, log: x.Log, now: x.Now}
	return i, nil
}

// Adopt has tokens be verified by a set, and fetches the keys that are not known yet.
func (x *Issuers) Adopt(set *IssuerSet) {
	x.set.Store(set)
	for _, i := range set.byName {
		if i.keys.current.Load() == nil {
			i.keys.refresh()
		}
	}
}

// find is Finder.Find for a JWT.
func (x *Issuers) find(ctx context.Context, token string, names []string) (*session.Session, error) {
	set, now := x.set.Load(), x.Now()
	for _, name := range names {
		if i := set.byName[name]; i != nil {
			if found := set.verified.get(i.id(token), now); found != nil {
				return found, nil
			}
		}
	}
	t, err := parseJWT(token)
	if err != nil {
		return nil, err
	}
	i, err := set.choose(t, names)
	if err != nil {
		return nil, err
	}
	keys, err := i.verify(ctx, t, now)
	if err != nil {
		return nil, err
	}
	found, err := t.session(&i.TokenIssuer)
	if err != nil {
		return nil, err
	}
	id := i.id(token)
	found.ID, found.Version = hex.EncodeToString(id[:]), i.version
	set.verified.put(id, &verifiedToken{session: &found, set: i.keys, keys: keys})
	return &found, nil
}

// choose returns the issuer of a token among those that a route takes. Several may have the same URL and differ in their audiences.
func (set *IssuerSet) choose(t *jwt, names []string) (*issuer, error) {
	of := t.text("iss")
	err := invalid("its issuer is %q, of which the route takes no tokens", shorten(of))
	for _, name := range names {
		i := set.byName[name]
		if i == nil || i.Issuer.String() != of {
			continue
		}
		if t.isFor(i.Audiences) {
			return i, nil
		}
		err = invalid("it is for another audience than those of the issuer %s here", i.Name)
	}
	return nil, err
}

// verify makes every check of a token that is left, and returns the keys that it was verified with.
func (i *issuer) verify(ctx context.Context, t *jwt, now time.Time) (*keys, error) {
	if !slices.Contains(i.Algorithms, t.alg) {
		return nil, invalid("its algorithm is %q, which the issuer %s does not use here", shorten(t.alg), i.Name)
	}
	if err := t.check(now); err != nil {
		return nil, err
	}
	known, err := i.keys.with(ctx, t.kid)
	if err != nil {
		return nil, err
	}
	signed, err := jose.ParseSignedCompact(t.compact, i.algorithms)
	if err != nil {
		return nil, invalid("it cannot be read as a signed JWT")
	}
	candidates := known.candidates(t.kid, t.alg)
	if len(candidates) == 0 {
		return nil, invalid("the issuer %s has no key %q for %s", i.Name, shorten(t.kid), t.alg)
	}
	for _, key := range candidates {
		if _, err := signed.Verify(key); err == nil {
			return known, nil
		}
	}
	return nil, invalid("its signature is not by the issuer %s", i.Name)
}

// id names the session of a token: a hash of it, and of how it is read. Half of a SHA-256 is as unique as the random ids of sign-ins are.
func (i *issuer) id(token string) (id [16]byte) {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint64(nil, i.version))
	h.Write([]byte(token))
	copy(id[:], h.Sum(nil))
	return id
}

// live is Finder.Live for a JWT. One that is not remembered any more counts as ended.
func (x *Issuers) live(id string) (*session.Session, error) {
	var raw [16]byte
	if n, err := hex.Decode(raw[:], []byte(id)); err == nil && n == len(raw) {
		if found := x.set.Load().verified.get(raw, x.Now()); found != nil {
			return found, nil
		}
	}
	return nil, session.ErrNone
}
