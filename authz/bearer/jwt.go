package bearer

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
)

const (
	// leeway is by how much an issuer's clock may be ahead of ours. There is none for exp: it would let tokens in that their issuer says are over.
	leeway = 30 * time.Second
	// maxSubject is the longest subject (OpenID Connect Core 1.0, section 2).
	maxSubject = 255
)

// jwt is a token in compact form (RFC 7519) that is taken apart. Nothing of it is believed before its signature is verified.
type jwt struct {
	compact       string
	alg, typ, kid string
	claims        map[string]any // numbers are json.Number
}

// parseJWT takes a token apart. What a header may say to be verified otherwise than by the issuer's keys is refused, not skipped: crit and b64
// (RFC 7515, section 4.1.11; RFC 7797). The keys that it may bring along (jwk, jku, x5c, x5u) are not looked at.
func parseJWT(text string) (*jwt, error) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return nil, invalid("it is no service token and no signed JWT")
	}
	header, err := decodeObject(parts[0])
	if err != nil {
		return nil, invalid("the JWT's header: %v", err)
	}
	t := &jwt{compact: text}
	if t.claims, err = decodeObject(parts[1]); err != nil {
		return nil, invalid("the JWT's claims: %v", err)
	}
	for name, to := range map[string]*string{"alg": &t.alg, "typ": &t.typ, "kid": &t.kid} {
		if value, there := header[name]; there {
			var ok bool
			if *to, ok = value.(string); !ok {
				return nil, invalid("the JWT's header has a %s that is no text", name)
			}
		}
	}
	for _, name := range []string{"crit", "b64"} {
		if _, there := header[name]; there {
			return nil, invalid("the JWT's header has %s, which is not understood", name)
		}
	}
	return t, nil
}

var errNoObject = errors.New("it is no base64url of a JSON object")

// decodeObject reads one part of a token.
func decodeObject(part string) (map[string]any, error) {
	data, err := base64.RawURLEncoding.Strict().DecodeString(part)
	if err != nil {
		return nil, errNoObject
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil || object == nil {
		return nil, errNoObject
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errNoObject
	}
	return object, nil
}

// text returns a claim that is a text, or "".
func (t *jwt) text(name string) string {
	s, _ := t.claims[name].(string)
	return s
}

// isFor says whether one of the audiences is named (RFC 7519, section 4.1.3).
func (t *jwt) isFor(audiences []string) bool {
	return slices.ContainsFunc(config.ClaimTexts(t.claims["aud"]), func(a string) bool { return slices.Contains(audiences, a) })
}

// check makes every check but those of issuer, audience and signature, which chose and verified the token.
func (t *jwt) check(now time.Time) error {
	if err := t.checkKind(); err != nil {
		return err
	}
	exp, hasExp, ok := t.date("exp")
	nbf, hasNBF, ok2 := t.date("nbf")
	iat, hasIAT, ok3 := t.date("iat")
	sub := t.text("sub")
	switch {
	case !ok || !ok2 || !ok3:
		return invalid("one of exp, nbf and iat is no date")
	case !hasExp:
		return invalid("it has no exp: it would be good for ever")
	case !now.Before(exp):
		return invalid("it has expired at %s", exp.UTC().Format(time.RFC3339))
	case hasNBF && nbf.After(now.Add(leeway)):
		return invalid("it is not good before %s", nbf.UTC().Format(time.RFC3339))
	case hasIAT && iat.After(now.Add(leeway)):
		return invalid("it was issued at %s, which is yet to come", iat.UTC().Format(time.RFC3339))
	case sub == "" || len(sub) > maxSubject:
		return invalid("its sub must be a text of 1 to %d bytes", maxSubject)
	}
	return nil
}

// checkKind refuses tokens that were made for something else, as far as their issuer marks them (RFC 8725, section 3.11): by the header's typ, where
// an access token has at+jwt (RFC 9068, section 2.1), or by claims that only other tokens have. A token that is bound to a key of the client's
// (RFC 7800) is refused too, since nobody here asks for the proof, and without it a stolen one would be as good.
func (t *jwt) checkKind() error {
	typ := strings.TrimPrefix(strings.ToLower(t.typ), "application/")
	switch typ {
	case "", "jwt", "at+jwt":
	default:
		return invalid("its typ is %q, not at+jwt or JWT", shorten(t.typ))
	}
	for _, name := range []string{"at_hash", "c_hash"} {
		if _, there := t.claims[name]; there {
			return invalid("it has %s, so it is an ID token and no access token", name)
		}
	}
	for _, name := range []string{"events", "cnf"} {
		if _, there := t.claims[name]; there {
			return invalid("it has %s, so it is no bearer token", name)
		}
	}
	// Keycloak's typ and Amazon Cognito's token_use.
	for _, name := range []string{"typ", "token_use"} {
		if kind := strings.ToLower(t.text(name)); slices.Contains([]string{"id", "refresh", "offline", "logout"}, kind) {
			return invalid("its claim %s is %q, so it is no access token", name, kind)
		}
	}
	return nil
}

// date reads a NumericDate (RFC 7519, section 2); ok is false when there is something else.
func (t *jwt) date(name string) (at time.Time, there, ok bool) {
	value, there := t.claims[name]
	if !there {
		return at, false, true
	}
	n, ok := value.(json.Number)
	if !ok {
		return at, true, false
	}
	seconds, err := n.Float64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return at, true, false
	}
	return time.Unix(int64(seconds), 0), true, true
}

// protocolClaims are about the token, not about whom it stands for.
var protocolClaims = []string{"iss", "aud", "exp", "iat", "nbf", "jti", "nonce", "sid", "auth_time", "acr", "amr", "typ", "_claim_names", "_claim_sources"}

// session is what a verified token of an issuer says. The user's id begins with the issuer's name, which is no provider's, so that nobody becomes
// somebody else by the way in which they come. An e-mail that is not verified is left out.
func (t *jwt) session(i *config.TokenIssuer) (session.Session, error) {
	if names, _ := t.claims["_claim_names"].(map[string]any); names[i.GroupsClaim] != nil {
		return session.Session{}, invalid("the issuer sent a link in place of the groups")
	}
	groups, _ := config.Claim(t.claims, i.GroupsClaim)
	s := session.Session{
		Provider: i.Name, Issuer: i.Issuer.String(), Subject: t.text("sub"), AMR: config.ClaimTexts(t.claims["amr"]), ACR: t.text("acr"),
		User: session.User{ID: i.Name + ":" + t.text("sub"), Name: t.text("name"), Groups: config.ClaimTexts(groups), Claims: maps.Clone(t.claims)},
	}
	s.Expires, _, _ = t.date("exp")
	s.Created, _, _ = t.date("iat")
	s.AuthTime, _, _ = t.date("auth_time")
	if verified := t.claims["email_verified"]; t.text("email") != "" && (verified == true || verified == "true") {
		s.User.Email, s.User.EmailVerified = t.text("email"), true
	}
	if s.User.Name == "" {
		s.User.Name = t.text("preferred_username")
	}
	for _, name := range protocolClaims {
		delete(s.User.Claims, name)
	}
	return s, nil
}

// String keeps tokens out of anything printed.
func (t *jwt) String() string { return fmt.Sprintf("a JWT of %d bytes", len(t.compact)) }
