package tunnel

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// patience is how long a person has to sign in.
const patience = 5 * time.Minute

// signIn has the person sign in at an address that the edge has named, and let this program connect: the browser brings a code to a port of this
// computer, and with what only this program knows the code becomes a credential (RFC 8252, section 7.3; RFC 7636).
func (t *Tunnel) signIn(ctx context.Context, at string) (Credential, error) {
	page, err := url.Parse(at)
	if err != nil || page.Scheme != "https" || page.Hostname() != t.Host || page.User != nil {
		return Credential{}, fmt.Errorf("the edge names %q, which is no address of %s", printable(at), t.Host)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("nobody did within %s", patience))
	defer cancel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return Credential{}, err
	}
	verifier, state := secret(), secret()
	challenge := sha256.Sum256([]byte(verifier))
	q := page.Query()
	q.Set("redirect", "http://"+l.Addr().String()+"/")
	q.Set("challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
	q.Set("state", state)
	asked := *page
	asked.RawQuery = q.Encode()
	t.Tell("to connect to %s, sign in at\n\n  %s\n", t.Service(), asked.String())
	if t.Open != nil {
		if err := t.Open(asked.String()); err != nil {
			t.Tell("no browser could be started (%v): open the address yourself, in a browser on this computer", err)
		}
	}
	code, err := awaitCode(ctx, l, state)
	if err != nil {
		return Credential{}, err
	}
	return t.edge.redeem(ctx, page, code, verifier)
}

// secret is 256 random bits in base64url.
func secret() string {
	b := make([]byte, 32)
	rand.Read(b) // never fails (crypto/rand)
	return base64.RawURLEncoding.EncodeToString(b)
}

// awaitCode serves the port that the browser comes back to, until it has brought a code with the right state. Anything else that comes, and any
// page can send requests here, is answered and changes nothing. It closes l.
func awaitCode(ctx context.Context, l net.Listener, state string) (string, error) {
	codes := make(chan string, 1)
	server := &http.Server{ReadTimeout: 10 * time.Second, MaxHeaderBytes: 16 << 10, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		if r.Method != http.MethodGet || r.URL.Path != "/" || r.Host != l.Addr().String() || len(q["code"]) != 1 ||
			subtle.ConstantTimeCompare([]byte(q.Get("state")), []byte(state)) != 1 {
			answer(w, http.StatusBadRequest, "This address is for a sign-in that a program on this computer waits for, and this is not it.")
			return
		}
		answer(w, http.StatusOK, "The program may connect now. You can close this page.")
		select {
		case codes <- q.Get("code"):
		default: // there is one already
		}
	})}
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(l) }()
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = server.Shutdown(last) // the person's page may still be on its way
		_ = server.Close()
	}()
	select {
	case code := <-codes:
		return code, nil
	case err := <-failed:
		return "", err
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
}

func answer(w http.ResponseWriter, status int, text string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("Cache-Control", "no-store")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<!doctype html><html lang=\"en\"><meta name=\"color-scheme\" content=\"light dark\"><title>Doorward</title><p>%s</p>\n", text)
}

// redeem makes a credential of a code.
func (e *edge) redeem(ctx context.Context, page *url.URL, code, verifier string) (Credential, error) {
	ctx, cancel := context.WithTimeout(ctx, opening)
	defer cancel()
	form := url.Values{"code": {code}, "verifier": {verifier}}
	r, err := e.request(ctx, http.MethodPost, page.Host, page.Path+"/token", strings.NewReader(form.Encode()))
	if err != nil {
		return Credential{}, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.Header.Set("Accept", "application/json")
	response, err := e.client.Do(r)
	if err != nil {
		return Credential{}, err
	}
	if response.StatusCode != http.StatusOK {
		return Credential{}, refusal(response)
	}
	defer response.Body.Close()
	var got Credential
	if err := json.NewDecoder(io.LimitReader(response.Body, maxAnswer)).Decode(&got); err != nil {
		return Credential{}, fmt.Errorf("the edge's answer: %w", err)
	}
	got.Account = printable(got.Account)
	if got.Secret == "" {
		return Credential{}, errors.New("the edge's answer holds no credential")
	}
	return got, nil
}
