package token

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// payload has the claims of Doorward's own, in the order in which they are written (RFC 7519, section 4.1; OpenID Connect Core, 5.1).
type payload struct {
	Issuer            string   `json:"iss"`
	Audience          string   `json:"aud"`
	Subject           string   `json:"sub"`
	Expires           int64    `json:"exp"`
	NotBefore         int64    `json:"nbf"`
	IssuedAt          int64    `json:"iat"`
	ID                string   `json:"jti"`
	SID               string   `json:"sid,omitempty"`
	Email             string   `json:"email,omitempty"`
	PreferredUsername string   `json:"preferred_username,omitempty"`
	Name              string   `json:"name,omitempty"`
	Groups            []string `json:"groups"`
}

// reserved says whether a policy may not set the claim. There are consumers that read names without regard to case.
func reserved(name string) bool {
	for _, own := range [...]string{
		"iss", "aud", "sub", "exp", "nbf", "iat", "jti", "sid", "email", "email_verified", "preferred_username", "name",
	} {
		if strings.EqualFold(name, own) {
			return true
		}
	}
	return strings.EqualFold(name, claimGroups) && name != claimGroups
}

const claimGroups = "groups"

// Mint returns a compact JWS (ES256, with kid) and when it expires: after the lifetime, or with the session. A claim of Extra that is not
// the policy's to set is an error that names it.
func (r *Ring) Mint(c Claims) (string, time.Time, error) {
	now := r.config.Now()
	p, expires, err := c.payload(now, r.config.Lifetime)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	body, err := p.encode(c.Extra)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	signed, err := r.at(now).active.sign(body)
	if err != nil {
		return "", time.Time{}, fmt.Errorf("mint token: %w", err)
	}
	return signed, expires, nil
}

func (c *Claims) payload(now time.Time, lifetime time.Duration) (*payload, time.Time, error) {
	switch {
	case c.Issuer == "":
		return nil, time.Time{}, errors.New("no issuer")
	case c.Audience == "":
		return nil, time.Time{}, errors.New("no audience")
	case c.Subject == "":
		return nil, time.Time{}, errors.New("no subject")
	case !utf8.ValidString(c.Subject), !utf8.ValidString(c.Email), !utf8.ValidString(c.PreferredUsername):
		// Encoding would replace the bytes, and make one person of two.
		return nil, time.Time{}, errors.New("subject, e-mail or user name is not UTF-8")
	}
	expires := now.Add(lifetime)
	if c.NotAfter.Before(expires) {
		expires = c.NotAfter
	}
	p := &payload{
		Issuer:            c.Issuer,
		Audience:          c.Audience,
		Subject:           c.Subject,
		Expires:           expires.Unix(),
		NotBefore:         now.Unix(),
		IssuedAt:          now.Unix(),
		ID:                newID(),
		SID:               c.SID,
		Email:             c.Email,
		PreferredUsername: c.PreferredUsername,
		Name:              c.Name,
		Groups:            c.Groups,
	}
	if p.Expires <= p.IssuedAt {
		return nil, time.Time{}, fmt.Errorf("the session ended at %s", c.NotAfter.UTC().Format(time.RFC3339))
	}
	if p.Groups == nil {
		p.Groups = []string{}
	}
	return p, time.Unix(p.Expires, 0), nil
}

// encode writes the claims of Doorward's own, then the policy's by name.
func (p *payload) encode(extra map[string]any) ([]byte, error) {
	rest := make(map[string]any, len(extra))
	for name, value := range extra {
		switch {
		case reserved(name):
			return nil, fmt.Errorf("claim %q is Doorward's own: a policy may not set it", name)
		case name == claimGroups:
			groups, err := stringsOf(value)
			if err != nil {
				return nil, err
			}
			p.Groups = groups
		default:
			rest[name] = value
		}
	}
	body, err := json.Marshal(p)
	if err != nil || len(rest) == 0 {
		return body, err
	}
	more, err := json.Marshal(rest) // by name
	if err != nil {
		return nil, fmt.Errorf("encode the policy's claims: %w", err)
	}
	body[len(body)-1] = ','
	return append(body, more[1:]...), nil
}

// stringsOf returns the groups that a policy gave.
func stringsOf(value any) ([]string, error) {
	groups := []string{}
	switch value := value.(type) {
	case []string:
		return append(groups, value...), nil
	case []any:
		for _, v := range value {
			s, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("claim \"groups\" of the policy has a %T among its strings", v)
			}
			groups = append(groups, s)
		}
		return groups, nil
	default:
		return nil, fmt.Errorf("claim \"groups\" of the policy is a %T and no array of strings", value)
	}
}

// sign returns the compact serialisation (RFC 7515, section 7.1) with an ECDSA signature as r and s (RFC 7518, section 3.4).
func (k *key) sign(body []byte) (string, error) {
	const signature = 64
	b64 := base64.RawURLEncoding
	token := make([]byte, 0, len(k.header)+1+b64.EncodedLen(len(body))+1+b64.EncodedLen(signature))
	token = append(token, k.header...)
	token = append(token, '.')
	token = b64.AppendEncode(token, body)
	digest := sha256.Sum256(token)
	r, s, err := ecdsa.Sign(rand.Reader, k.private, digest[:])
	if err != nil {
		return "", err
	}
	var rs [signature]byte
	r.FillBytes(rs[:signature/2])
	s.FillBytes(rs[signature/2:])
	token = append(token, '.')
	return string(b64.AppendEncode(token, rs[:])), nil
}

func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return encode(b[:])
}
