// Package bearer says whose a bearer token is (RFC 6750): a service token, which Doorward has made itself, or a JWT of an issuer that the
// configuration names. What it finds is a session like that of a person, with the user that policies see, so that nothing behind it needs to
// know how somebody came.
//
// It takes nothing on trust from a token, asks no issuer about one, and never lets a request wait for an issuer for longer than a moment.
// Whether a route takes bearer tokens at all, and where in a request they stand, is decided elsewhere.
package bearer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"doorward/authz/session"
)

// ErrInvalid says that a token is good for nothing on a route: unknown, expired, revoked, of another issuer, or not one at all. The errors that
// wrap it say why, for the log; a client is not told.
var ErrInvalid = errors.New("the bearer token is not valid")

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrInvalid, fmt.Sprintf(format, args...))
}

// maxToken bounds a token, in bytes. Envoy takes headers of 60 KiB.
const maxToken = 16 << 10

// Allowed is what a route takes. It is never changed.
type Allowed struct {
	Route         string
	ServiceTokens bool
	Issuers       []string // whose JWTs, by their names
}

// Finder finds whose a token is. Safe for concurrent use.
type Finder struct {
	Service *ServiceTokens
	Issuers *Issuers
}

// Find returns the session that a token stands for on a route, or an error that wraps ErrInvalid; any other error says that it cannot be known:
// deny. On the common path it reads memory only. The session is shared and never changed. Its ID has the form of every session's and is the
// same for the same token.
func (f *Finder) Find(ctx context.Context, token string, a *Allowed) (*session.Session, error) {
	switch {
	case len(token) > maxToken:
		return nil, invalid("it has %d bytes, more than the %d allowed", len(token), maxToken)
	case strings.HasPrefix(token, tokenPrefix):
		if !a.ServiceTokens {
			return nil, invalid("a service token, which the route does not take")
		}
		return f.Service.find(ctx, token, a.Route)
	case len(a.Issuers) == 0:
		return nil, invalid("no service token, and the route takes no others")
	}
	return f.Issuers.find(ctx, token, a.Issuers)
}

// Live returns a session that Find has returned, by its ID, and when it ends; session.ErrNone when it has ended or is not one of these.
func (f *Finder) Live(ctx context.Context, id string) (*session.Session, time.Time, error) {
	found, err := f.Service.live(ctx, id)
	if errors.Is(err, session.ErrNone) {
		found, err = f.Issuers.live(id)
	}
	if err != nil {
		return nil, time.Time{}, err
	}
	return found, found.Expires, nil
}
