package bearer

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"doorward/authz/session"
	"doorward/authz/store"
)

// Bounds of service tokens.
const (
	maxTokens = 10_000
	maxLife   = 366 * 24 * time.Hour
	minLife   = time.Minute
	maxList   = 100 // routes, and groups, of one token
	maxGroup  = 256 // bytes
)

// tokenName is part of the user's id.
var tokenName = regexp.MustCompile(`^[a-z0-9._-]{1,63}$`)

// Refusal is an error that the operator can do something about.
type Refusal struct{ text string }

// Error says what is wrong and what to do.
func (r Refusal) Error() string { return r.text }

func refuse(format string, args ...any) error { return Refusal{fmt.Sprintf(format, args...)} }

// Request is what a new token is to be.
type Request struct {
	Name   string
	Routes []string // that take it; at least one
	Groups []string
	Life   time.Duration
}

// ServiceToken is what is known of a token. The token itself is known to nobody but its holder.
type ServiceToken struct {
	Name    string    `json:"name"`
	Session string    `json:"session"` // as decisions name it
	Routes  []string  `json:"routes"`
	Groups  []string  `json:"groups"`
	Created time.Time `json:"created"`
	Expires time.Time `json:"expires"`
	Used    time.Time `json:"last_used,omitzero"` // to a minute; zero for never
}

// fault says what is wrong with a request.
func (r *Request) fault() error {
	switch {
	case !tokenName.MatchString(r.Name):
		return refuse("%q is not a name; it has 1 to 63 of a-z, 0-9, dot, underscore and hyphen", shorten(r.Name))
	case len(r.Routes) == 0:
		return refuse("name the routes that take the token")
	case len(r.Routes) > maxList || len(r.Groups) > maxList:
		return refuse("a token has at most %d routes and %d groups", maxList, maxList)
	case r.Life < minLife || r.Life > maxLife:
		return refuse("a token is good for a minute at least and for 366 days at most, not for %s", r.Life)
	}
	for _, group := range r.Groups {
		if group == "" || len(group) > maxGroup || strings.ContainsFunc(group, func(c rune) bool { return !unicode.IsPrint(c) }) {
			return refuse("%q is not a group: it is printable and has at most %d bytes", shorten(group), maxGroup)
		}
	}
	return nil
}

func shorten(s string) string { return s[:min(len(s), 100)] }

// Create makes a token and returns it: the only time that it can be seen. It is in force in this process when Create returns. The error is a
// Refusal when the request is at fault. Whether the routes exist and take tokens is the caller's to check.
func (s *ServiceTokens) Create(ctx context.Context, r Request) (string, error) {
	if err := r.fault(); err != nil {
		return "", err
	}
	if all, err := s.Store.List(ctx, recordPrefix, "", maxTokens); err != nil {
		return "", fmt.Errorf("create a service token: %w", err)
	} else if len(all) >= maxTokens {
		return "", refuse("there are %d service tokens, which is as many as there may be; revoke some", maxTokens)
	}
	now := s.Now().UTC().Truncate(time.Second)
	routes := slices.Compact(slices.Sorted(slices.Values(r.Routes)))
	data, err := json.Marshal(record{Name: r.Name, Routes: routes, Groups: r.Groups, Created: now, Expires: now.Add(r.Life)})
	if err != nil {
		return "", fmt.Errorf("create a service token: %w", err)
	}
	token, hash := newSecret()
	key := recordKey(hash)
	_, err = s.Store.Apply(ctx,
		store.Op{Key: namePrefix + r.Name, Value: []byte(hex.EncodeToString(hash[:])), Expires: now.Add(r.Life), Expect: store.Absent},
		store.Op{Key: key, Value: s.Sealer.Seal(key, data), Expires: now.Add(r.Life), Expect: store.Absent})
	if errors.Is(err, store.ErrConflict) {
		return "", refuse("there is a service token %q already; revoke it or choose another name", r.Name)
	}
	if err == nil {
		err = s.changed(ctx, key)
	}
	if err != nil {
		return "", fmt.Errorf("create a service token: %w", err)
	}
	return token, nil
}

// Revoke ends a token, at once in this process. The error is a Refusal when there is none of that name.
func (s *ServiceTokens) Revoke(ctx context.Context, name string) error {
	none := refuse("there is no service token %q; doorward token list shows those that there are", shorten(name))
	if !tokenName.MatchString(name) {
		return none
	}
	item, err := s.Store.Get(ctx, namePrefix+name)
	if errors.Is(err, store.ErrNotFound) {
		return none
	}
	if err != nil {
		return fmt.Errorf("revoke a service token: %w", err)
	}
	hash := string(item.Value)
	_, err = s.Store.Apply(ctx,
		store.Op{Key: namePrefix + name, Expect: item.Version},
		store.Op{Key: recordPrefix + hash, Expect: store.Any}, store.Op{Key: usedPrefix + hash, Expect: store.Any})
	switch {
	case errors.Is(err, store.ErrConflict):
		return refuse("the service token %q was revoked or made anew just now; look at doorward token list", name)
	case err != nil:
		return fmt.Errorf("revoke a service token: %w", err)
	}
	if err := s.changed(context.WithoutCancel(ctx), recordPrefix+hash); err != nil {
		return fmt.Errorf("the service token %q is revoked, but the store does not answer: %w", name, err)
	}
	return nil
}

// List returns the tokens that are good, by name.
func (s *ServiceTokens) List(ctx context.Context) ([]ServiceToken, error) {
	all, err := s.readAll(ctx)
	if err != nil {
		return nil, err
	}
	uses, err := s.uses(ctx)
	if err != nil {
		return nil, err
	}
	known := s.known.Load()
	list := []ServiceToken{}
	for hash, h := range *all {
		used := uses[hash]
		if known != nil && (*known)[hash] != nil {
			used = max(used, (*known)[hash].used.Load())
		}
		t := ServiceToken{
			Name: h.record.Name, Session: session.HashID(h.session.ID), Routes: h.record.Routes, Groups: h.session.User.Groups, Created: h.record.Created, Expires: h.record.Expires,
		}
		if used > 0 {
			t.Used = time.Unix(used, 0).UTC()
		}
		list = append(list, t)
	}
	slices.SortFunc(list, func(a, b ServiceToken) int { return cmp.Compare(a.Name, b.Name) })
	return list, nil
}

// uses returns when tokens were last used, as any process has written it: Unix seconds.
func (s *ServiceTokens) uses(ctx context.Context) (map[[32]byte]int64, error) {
	all := make(map[[32]byte]int64)
	for item, err := range store.All(ctx, s.Store, usedPrefix) {
		if err != nil {
			return nil, fmt.Errorf("read the last uses of service tokens: %w", err)
		}
		hash, ok := hashOf(recordPrefix + strings.TrimPrefix(item.Key, usedPrefix))
		if ok && len(item.Value) == 8 {
			all[hash] = int64(binary.BigEndian.Uint64(item.Value))
		}
	}
	return all, nil
}
