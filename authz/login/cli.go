package login

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"time"

	"doorward/authz/session"
	"doorward/authz/web"
)

// programAsk is what a program on the person's computer asks by way of the browser: a native app's authorization request (RFC 8252, with RFC 7636's
// challenge). Nothing of it is believed but its form: whoever makes the person confirm it gets a code sent to a program on the person's own
// computer, and only who has the challenge's verifier can use it.
type programAsk struct {
	redirect  string // http on a loopback address, with a port and the path "/"
	challenge string // base64url of the verifier's SHA-256
	state     string // of the program, which gets it back
}

var (
	loopback     = regexp.MustCompile(`^http://(?:127\.0\.0\.1|\[::1\]):([1-9][0-9]{0,4})/$`) // RFC 8252, section 7.3; no name, which could lead elsewhere
	programState = regexp.MustCompile(`^[A-Za-z0-9_-]{16,64}$`)
)

// readAsk reads what a program asks. Each parameter stands there once.
func readAsk(from url.Values) (ask programAsk, err error) {
	one := func(name string) (value string) {
		if values := from[name]; len(values) == 1 {
			value = values[0]
		}
		return value
	}
	ask = programAsk{one("redirect"), one("challenge"), one("state")}
	port := loopback.FindStringSubmatch(ask.redirect)
	if port == nil {
		return ask, fmt.Errorf("redirect %q is not http://127.0.0.1:PORT/ or http://[::1]:PORT/", bounded(ask.redirect, 100))
	}
	if n, err := strconv.Atoi(port[1]); err != nil || n > 65535 {
		return ask, fmt.Errorf("redirect %q has no port", bounded(ask.redirect, 100))
	}
	if ask.nonce() == nil {
		return ask, errors.New("the challenge is not base64url of a SHA-256")
	}
	if !programState.MatchString(ask.state) {
		return ask, errors.New("the state is not 16 to 64 characters of base64url")
	}
	return ask, nil
}

// nonce is the hash that the verifier must have; nil for a challenge that is none.
func (a programAsk) nonce() []byte {
	sum, err := base64.RawURLEncoding.Strict().DecodeString(a.challenge)
	if err != nil || len(sum) != 32 {
		return nil
	}
	return sum
}

func (a programAsk) values() url.Values {
	return url.Values{"redirect": {a.redirect}, "challenge": {a.challenge}, "state": {a.state}}
}

// program asks the person, signed in, whether a program on this computer may connect to the host's service.
func (h *Handler) program(v *visit) {
	if !navigation(v.r) {
		h.fail(v, nil, web.Error{Status: http.StatusUnauthorized, Title: "Sign in", Message: "A program asks to connect.",
			Remedy: "Open this address in a window of its own."})
		return
	}
	ask, err := readAsk(v.r.URL.Query())
	if err != nil {
		h.strangeAsk(v, err)
		return
	}
	h.question(v, ask, session.DemandOf(v.r.URL.Query()))
}

// question shows the question, or signs in first whoever is not, or not well enough.
func (h *Handler) question(v *visit, ask programAsk, want session.Demand) {
	s, err := h.current(v)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	if s == nil || want.Unmet(s, h.Now()) != "" {
		q := ask.values()
		want.AddTo(q)
		again := url.Values{"return": {v.Prefix + "/cli?" + q.Encode()}}
		want.AddTo(again)
		v.redirect(v.at("/sign_in?" + again.Encode()))
		return
	}
	v.show(h.Pages.Program(web.Program{
		Host: v.host, Account: account(s), Action: v.Prefix + "/cli", SignOutURL: v.Prefix + "/sign_out",
		Redirect: ask.redirect, Challenge: ask.challenge, State: ask.state, Session: session.HashID(s.ID),
	}))
}

// account is how a session's owner is called.
func account(s *session.Session) string {
	for _, name := range []string{s.User.Email, s.User.Name} {
		if name != "" {
			return name
		}
	}
	return s.User.ID
}

// letProgram takes the person's yes, and sends a code to the program. It goes to a loopback address and nowhere else. The page between is
// needed because the form may not lead there (web.Continue).
func (h *Handler) letProgram(v *visit) {
	if !v.fromHere() {
		h.fail(v, errors.New("a program was let connect by another site"), web.Error{Status: http.StatusForbidden, Title: "Nothing was allowed",
			Message: "Another site tried to let a program connect as you.", Remedy: "If you want to connect, start the program again."})
		return
	}
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
	if err := v.r.ParseForm(); err != nil {
		h.strangeAsk(v, err)
		return
	}
	ask, err := readAsk(v.r.PostForm)
	if err != nil {
		h.strangeAsk(v, err)
		return
	}
	s, err := h.current(v)
	if err != nil {
		h.unavailable(v, err)
		return
	}
	if s == nil || session.HashID(s.ID) != v.r.PostForm.Get("session") {
		h.question(v, ask, session.Demand{}) // the person who said yes is not, or no longer, the one who is here
		return
	}
	code, err := h.code(v.r.Context(), grant{Session: s.ID, Host: session.ForService(v.host), Nonce: ask.nonce()})
	if err != nil {
		h.unavailable(v, err)
		return
	}
	back := url.Values{"code": {code}, "state": {ask.state}}
	v.show(h.Pages.Continue(web.Continue{Host: v.host, Title: "The program may connect",
		Message: "It goes on by itself. If it does not, press the button while it runs.", URL: ask.redirect + "?" + back.Encode()}))
}

// strangeAsk is for a request that no program of ours makes. It is answered here: nothing is sent to an address that may be anybody's (RFC 6749,
// section 4.1.2.1).
func (h *Handler) strangeAsk(v *visit, cause error) {
	h.fail(v, cause, web.Error{Status: http.StatusBadRequest, Title: "No program can connect by this address",
		Message: "The address is incomplete, or was not made by a program on this computer.", Remedy: "Start the program again."})
}

// programToken gives a program its credential for a code and the verifier of the challenge. The code is gone whatever comes out. The credential
// ends with the session of the person who said yes.
func (h *Handler) programToken(v *visit) {
	v.r.Body = http.MaxBytesReader(v.w, v.r.Body, maxForm)
	g, err := grant{}, errNoCode
	if v.r.ParseForm() == nil {
		g, err = h.take(v.r.Context(), v.r.PostForm.Get("code"))
	}
	if err == nil && (g.Host != session.ForService(v.host) || !hashes(g.Nonce, []byte(v.r.PostForm.Get("verifier")))) {
		err = fmt.Errorf("%w: it was made for another host or another program", errNoCode)
	}
	var value string
	if err == nil {
		value, err = h.Sessions.Issue(v.r.Context(), g.Session, session.ForService(v.host))
	}
	var s *session.Session
	if err == nil {
		s, err = h.Sessions.Find(v.r.Context(), value, session.ForService(v.host))
	}
	switch {
	case errors.Is(err, session.ErrNone):
		h.noToken(v, http.StatusForbidden, "session_ended", "the session ended meanwhile: sign in again", err)
	case errors.Is(err, errNoCode):
		h.noToken(v, http.StatusBadRequest, "invalid_grant", "the code is unknown, used or expired, or was made for another program: sign in again", err)
	case err != nil:
		h.noToken(v, http.StatusServiceUnavailable, "not_available", "the sign-in cannot be completed at the moment: try again in a few seconds", err)
	default:
		h.Log.Info("a program was let connect", "session", session.HashID(s.ID), "subject", s.User.ID, "provider", s.Provider, "host", v.host, "request_id", v.id)
		v.json(http.StatusOK, ProgramToken{Credential: value, Account: account(s), Expires: s.Expires})
	}
}

// ProgramToken is what a program gets.
type ProgramToken struct {
	Credential string    `json:"credential"` // good as the session's cookie, for CONNECT to this host alone
	Account    string    `json:"account"`    // who it stands for, for people
	Expires    time.Time `json:"expires"`    // at the latest
}

func (h *Handler) noToken(v *visit, status int, code, message string, cause error) {
	h.Log.Info("a program got no credential", "error", code, "host", v.host, "request_id", v.id, "cause", bounded(cause.Error(), 500))
	v.json(status, map[string]string{"error": code, "message": message})
}

// json answers a program.
func (v *visit) json(status int, content any) {
	header := v.w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Content-Type-Options", "nosniff")
	v.w.WriteHeader(status)
	_ = json.NewEncoder(v.w).Encode(content) // the program is gone if it fails
}
