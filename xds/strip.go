package xds

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"doorward/authz/config"

	mutationv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// strippedHeaders are the request headers that no client may send: each is taken by some application, or some proxy in
// front of one, as the word of a trusted proxy about who the client is or where the request came from. They are removed
// from every request before routing and before ext_authz, so that whatever an upstream sees under such a name was put
// there by Doorward, a policy or the route. A final * stands for any rest. A hyphen stands for any character that is
// neither letter nor digit, because applications behind CGI, WSGI and the like see X_User, X.User and X-User as one.
//
// Not here: x-forwarded-*, which stripPatterns adds; authorization and cookie, which are the application's own; x-http-method-override, which names no identity (a policy
// that allows by method should deny it).
var strippedHeaders = []string{
	// Doorward's own, and the names that its configuration shares with the proxy it can stand in for.
	"x-doorward-*", "x-pomerium-*",
	// Users as reverse proxies pass them: Grafana and Gitea, oauth2-proxy, Authelia, authentik, mod_auth_openidc, vouch.
	"x-webauth-*", "x-auth-request-*", "remote-*", "auth-remote-*", "x-remote-*", "x-authentik-*", "x-authelia-*",
	"oidc-*", "x-oidc-*", "x-vouch-*", "x-sso-*", "x-saml-*", "x-ldap-*", "x-authenticated-*", "x-jwt-*",
	"x-auth-user*", "x-auth-email", "x-auth-name", "x-auth-group*", "x-auth-role*", "x-auth-subject",
	"x-user", "x-user-id", "x-user-name", "x-user-email", "x-user-group*", "x-user-role*", "x-userid", "x-username",
	"x-email", "x-group", "x-groups", "x-role", "x-roles", "x-identity*",
	// Kubernetes.
	"impersonate-*",
	// Clouds and networks that sign users in.
	"x-goog-iap-*", "x-goog-authenticated-*", "x-amzn-oidc-*", "x-ms-client-principal*", "x-ms-token-*",
	"cf-access-*", "tailscale-*", "x-tailscale-*",
	// Client certificates.
	"ssl-client*", "x-ssl-*", "x-client-cert*", "x-client-dn", "x-client-verify", "x-arr-clientcert", "client-cert*",
	// Where the request came from and what it asked for.
	"forwarded", "x-real-ip", "x-client-ip", "client-ip", "true-client-ip", "x-true-client-ip", "x-cluster-client-ip",
	"cf-connecting-ip", "fastly-client-ip", "x-original-*", "x-rewrite-*", "x-host", "x-http-host-override", "x-scheme",
	"front-end-https", "x-envoy-*", "x-azure-clientip", "x-originating-ip", "x-script-name", "x-url-scheme", "x-waws-*", "proxy",
	// Tenants and consumers as gateways pass them, and other names for a user.
	"x-scope-orgid", "x-consumer-*", "x-credential-identifier", "x-userinfo", "x-user-info", "x-endpoint-api-userinfo",
	"x-apigateway-api-userinfo", "x-appengine-*", "shib-*", "eppn", "x-id-token", "x-access-token", "x-user-login", "auth-user",
	"http-remote-user", "x-proxy-user",
}

// forwardedFamily is x-forwarded-* in any spelling. Where proxies in front of Envoy are trusted, the two headers that Envoy
// reads from them stay, by exact name. Envoy sets both itself, after the stripping.
func forwardedFamily(trustedHops uint32) string {
	if trustedHops == 0 {
		return namePattern("x-forwarded-*")
	}
	return "x-forwarded-(" + otherThan("for", "proto") + ")|x[^a-z0-9-]forwarded[^a-z0-9].*|x-forwarded[^a-z0-9-].*"
}

// identityStripper removes what no client may say of itself, and then says which server name the TLS handshake asked for,
// so that a route can compare it with the host.
func identityStripper(c *config.Config) *corev3.TypedExtensionConfig {
	var mutations []*mutationv3.HeaderMutation
	for part := range slices.Chunk(stripPatterns(c.JWT.Header, c.Edge.TrustedHops, identityHeaders(c)), patternsAtOnce) {
		mutations = append(mutations, removeMatching(strings.Join(part, "|")))
	}
	mutations = append(mutations, &mutationv3.HeaderMutation{
		Action: &mutationv3.HeaderMutation_Append{Append: formatHeader(HeaderSNI, "%REQUESTED_SERVER_NAME%")},
	})
	return &corev3.TypedExtensionConfig{
		Name:        "envoy.http.early_header_mutation.header_mutation",
		TypedConfig: mustPack(&earlyv3.HeaderMutation{Mutations: mutations}),
	}
}

// patternsAtOnce keeps each expression below the size of program at which Envoy warns.
const patternsAtOnce = 60

// stripPatterns are RE2 expressions for all stripped names. They are matched against the whole name, in lower case. assertion
// is the header of the identity JWT, more are other headers that carry an identity here.
func stripPatterns(assertion string, trustedHops uint32, more []string) []string {
	parts := []string{forwardedFamily(trustedHops), namePattern(assertion)}
	for _, name := range slices.Concat(more, strippedHeaders) {
		parts = append(parts, namePattern(name))
	}
	return parts
}

// identityHeaders are the headers by which some route tells an upstream who is there, beside those that are stripped anyhow. Authorization is not
// among them: it belongs to the applications of other routes, and on its own route authz replaces it or takes it away.
func identityHeaders(c *config.Config) (names []string) {
	for _, r := range c.Routes {
		for name := range r.IdentityHeaders {
			if name = strings.ToLower(name); name != "authorization" {
				names = append(names, name)
			}
		}
	}
	if len(names) == 0 {
		return nil
	}
	usual := regexp.MustCompile("^(?:" + strings.Join(stripPatterns(c.JWT.Header, c.Edge.TrustedHops, nil), "|") + ")$")
	names = slices.DeleteFunc(names, usual.MatchString)
	slices.Sort(names)
	return slices.Compact(names)
}

// MetadataIdentity is the part of ext_authz's dynamic metadata that identityLines reads: header -> "0", "1", ... -> value.
const MetadataIdentity = "doorward.identity"

// MetadataLog is the part of ext_authz's dynamic metadata that has what a policy says for logs.
const MetadataLog = "doorward.log"

// identityLines make the identity headers that have a line for each value, of what authz says in the metadata; lines without a value are left
// out. What a client sent under these names is gone before.
func identityLines(r config.Route) (lines []*corev3.HeaderValueOption) {
	for _, name := range slices.Sorted(maps.Keys(r.IdentityHeaders)) {
		if !r.IdentityHeaders[name].Each {
			continue
		}
		for i := range config.MaxIdentityLines {
			lines = append(lines, &corev3.HeaderValueOption{
				Header:       &corev3.HeaderValue{Key: name, Value: fmt.Sprintf("%%DYNAMIC_METADATA(envoy.filters.http.ext_authz:%s:%s:%d)%%", MetadataIdentity, strings.ToLower(name), i)},
				AppendAction: corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
			})
		}
	}
	return lines
}

// namePattern is an expression for a name in which any separator may stand for each, and * for any rest.
func namePattern(name string) string {
	var out strings.Builder
	for _, c := range strings.ToLower(name) {
		switch {
		case 'a' <= c && c <= 'z' || '0' <= c && c <= '9':
			out.WriteRune(c)
		case c == '*':
			out.WriteString(".*")
		default:
			out.WriteString("[^a-z0-9]")
		}
	}
	return out.String()
}

// otherThan is an expression for every string but the given words, whose first letters must differ: RE2 has no negation.
func otherThan(words ...string) string {
	var initials strings.Builder
	alternatives := []string{""}
	for _, w := range words {
		initials.WriteByte(w[0])
		for i := 1; i < len(w); i++ {
			alternatives = append(alternatives, w[:i], w[:i]+"[^"+w[i:i+1]+"].*")
		}
		alternatives = append(alternatives, w+".+")
	}
	return strings.Join(append(alternatives, "[^"+initials.String()+"].*"), "|")
}

func removeMatching(pattern string) *mutationv3.HeaderMutation {
	return &mutationv3.HeaderMutation{Action: &mutationv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationv3.HeaderMutation_RemoveOnMatch{KeyMatcher: matching(pattern)},
	}}
}

// matching is a matcher of a whole string by an RE2 expression.
func matching(pattern string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: pattern},
	}}
}
