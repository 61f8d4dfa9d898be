package token

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"math/big"
	"slices"
	"strings"
)

// Identity is whom a token of ours names.
type Identity struct {
	Subject string
	Email   string // "" when it is not verified
}

// Verify reads a token that this ring has minted for a host, whose iss and aud are the host (RFC 7519, section 4.1), and that is good now. It takes
// what Mint writes and nothing else: a header that is, to the byte, that of a published key, so that no token says how it is to be verified.
func (r *Ring) Verify(token, host string) (Identity, error) {
	now := r.config.Now()
	signed, signature, ok := cutLast(token)
	header, body, two := strings.Cut(signed, ".")
	if !ok || !two {
		return Identity{}, errors.New("no token of ours: it has not three parts")
	}
	keys := r.at(now).record.keys
	i := slices.IndexFunc(keys, func(k *key) bool { return k.header == header })
	if i < 0 {
		return Identity{}, errors.New("no token of ours: no key that is published has signed it")
	}
	rs, err := base64.RawURLEncoding.Strict().DecodeString(signature)
	digest := sha256.Sum256([]byte(signed))
	if err != nil || len(rs) != 64 || !ecdsa.Verify(&keys[i].private.PublicKey, digest[:], new(big.Int).SetBytes(rs[:32]), new(big.Int).SetBytes(rs[32:])) {
		return Identity{}, errors.New("no token of ours: its signature does not verify")
	}
	var p payload
	text, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	switch {
	case err != nil:
		return Identity{}, errors.New("no token of ours: its claims do not decode")
	case host == "" || p.Issuer != host || p.Audience != host:
		return Identity{}, errors.New("the token is for another host")
	case now.Unix() >= p.Expires:
		return Identity{}, errors.New("the token has expired")
	case p.Subject == "":
		return Identity{}, errors.New("the token names nobody")
	}
	return Identity{Subject: p.Subject, Email: p.Email}, nil
}

// cutLast is strings.Cut at the last dot.
func cutLast(s string) (before, after string, ok bool) {
	i := strings.LastIndexByte(s, '.')
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+1:], true
}
