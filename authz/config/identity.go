package config

import "strings"

// identityFamilies are the prefixes of headers by which proxies of this kind tell an upstream who the user is, and
// identityHeaders are single ones. What a client sends under such a name never reaches an upstream: an upstream that trusts one of
// them, now or after the next change of its settings, must not be told by a stranger. Sources: the documentation of Pomerium,
// oauth2-proxy, Authelia, Grafana (auth.proxy), Gitea, Jenkins, Kubernetes (user impersonation).
var (
	identityFamilies = []string{
		"x-pomerium-", "x-doorward-", "x-webauth-", "x-auth-request-", "x-authenticated-", "x-remote-", "x-goog-iap-",
		"x-goog-authenticated-user-", "x-amzn-oidc-", "impersonate-", "remote-", "cf-access-",
	}
	identityHeaders = []string{
		"x-forwarded-user", "x-forwarded-email", "x-forwarded-mail", "x-forwarded-groups", "x-forwarded-displayname",
		"x-forwarded-preferred-username", "x-forwarded-access-token", "x-forwarded-client-cert", "x-user", "x-email",
		"auth-remote-user",
	}
)

// IdentityFamilies returns the prefixes of identity headers, in lower case with "-".
func IdentityFamilies() []string { return append([]string(nil), identityFamilies...) }

// IdentityHeaders returns the single identity headers beside the families, in lower case with "-".
func (c *Config) IdentityHeaders() []string {
	return append([]string{strings.ToLower(c.JWT.Header)}, identityHeaders...)
}

// IsIdentityHeader says whether a request header of this name (any case, "_" counts as "-") tells an upstream who the user is.
// jwtHeader is the configured name of the identity JWT's.
func IsIdentityHeader(name, jwtHeader string) bool {
	name = strings.ReplaceAll(strings.ToLower(name), "_", "-")
	if name == strings.ReplaceAll(strings.ToLower(jwtHeader), "_", "-") {
		return true
	}
	for _, h := range identityHeaders {
		if name == h {
			return true
		}
	}
	for _, prefix := range identityFamilies {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}
