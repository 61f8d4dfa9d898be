// Package config is the file that both planes read: the identity provider, the edge's settings and the routes.
//
// Load is strict: an unknown key, a wrong type and a value that cannot work are errors that name file, line and remedy,
// and all of them are reported at once. The package reads files and nothing else: it does no I/O over a network, starts
// no goroutine and keeps no state. A loaded Config is never changed; a reload makes a new one.
package config

import "slices"

// Config is one loaded and validated configuration file with the routes of its directory. It is immutable and may be
// read from several goroutines.
type Config struct {
	IDP       IDPs     `yaml:"idp"` // one, or a list of them; the first one's subjects have no prefix
	TLS       TLS      `yaml:"tls"`
	Listen    Listen   `yaml:"listen"`
	Control   Control  `yaml:"control"`
	Admin     Admin    `yaml:"admin"`         // the admin API on the network; on the socket in DataDir alone by default
	AuthURL   URL      `yaml:"auth_url"`      // sign-in host; required as soon as there are two hosts, else the only host
	DataDir   string   `yaml:"data_dir"`      // keys, sessions, generated secrets; "data" beside the file by default
	SocketDir string   `yaml:"socket_dir"`    // Unix sockets between Envoy and Doorward; DataDir/run by default
	Policies  []string `yaml:"policies"`      // Rego files and directories; "policies" beside the file by default, if it exists
	Issuers   Issuers  `yaml:"token_issuers"` // whose JWTs programs may show
	Bundles   []Bundle `yaml:"bundles"`       // OPA bundles: policies and data from elsewhere
	RoutesDir string   `yaml:"routes_dir"`    // directory of files, each with a `routes` list
	Session   Session  `yaml:"session"`
	JWT       JWT      `yaml:"jwt"`
	Paths     Paths    `yaml:"paths"`
	Brand     Brand    `yaml:"brand"`
	Edge      Edge     `yaml:",inline"`

	DecisionLog DecisionLog `yaml:"decision_log"`

	Routes []Route `yaml:"routes"`

	Path     string `yaml:"-"` // absolute path of the file
	Checksum string `yaml:"-"` // SHA-256 in hex over the file, its routes directory, and each file that it names, policies included

	files  []string
	root   place           // the file without its routes
	covers map[string]bool // by names of certificates from files, in lower case, wildcards as they stand
}

// Bundle is an OPA bundle: policies and data documents in one archive, from a server or a file. Exactly one of URL and File is set.
type Bundle struct {
	Name            string   `yaml:"name"`                // unique; [a-z0-9._-], at most 63 bytes
	URL             URL      `yaml:"url"`                 // https; asked again and again
	File            string   `yaml:"file"`                // a .tar.gz, watched like a policy
	Poll            Duration `yaml:"poll"`                // how often URL is asked; 60s by default, at least 10s
	Signing         *Signing `yaml:"signing"`             // nil takes unsigned bundles, and no signed ones
	BearerTokenFile string   `yaml:"bearer_token_file"`   // sent to URL; read for each request
	CAFile          string   `yaml:"ca_file"`             // PEM; trusted for URL beside the system's roots
	PlainHTTP       bool     `yaml:"insecure_plain_http"` // takes policies from whoever is on the way
}

// Signing says how a bundle's signature is verified. A bundle without one is refused.
type Signing struct {
	KeyFile   string `yaml:"key_file"`  // PEM of a public key or certificate; for HS256, HS384 and HS512 the secret itself, every byte of the file
	Algorithm string `yaml:"algorithm"` // RS256 by default
	Scope     string `yaml:"scope"`     // what the signature must say; nothing by default
}

// IDP is an OpenID Connect provider and our registration with it.
type IDP struct {
	Name             string   `yaml:"name"`  // prefix of `sub` for every provider but the first; "default" when there is one and it is not given
	Label            string   `yaml:"label"` // what people read who choose among several; the issuer's host when not given
	Issuer           URL      `yaml:"issuer"`
	ClientID         string   `yaml:"client_id"`
	ClientSecret     Secret   `yaml:"client_secret"`
	ClientSecretFile string   `yaml:"client_secret_file"`
	Scopes           []string `yaml:"scopes"`         // openid, profile, email by default
	GroupsClaim      string   `yaml:"groups_claim"`   // name or path, "groups" by default
	GroupsOverage    string   `yaml:"groups_overage"` // when the provider sends a link in place of the groups: "refuse" the sign-in (default) or "ignore" them
	TrustEmail       bool     `yaml:"trust_email"`    // treat e-mail as verified when the provider sends no email_verified
	CAFile           string   `yaml:"ca_file"`        // PEM; trusted for this provider beside the system's roots
}

// IDPs reads from one provider, or a list of them.
type IDPs []IDP

// Find returns the provider of that name; false when there is none.
func (all IDPs) Find(name string) (IDP, bool) {
	for _, idp := range all {
		if idp.Name == name {
			return idp, true
		}
	}
	return IDP{}, false
}

// Names reads from one name, or a list of them.
type Names []string

// TokenIssuer is an issuer of JWTs that programs show as bearer tokens (RFC 6750, RFC 9068).
type TokenIssuer struct {
	Name        string `yaml:"name"`         // unique, and no provider's; the ids of its users begin with it
	Issuer      URL    `yaml:"issuer"`       // the tokens' iss, to the letter
	Audiences   Names  `yaml:"audiences"`    // a token is for one of them
	Algorithms  Names  `yaml:"algorithms"`   // of TokenAlgorithms; RS256 and ES256 by default
	JWKSURL     URL    `yaml:"jwks_url"`     // the issuer's discovery says where by default
	GroupsClaim string `yaml:"groups_claim"` // name or path, "groups" by default
	CAFile      string `yaml:"ca_file"`      // PEM; trusted for the issuer beside the system's roots

	contents string // hash of the CA file
}

// Issuers is a list of them.
type Issuers []TokenIssuer

// TLS says where the hosts' certificates come from. Hosts under .localhost get theirs from a local CA without asking.
type TLS struct {
	Certificates []Certificate `yaml:"certificates"`
	LocalCA      bool          `yaml:"local_ca"`    // issue for every host that no file covers, not only .localhost
	ACME         *ACME         `yaml:"acme"`        // issues for every other host that no file covers; nil for none
	Profile      string        `yaml:"profile"`     // TLSIntermediate (default) or TLSModern
	MinVersion   string        `yaml:"min_version"` // "1.2" or "1.3"; the profile's when not given

	ClientCertificates []ClientCertificates `yaml:"client_certificates"` // hosts that clients prove themselves to in the TLS handshake
}

// ClientCertificates says whose certificates clients of some hosts show (mutual TLS, RFC 8446, section 4.3.2).
type ClientCertificates struct {
	Hosts    Names  `yaml:"hosts"`    // exact ones, each in one entry
	CAFile   string `yaml:"ca_file"`  // PEM of the CAs that vouch for clients
	CRLFile  string `yaml:"crl_file"` // PEM of their revocation lists; one that is over lets nobody in
	Names    Names  `yaml:"names"`    // of which the certificate has one: dns:, uri: or email: and the name, with one * at its beginning or end; any when empty
	Optional bool   `yaml:"optional"` // clients without a certificate get in too, and the policy decides; false refuses their handshake
}

// Clients says what clients of a host prove in the handshake; false for most hosts, where they prove nothing.
func (t TLS) Clients(host string) (ClientCertificates, bool) {
	for _, c := range t.ClientCertificates {
		if slices.Contains(c.Hosts, host) {
			return c, true
		}
	}
	return ClientCertificates{}, false
}

// The values of TLS.Profile, after Mozilla's "Server Side TLS".
const (
	TLSIntermediate = "intermediate"
	TLSModern       = "modern"
)

// ACME is a server that issues certificates (RFC 8555). Whoever names one agrees to its terms of service.
type ACME struct {
	Email      string `yaml:"email"`      // whom the server writes to; one account for each
	Directory  URL    `yaml:"directory"`  // Let's Encrypt's by default
	Staging    bool   `yaml:"staging"`    // Let's Encrypt's staging server, whose certificates nobody trusts
	CAFile     string `yaml:"ca_file"`    // PEM; trusted for Directory beside the system's roots
	EAB        *EAB   `yaml:"eab"`        // binds the account to one that the server's operator has given out
	Challenges Names  `yaml:"challenges"` // of ChallengeHTTP and ChallengeTLSALPN; all that listen allows by default

	contents string // hash of the CA file
}

// EAB is an external account binding: RFC 8555, section 7.3.4.
type EAB struct {
	KeyID       string `yaml:"key_id"`
	HMACKeyFile string `yaml:"hmac_key_file"` // the key in base64url, as it was given out
	HMACKey     Secret `yaml:"-"`             // what the file holds, without padding
}

// How an ACME server is shown that a host is ours.
const (
	ChallengeHTTP    = "http-01"     // at port 80: RFC 8555, section 8.3
	ChallengeTLSALPN = "tls-alpn-01" // at port 443: RFC 8737
)

// Certificate is a PEM chain with its key. The names that it serves are read from it.
type Certificate struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// Listen holds the addresses, as host:port or :port. The empty string turns HTTP, Internal and Metrics off.
type Listen struct {
	HTTPS    string `yaml:"https"`    // ":443" by default
	HTTP     string `yaml:"http"`     // ":80" by default, "off" for none; answers only with redirects to https
	Internal string `yaml:"internal"` // plain HTTP for upstreams that fetch the JWKS inside; off by default
	Metrics  string `yaml:"metrics"`  // plain HTTP for Prometheus, with a host; off by default
}

// Control is where Envoys on other machines reach Doorward, and what groups of Envoys there are. The zero value is for Envoys on this machine
// alone.
type Control struct {
	Listen     string `yaml:"listen"`      // TCP with mTLS; off by default
	Address    string `yaml:"address"`     // host:port that those Envoys connect to; Doorward's certificate for them names the host
	Groups     Names  `yaml:"groups"`      // those that routes and nodes may be of
	LocalGroup string `yaml:"local_group"` // of the Envoys on this machine; none by default
}

// Admin has the admin API answer on the network, over TLS 1.3, to clients with a certificate of their own, and to no others.
type Admin struct {
	Listen       string `yaml:"listen"`         // host:port or :port
	CertFile     string `yaml:"cert_file"`      // PEM chain that the server shows
	KeyFile      string `yaml:"key_file"`       // its key
	ClientCAFile string `yaml:"client_ca_file"` // PEM; who has issued the clients' certificates
	Allow        Names  `yaml:"allow"`          // whom: DNS names and URIs of the subjectAltName, and common names, to the letter
}

// Edge has the settings of the whole edge that decide what a request may look like.
type Edge struct {
	TrustedHops       uint32 `yaml:"trusted_hops"`       // proxies in front of Envoy whose X-Forwarded-For is believed; 0
	EscapedSlashes    string `yaml:"escaped_slashes"`    // "reject" (default) or "keep", for APIs that need %2F
	UnderscoreHeaders string `yaml:"underscore_headers"` // "reject" (default) or "keep"
}

// Session bounds how long a sign-in is good for.
type Session struct {
	Lifetime        Duration `yaml:"lifetime"`         // absolute, from the sign-in; 14h by default
	IdleTimeout     Duration `yaml:"idle_timeout"`     // how long it may be unused; 0s, the default, for any time
	RefreshInterval Duration `yaml:"refresh_interval"` // how often the provider is asked for tokens and claims anew; 10m by default, 0s for never
	MaxStreams      int      `yaml:"max_streams"`      // open WebSockets and responses of routes with `streams` at a time; 100 by default
}

// JWT says how the identity assertion is named and signed.
type JWT struct {
	Header         string   `yaml:"header"`           // X-Pomerium-Jwt-Assertion by default
	SigningKeyFile string   `yaml:"signing_key_file"` // PEM, EC P-256; generated and kept in DataDir when not given
	Lifetime       Duration `yaml:"lifetime"`         // at most and by default 5m
	SizeBudget     uint32   `yaml:"size_budget"`      // bytes beyond which a token is warned of; 4096 by default
	ConsumerCache  Duration `yaml:"consumer_cache"`   // how long a consumer may cache the JWKS; 60m by default
	RotateEvery    Duration `yaml:"rotate_every"`     // how long a generated key signs; 2160h (90 days) by default, 0s for until one rotates it
	JWKSFile       string   `yaml:"jwks_file"`        // where the JWKS is kept up to date for consumers that read a file; none by default
}

// Paths are the URL paths that Doorward serves itself on each host.
type Paths struct {
	Prefix string `yaml:"prefix"` // "/.pomerium" by default, without a trailing slash; sign-out is Prefix + "/sign_out"
	JWKS   string `yaml:"jwks"`   // "/.well-known/pomerium/jwks.json" by default
}

// DecisionLog says where the record of each decision goes, and what of it.
type DecisionLog struct {
	To            string   `yaml:"to"`             // DecisionsStderr (default), DecisionsStdout, DecisionsOff, or a file's absolute path
	MaxSize       Size     `yaml:"max_size"`       // a file is rotated before it grows beyond this; 100MiB by default
	Keep          int      `yaml:"keep"`           // rotated files, named PATH.1 (newest) and so on; 5 by default, 0 for none
	SampleAllowed Share    `yaml:"sample_allowed"` // of the allowed decisions; 1 by default. All others are kept always
	Mask          []string `yaml:"mask"`           // fields whose values are replaced by a keyed hash: of Maskable
}

// The values of DecisionLog.To that are no file.
const (
	DecisionsStderr = "stderr"
	DecisionsStdout = "stdout"
	DecisionsOff    = "off"
)

// Maskable are the fields of a decision's record that decision_log.mask may name.
func Maskable() []string {
	return []string{"client_ip", "email", "host", "path", "reasons", "session", "subject"}
}

// File is the path of the log file, or "" when the records go elsewhere.
func (d DecisionLog) File() string {
	switch d.To {
	case DecisionsStderr, DecisionsStdout, DecisionsOff:
		return ""
	}
	return d.To
}

// Unauthenticated is what a request without a session gets.
type Unauthenticated string

// The values of Route.Unauthenticated.
const (
	Login        Unauthenticated = "login" // redirect a navigation to sign-in, 401 for anything else
	Unauthorized Unauthenticated = "401"
	Forbidden    Unauthenticated = "403"
)

// The names of the built-in policies.
const (
	PolicyPublic               = "public"
	PolicyAnyAuthenticatedUser = "any_authenticated_user"
)

// Route sends the requests of one host, or a part of its paths, to upstreams, under one policy. Exactly one of To,
// Redirect and Response is set.
type Route struct {
	Name   string            `yaml:"name"` // unique; [a-z0-9._-], at most 63 bytes
	From   URL               `yaml:"from"` // https://host[:port], no path; or tcp+https://host:port for a TCP service
	To     Targets           `yaml:"to"`
	Labels map[string]string `yaml:"labels"` // policies read them as input.route.labels

	Groups Names `yaml:"groups" json:",omitempty"` // of Envoys: those of control.groups that serve the route's host; none means all Envoys

	// At most one of these; none means every path.
	Prefix string `yaml:"prefix"` // whole path segments
	Path   string `yaml:"path"`   // exact
	Regex  string `yaml:"regex"`  // RE2 over the whole path

	Policy              string                    `yaml:"policy"`            // required: a built-in or a Rego package
	ShadowPolicy        string                    `yaml:"shadow_policy"`     // evaluated beside policy on live traffic; what differs is logged and counted
	PolicyBodyBytes     uint32                    `yaml:"policy_body_bytes"` // of a request's body that a policy which reads it is shown; 8192 by default
	AllowAnonymous      bool                      `yaml:"allow_anonymous"`
	Unauthenticated     Unauthenticated           `yaml:"unauthenticated"`
	IDP                 Names                     `yaml:"idp"`                      // names of the providers whose users may come; none means all
	MaxAge              Duration                  `yaml:"max_age"`                  // how long ago the provider may have asked for credentials; 0s means any time
	ACRValues           Names                     `yaml:"acr_values"`               // authentication classes of which the session must have one; none means any
	Claims              Names                     `yaml:"claims"`                   // in the identity JWT: the provider's by name or path, and those of StandardClaims; nil means all of the latter
	IdentityHeaders     map[string]IdentityHeader `yaml:"identity_headers"`         // for upstreams that read no JWT: header -> "${claim}"
	PassIdentityHeaders *bool                     `yaml:"pass_identity_headers"`    // nil means true
	Bearer              *Bearer                   `yaml:"bearer" json:",omitempty"` // bearer tokens that the route takes; nil means none, and Authorization is the application's

	CORS *CORS `yaml:"cors" json:",omitempty"` // which other origins' pages may read what the route answers; nil leaves that to the upstream

	PrefixRewrite            string `yaml:"prefix_rewrite"` // in the place of the matched prefix or path
	RegexRewritePattern      string `yaml:"regex_rewrite_pattern"`
	RegexRewriteSubstitution string `yaml:"regex_rewrite_substitution"`

	Timeout         *Duration `yaml:"timeout"`      // whole response; 0s for none; 30s by default, none with Streams
	IdleTimeout     *Duration `yaml:"idle_timeout"` // 5m by default, 1h for TCP
	AllowWebsockets bool      `yaml:"allow_websockets"`
	Streams         bool      `yaml:"streams"` // responses may be event streams or long polls, which end with the session

	SetRequestHeaders     map[string]string `yaml:"set_request_headers"`
	RemoveRequestHeaders  []string          `yaml:"remove_request_headers"`
	SetResponseHeaders    map[string]string `yaml:"set_response_headers"`
	RemoveResponseHeaders []string          `yaml:"remove_response_headers"`

	HSTS *HSTS `yaml:"hsts" json:",omitempty"` // browsers reach the host by https alone; nil leaves that to the upstream

	HealthCheck      *HealthCheck      `yaml:"health_check" json:",omitempty"`      // asks each endpoint whether it works
	OutlierDetection *OutlierDetection `yaml:"outlier_detection" json:",omitempty"` // leaves endpoints alone that answer with errors
	CircuitBreaker   *CircuitBreaker   `yaml:"circuit_breaker" json:",omitempty"`   // bounds what is asked of the upstream at a time
	LoadBalancing    string            `yaml:"load_balancing" json:",omitempty"`    // of LoadBalancings; "" is RoundRobin
	HashOn           *HashOn           `yaml:"hash_on" json:",omitempty"`           // what RingHash and Maglev go by
	Retry            *Retry            `yaml:"retry" json:",omitempty"`             // nil: once, and only what the upstream cannot have seen
	Mirror           []Mirror          `yaml:"mirror" json:",omitempty"`            // who gets copies of the requests

	PreserveHostHeader bool   `yaml:"preserve_host_header"` // send the client's Host to the upstream
	HostRewrite        string `yaml:"host_rewrite"`         // the Host that the upstream sees; else the upstream's own name

	TLSCAFile         string `yaml:"tls_custom_ca_file"` // PEM; instead of the system's roots
	TLSServerName     string `yaml:"tls_server_name"`    // SNI and the name verified; else the upstream's host
	TLSClientCertFile string `yaml:"tls_client_cert_file"`
	TLSClientKeyFile  string `yaml:"tls_client_key_file"`
	TLSSkipVerify     bool   `yaml:"tls_skip_verify"`

	Redirect *Redirect `yaml:"redirect"`
	Response *Response `yaml:"response"`

	Source Position `yaml:"-"` // where the route stands

	contents string // hash of the certificates and keys that the route names: part of its revision
	pushed   bool   // it came over the admin API
}

// Bearer says which tokens of programs a route takes (RFC 6750). At least one kind is on.
type Bearer struct {
	Issuers       Names `yaml:"issuers"`        // names of token_issuers
	ServiceTokens bool  `yaml:"service_tokens"` // those that `doorward token create` makes for the route
	ForwardToken  bool  `yaml:"forward_token"`  // the upstream gets an issuer's token too; never a service token
}

// CORS says which pages of other origins may make requests and read the answers (Fetch Standard, section 3.3).
type CORS struct {
	AllowOrigins     Names    `yaml:"allow_origins"`     // https://host[:port]; or "*" alone, without credentials
	AllowMethods     Names    `yaml:"allow_methods"`     // GET, HEAD and POST by default
	AllowHeaders     Names    `yaml:"allow_headers"`     // that a page may set beside those that every page may; none by default
	ExposeHeaders    Names    `yaml:"expose_headers"`    // of an answer that a page may read beside those that every page may
	AllowCredentials bool     `yaml:"allow_credentials"` // cookies come with the request, and so a session
	MaxAge           Duration `yaml:"max_age"`           // how long a browser may remember the answer to a preflight; 10m by default
}

// Target is one upstream: http, https or h2c, a host and a port (443 for https and 80 for the others when absent), no path; or tcp, a host and a
// port.
type Target struct {
	URL    UpstreamURL `yaml:"url"`
	Weight uint32      `yaml:"weight"` // share among the route's targets; 1 by default
}

// Targets reads from one URL, a list of URLs, or a list of {url, weight}; or from AdminTarget.
type Targets []Target

// Redirect answers with a redirect instead of an upstream. Empty fields keep that part of the request's URL.
type Redirect struct {
	Host       string `yaml:"host"`
	Path       string `yaml:"path"`
	Prefix     string `yaml:"prefix"` // replaces the matched prefix
	Status     int    `yaml:"status"` // 301, 302 (default), 303, 307 or 308
	StripQuery bool   `yaml:"strip_query"`
}

// Response answers with a fixed response instead of an upstream.
type Response struct {
	Status int    `yaml:"status"` // 200 (default) to 599
	Body   string `yaml:"body"`   // text/plain; at most 4096 bytes
}

// Position is a place in a file. Line and Column start at 1; 0 means unknown.
type Position struct {
	File   string `json:"file"`
	Line   int    `json:"line"`
	Column int    `json:"column"`
}

// Host is the route's host in lower case, without the port: the scope key, the SNI, and the issuer and audience of its JWT.
func (r Route) Host() string { return r.From.Hostname() }

// Public says whether the route runs no policy at all.
func (r Route) Public() bool { return r.Policy == PolicyPublic }

// Anonymous says whether a request without a session is decided by the policy.
func (r Route) Anonymous() bool { return r.AllowAnonymous || r.Public() }

// TCP says whether the route leads to a TCP service: it takes CONNECT to its host and nothing else.
func (r Route) TCP() bool { return r.From.service != 0 }

// PassIdentity says whether the upstream gets the identity JWT. A TCP service gets no header at all.
func (r Route) PassIdentity() bool {
	return !r.TCP() && (r.PassIdentityHeaders == nil || *r.PassIdentityHeaders)
}
