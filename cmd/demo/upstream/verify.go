// Package upstream has the demo's two applications: one that takes identities as Grafana does, and a wiki.
//
// Grafana's part is its JWT authentication, setting by setting and with its habits (what it caches, what it overlooks), so that what works here works
// there; nothing else of Grafana is imitated. The applications believe only the JWT: they must be reachable through the front door alone.
package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// leeway is on exp, nbf and iat.
const leeway = time.Minute

// Settings are Grafana's [auth.jwt], by their names there.
type Settings struct {
	HeaderName          string
	JWKSetURL           string         // https, unless Development
	TLSClientCA         string         // PEM file; the system's roots when empty. Read at the first fetch
	CacheTTL            time.Duration  // 60 minutes when 0
	ExpectClaims        map[string]any // iss and sub exact, aud any match, others equal
	UsernameClaim       string
	EmailClaim          string
	RoleAttributePath   string // names joined by dots; "" leaves everybody a Viewer
	RoleAttributeStrict bool   // no valid role means no entry
	AutoSignUp          bool   // make an account at the first sign-in
	Development         bool   // app_mode = development

	Dial func(ctx context.Context, network, addr string) (net.Conn, error) // of the JWKS URL; the resolver's when nil
	Now  func() time.Time                                                  // time.Now when nil
}

// Identity is who the JWT says is there.
type Identity struct {
	Subject string
	Login   string
	Email   string
	Name    string
	Role    string // None, Viewer, Editor or Admin
	Groups  []string
	Claims  map[string]any
}

// Verifier reads identities from requests. Safe for concurrent use.
type Verifier struct {
	settings Settings
	keys     *keySet
	expect   jwt.Expected
	equal    map[string]any // expected claims that are not registered ones
}

// NewVerifier checks the settings. It fetches nothing.
func NewVerifier(s Settings) (*Verifier, error) {
	u, err := url.Parse(s.JWKSetURL)
	switch {
	case s.HeaderName == "":
		return nil, errors.New("header_name is required")
	case err != nil || u.Host == "":
		return nil, fmt.Errorf("jwk_set_url %q is no URL", s.JWKSetURL)
	case u.Scheme != "https" && !s.Development:
		return nil, fmt.Errorf("jwk_set_url %q must have https scheme", s.JWKSetURL)
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	if s.CacheTTL == 0 {
		s.CacheTTL = time.Hour
	}
	v := &Verifier{settings: s, equal: map[string]any{}}
	v.keys = &keySet{url: s.JWKSetURL, caFile: s.TLSClientCA, dial: s.Dial, ttl: s.CacheTTL, now: s.Now}
	return v, v.expectClaims()
}

// expectClaims sorts the expected claims into registered ones and others.
func (v *Verifier) expectClaims() error {
	for name, value := range v.settings.ExpectClaims {
		var ok bool
		switch name {
		case "iss":
			v.expect.Issuer, ok = value.(string)
		case "sub":
			v.expect.Subject, ok = value.(string)
		case "aud":
			v.expect.AnyAudience, ok = audience(value)
		default:
			v.equal[name], ok = value, true
		}
		if !ok {
			return fmt.Errorf("expect_claims: %q has invalid type %T", name, value)
		}
	}
	return nil
}

// audience takes a string or a list of strings.
func audience(value any) (jwt.Audience, bool) {
	switch value := value.(type) {
	case string:
		return jwt.Audience{value}, true
	case []any:
		var list jwt.Audience
		for _, one := range value {
			name, ok := one.(string)
			if !ok {
				return nil, false
			}
			list = append(list, name)
		}
		return list, true
	}
	return nil, false
}

// Identify returns who a request comes from. The error says why it comes from nobody.
func (v *Verifier) Identify(r *http.Request) (*Identity, error) {
	token := r.Header.Get(v.settings.HeaderName)
	if token == "" {
		return nil, fmt.Errorf("the request has no %s header", v.settings.HeaderName)
	}
	if len(token) > 7 && strings.EqualFold(token[:7], "Bearer ") {
		token = token[7:]
	}
	token = strings.TrimRight(token, "=") // padding that some issuers leave
	if !hasSubject(token) {
		return nil, fmt.Errorf("the %s header holds no JWT with a sub claim", v.settings.HeaderName)
	}
	claims, err := v.verify(r.Context(), token)
	if err != nil {
		return nil, fmt.Errorf("failed to verify JWT: %w", err)
	}
	return v.identity(claims)
}

// algorithms are those that Grafana takes. RS384 is not among them.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{jose.EdDSA, jose.HS256, jose.HS384, jose.HS512, jose.RS256, jose.RS512, jose.ES256, jose.ES384, jose.ES512,
		jose.PS256, jose.PS384, jose.PS512}
}

// hasSubject is the look that Grafana takes first, without verifying anything: a token that fails here is passed over as if it were not there.
func hasSubject(token string) bool {
	parsed, err := jwt.ParseSigned(token, algorithms())
	if err != nil {
		return false
	}
	var claims jwt.Claims
	return parsed.UnsafeClaimsWithoutVerification(&claims) == nil && claims.Subject != ""
}

// verify checks signature, times and expected claims.
func (v *Verifier) verify(ctx context.Context, token string) (map[string]any, error) {
	parsed, err := jwt.ParseSigned(token, algorithms())
	if err != nil {
		return nil, err
	}
	keys, err := v.keys.byID(ctx, parsed.Headers[0].KeyID)
	if err != nil {
		return nil, err
	}
	if len(keys) == 0 {
		return nil, errors.New("no keys found")
	}
	var claims map[string]any
	var registered jwt.Claims
	for _, key := range keys {
		claims, registered = nil, jwt.Claims{}
		if err = parsed.Claims(key, &claims, &registered); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	expect := v.expect
	expect.Time = v.settings.Now()
	if err := registered.ValidateWithLeeway(expect, leeway); err != nil {
		return nil, err
	}
	for name, want := range v.equal {
		got, ok := claims[name]
		switch {
		case !ok:
			return nil, fmt.Errorf("%q claim is missing", name)
		case !reflect.DeepEqual(got, want):
			return nil, fmt.Errorf("%q claim mismatch", name)
		}
	}
	return claims, nil
}

// identity maps verified claims to an identity.
func (v *Verifier) identity(claims map[string]any) (*Identity, error) {
	id := &Identity{Claims: claims}
	id.Subject, _ = claims["sub"].(string)
	id.Login, _ = claims[v.settings.UsernameClaim].(string)
	id.Email, _ = claims[v.settings.EmailClaim].(string)
	id.Name, _ = claims["name"].(string)
	if id.Login == "" && id.Email == "" {
		return nil, errors.New("missing login and email claim in JWT")
	}
	groups, err := groupsOf(claims)
	if err != nil {
		return nil, err
	}
	id.Groups = groups
	id.Role, err = v.role(claims)
	return id, err
}

// groupsOf takes no groups at all, or an array of strings: null is an error, as it is for plugins that read the claim.
func groupsOf(claims map[string]any) ([]string, error) {
	value, ok := claims["groups"]
	if !ok {
		return nil, nil
	}
	list, ok := value.([]any)
	if !ok {
		return nil, fmt.Errorf("the groups claim is a %T, not an array of strings", value)
	}
	groups := make([]string, 0, len(list))
	for _, one := range list {
		name, ok := one.(string)
		if !ok {
			return nil, fmt.Errorf("the groups claim has a %T in it, not only strings", one)
		}
		groups = append(groups, name)
	}
	return groups, nil
}

// role follows the path. GrafanaAdmin counts as Admin; what is no role leaves a Viewer, or nobody when roles are strict.
func (v *Verifier) role(claims map[string]any) (string, error) {
	var value any = claims
	for name := range strings.SplitSeq(v.settings.RoleAttributePath, ".") {
		object, _ := value.(map[string]any)
		value = object[name]
	}
	role, _ := value.(string)
	switch {
	case role == "GrafanaAdmin":
		return "Admin", nil
	case slices.Contains([]string{"None", "Viewer", "Editor", "Admin"}, role):
		return role, nil
	case v.settings.RoleAttributeStrict:
		return "", fmt.Errorf("invalid role %q in JWT at %s", role, v.settings.RoleAttributePath)
	}
	return "Viewer", nil
}
