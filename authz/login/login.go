// Package login signs people in and out: OpenID Connect authorization code with PKCE, the hand-off of a session to other hosts, the user
// page and sign-out. Its handlers stand behind Envoy routes that have ext_authz off. It is the only importer of go-oidc.
//
// One host, the auth host, talks to the provider. Another host gets its own cookie for the session by a hand-off:
//
//	wiki/sign_in      -> flow cookie with a nonce; to the auth host with a sealed request that holds the nonce's hash
//	auth/sign_in      -> when there is no session: state cookie, to the provider, back to auth/callback, session
//	                  -> a code, stored under its hash; back to the host that asked
//	wiki/redeem       -> takes the code, compares host and nonce, issues the cookie; to the URL that was asked for
//
// A program on the person's own computer that connects to a TCP service of a host gets a credential for it by a code too, once the person has
// said so (cli.go):
//
//	db/cli            -> signs in as above, and asks whether the program may
//	db/cli, POST      -> a code; to the program, which listens on a loopback address
//	db/cli/token      -> takes the code, compares host and verifier, issues the credential
//
// Nothing in a URL or a cookie is believed that is not sealed by us, and no redirect leaves the configured hosts but those to the
// provider's own endpoints. The package never answers a program: authz does that with 401. It refuses to start a sign-in for anything
// but a navigation, and it does not log tokens, codes or cookies.
package login

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
	"doorward/authz/store"
	"doorward/authz/web"
)

// headerSNI is set by Envoy, whatever the client sent: the server name of the TLS handshake. It is xds.HeaderSNI.
const headerSNI = "X-Doorward-Sni"

// Settings is what the handlers need of the loaded configuration. Immutable.
type Settings struct {
	Prefix   string        // of all our paths, "/.pomerium"
	AuthURL  config.URL    // the host that signs in with the provider
	IDPs     config.IDPs   // with the secrets themselves, also when they stand in files; the first one's subjects have no prefix
	Lifetime time.Duration // of a session
	Refresh  time.Duration // how often the provider is asked for tokens and claims anew; 0 for never
	Programs []string      // what the ids of users begin with, before a colon, who do not sign in here: programs
	AuthOnly bool          // AuthURL's host has no route, so there is nothing at its "/" but the user page

	// Origin is that of a host that has a route, or of AuthURL's, by its name without port; zero for any other.
	Origin func(host string) config.URL
	// Service says whether a host has a TCP service, which programs may ask to connect to; nil for none.
	Service func(host string) bool
}

// Config is what a Handler needs.
type Config struct {
	Settings func() Settings // the current ones; called once per request
	Sessions *session.Sessions
	Store    store.Store
	Sealer   *session.Sealer
	Pages    *web.Pages
	Log      *slog.Logger
	Now      func() time.Time // time.Now when nil
	Client   *http.Client     // for the provider; when nil one that trusts the system's roots and the provider's CAFile
}

// Handler serves everything below the prefix. Safe for concurrent use.
type Handler struct {
	Config
	providers      providers
	strangeLogouts *allowance // front-channel sign-outs of sessions that are not known
	exchanges      *allowance // callbacks that ask the provider's token endpoint
}

// New returns a Handler. It does not ask the provider: discovery is lazy.
func New(c Config) (*Handler, error) {
	if c.Settings == nil || c.Sessions == nil || c.Store == nil || c.Sealer == nil || c.Pages == nil || c.Log == nil {
		return nil, errors.New("login: Settings, Sessions, Store, Sealer, Pages and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Handler{
		Config: c, providers: providers{now: c.Now, client: c.Client, known: map[providerKey]*provider{}},
		strangeLogouts: newAllowance(100, time.Second), exchanges: newAllowance(1000, 10*time.Millisecond),
	}, nil
}

// visit is one request, at a host that we have.
type visit struct {
	w http.ResponseWriter
	r *http.Request
	Settings
	host string // lower case, without port
	id   string // Envoy's request id, "" when there is none that is safe to show
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	v := &visit{w: w, r: r, Settings: h.Settings(), host: hostname(r.Host)}
	if id := r.Header.Get("X-Request-Id"); plainID(id) {
		v.id = id
	}
	if sni := r.Header.Values(headerSNI); len(sni) != 1 || strings.ToLower(sni[0]) != v.host || v.Origin(v.host).IsZero() {
		v.host = ""
		h.fail(v, nil, web.Error{Status: http.StatusMisdirectedRequest, Title: "Wrong host",
			Message: "This connection was made for another host.", Remedy: "Open the address again."})
		return
	}
	h.route(v)
}

// route finds the handler of a path. Most of them answer GET; sign_out, the user page and the question of a program answer POST too, and what
// programs ask POST alone.
func (h *Handler) route(v *visit) {
	path, below := strings.CutPrefix(v.r.URL.Path, v.Prefix)
	handlers := map[string]func(*visit){
		"": h.user, "/": h.user, "/sign_in": h.signIn, "/callback": h.callback, "/redeem": h.redeem, "/return": h.restore,
		"/sign_out": h.signOut, "/signed_out": h.signedOut, "/frontchannel_logout": h.frontChannel, "/backchannel_logout": h.backChannel,
	}
	if v.Service != nil && v.Service(v.host) {
		handlers["/cli"], handlers["/cli/token"] = h.program, h.programToken
	}
	handle := handlers[path]
	posted := path == "/backchannel_logout" || path == "/cli/token"
	atAuth := path == "/callback" || path == "/frontchannel_logout" || path == "/backchannel_logout"
	switch {
	case !below || handle == nil || atAuth && !v.atAuthHost():
		h.fail(v, nil, web.Error{Status: http.StatusNotFound, Title: "Page not found", Message: "There is no page at this address."})
	case posted && v.r.Method == http.MethodPost, !posted && v.r.Method == http.MethodGet:
		handle(v)
	case v.r.Method == http.MethodPost && path == "/sign_out":
		h.confirmedSignOut(v)
	case v.r.Method == http.MethodPost && path == "/":
		h.endOther(v)
	case v.r.Method == http.MethodPost && path == "/cli":
		h.letProgram(v)
	default:
		allow := "GET"
		switch path {
		case "/sign_out", "/", "/cli":
			allow = "GET, POST"
		case "/backchannel_logout", "/cli/token":
			allow = "POST"
		}
		v.w.Header().Set("Allow", allow)
		h.fail(v, nil, web.Error{Status: http.StatusMethodNotAllowed, Title: "Method not allowed",
			Message: "This address can only be opened."})
	}
}

func (v *visit) atAuthHost() bool { return v.host == v.AuthURL.Hostname() }

// at is the URL of one of our paths on this host.
func (v *visit) at(path string) string { return v.Origin(v.host).Origin() + v.Prefix + path }

// atAuth is the URL of one of our paths on the auth host.
func (s *Settings) atAuth(path string) string { return s.AuthURL.Origin() + s.Prefix + path }

// query returns a parameter, "" when it is absent or stands there more than once (RFC 6749, section 3.1).
func (v *visit) query(name string) string {
	if values := v.r.URL.Query()[name]; len(values) == 1 {
		return values[0]
	}
	return ""
}

// redirect sends the browser on. The URL is made of an origin that we know and escaped parts.
func (v *visit) redirect(url string) {
	h := v.w.Header()
	h.Set("Location", url)
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	v.w.WriteHeader(http.StatusFound)
}

func (v *visit) show(p web.Page) {
	for name, value := range p.Header {
		v.w.Header().Set(name, value)
	}
	v.w.WriteHeader(p.Status)
	_, _ = v.w.Write(p.Body) // the browser is gone if it fails
}

// fail shows an error page and, when there is a cause, logs it: as an error only what a client cannot cause at will.
func (h *Handler) fail(v *visit, cause error, page web.Error) {
	page.Host, page.RequestID = v.host, v.id
	if cause != nil {
		level := slog.LevelInfo
		switch {
		case page.Status == http.StatusBadGateway: // the provider's fault, or a client's that makes answers up
			level = slog.LevelWarn
		case page.Status >= 500:
			level = slog.LevelError
		}
		message := "sign-in failed"
		if strings.HasSuffix(v.r.URL.Path, "/sign_out") {
			message = "sign-out failed"
		}
		h.Log.Log(v.r.Context(), level, message, "page", page.Title, "status", page.Status, "host", v.host,
			"path", strings.TrimPrefix(v.r.URL.Path, v.Prefix), "request_id", v.id, "cause", bounded(cause.Error(), 500))
	}
	v.show(h.Pages.Error(page))
}

// unavailable answers when the store cannot be asked.
func (h *Handler) unavailable(v *visit, cause error) {
	h.fail(v, cause, web.Error{Status: http.StatusServiceUnavailable, Title: "Not available",
		Message: "Your session cannot be looked up at the moment.", Remedy: "Try again in a few seconds.", RetryURL: v.signInURL("/")})
}

// current returns the browser's session at this host, or nil. Two different cookies are none, as authz has it: one of them was put there.
func (h *Handler) current(v *visit) (*session.Session, error) {
	value := ""
	for _, cookie := range v.r.CookiesNamed(session.CookieName) {
		if value != "" && value != cookie.Value {
			return nil, nil
		}
		value = cookie.Value
	}
	s, err := h.Sessions.Find(v.r.Context(), value, v.host)
	if errors.Is(err, session.ErrNone) {
		return nil, nil
	}
	return s, err
}

// hostname is a Host header in lower case without its port.
func hostname(host string) string {
	if i := strings.LastIndexByte(host, ':'); i >= 0 && strings.Trim(host[i+1:], "0123456789") == "" {
		host = host[:i]
	}
	return strings.ToLower(host)
}

// plainID says whether an id is safe to show and log as it is: Envoy's is a UUID.
func plainID(id string) bool {
	return len(id) >= 16 && len(id) <= 64 && strings.Trim(id, "0123456789abcdefABCDEF-") == ""
}

// bounded cuts a text from outside to n bytes at most.
func bounded(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
