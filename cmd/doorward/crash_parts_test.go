package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"doorward/envoy"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// runEnvoy runs one that outlives the program.
func (s *stack) runEnvoy() {
	s.apart = true
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- envoy.Run(ctx, envoy.ChildConfig{
			Path: s.envoyBin, Bootstrap: envoy.BootstrapConfig{Node: "apart", SocketDir: filepath.Join(s.dir, "run")},
			Grace: 100 * time.Millisecond, Log: slog.New(slog.DiscardHandler),
		})
	}()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Error(err)
		}
	})
}

// visitor is a browser that may get no answer.
type visitor struct{ *browser }

func newVisitor(s *stack) *visitor { return &visitor{s.browser()} }

// get follows redirects. headers are name, value, name, value.
func (v *visitor) get(target string, headers ...string) (answer, error) {
	req, err := http.NewRequest(http.MethodGet, target, nil)
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Accept", "text/html")
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return v.try(req)
}

// status is that of a page, or why there is none.
func (v *visitor) status(target string) string {
	defer v.CloseIdleConnections()
	page, err := v.get(target, programHeaders...)
	if err != nil {
		return err.Error()
	}
	return page.Status
}

func (v *visitor) try(req *http.Request) (answer, error) {
	res, err := v.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return answer{res, string(text)}, err
}

// signIn goes as far as it gets.
func (v *visitor) signIn(target, user string) {
	page, err := v.get(target)
	if err != nil || !strings.HasPrefix(page.Request.URL.String(), v.s.idp.URL) {
		return
	}
	form := url.Values{"username": {user}, "password": {user}}
	for _, m := range hidden.FindAllStringSubmatch(page.text, -1) {
		form.Set(m[1], m[2])
	}
	to := page.Request.URL
	if m := action.FindStringSubmatch(page.text); m != nil {
		if to, err = to.Parse(m[1]); err != nil {
			return
		}
	}
	req, err := http.NewRequest(http.MethodPost, to.String(), strings.NewReader(form.Encode()))
	if err != nil {
		return
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "text/html")
	_, _ = v.try(req)
}

func (v *visitor) parse(target string) *url.URL {
	u, err := url.Parse(target)
	if err != nil {
		panic(err) // the stack's own addresses
	}
	return u
}

// hasCookie says whether a session's cookie was given for a host.
func (v *visitor) hasCookie(target string) bool {
	for _, c := range v.Jar.Cookies(v.parse(target)) {
		if c.Name == "__Host-doorward" {
			return true
		}
	}
	return false
}

// forgiveRefreshes has the provider answer a refresh token that comes again as it did the first time, as providers with rotating refresh tokens
// do for a while: who was killed before the answer was stored asks again.
func (s *stack) forgiveRefreshes() {
	var mu sync.Mutex
	given, inner := map[string]*httptest.ResponseRecorder{}, s.idp.Config.Handler
	s.idp.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20)) // what is missing, the provider misses
		r.Body = io.NopCloser(bytes.NewReader(body))
		form, err := url.ParseQuery(string(body))
		if err != nil || form.Get("grant_type") != "refresh_token" {
			inner.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		defer mu.Unlock()
		first := given[form.Get("refresh_token")]
		if first == nil {
			first = httptest.NewRecorder()
			inner.ServeHTTP(first, r.WithContext(context.WithoutCancel(r.Context()))) // whoever asked may be killed meanwhile
			given[form.Get("refresh_token")] = first
		}
		for name, values := range first.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(first.Code)
		_, _ = w.Write(first.Body.Bytes())
	})
}

// consumer verifies the identity JWT as applications do that keep the key set for a fixed time and never ask for it sooner.
type consumer struct {
	s     *stack
	cache time.Duration
	mu    sync.Mutex // guards what follows

	keys              map[string]*keptKeys // by host
	verified, fetched int
	faults            []string
}

type keptKeys struct {
	set  jose.JSONWebKeySet
	from time.Time // when it was asked for
}

func newConsumer(s *stack, cache time.Duration) *consumer {
	return &consumer{s: s, cache: cache, keys: map[string]*keptKeys{}}
}

func (c *consumer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := c.verify(r); err != nil {
		c.mu.Lock()
		c.faults = append(c.faults, err.Error())
		c.mu.Unlock()
	}
	fmt.Fprintln(w, "application")
}

// verify says what is wrong with a request's JWT. When the keys cannot be had nothing is said.
func (c *consumer) verify(r *http.Request) error {
	token, err := jwt.ParseSigned(r.Header.Get(assertion), []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return fmt.Errorf("the JWT cannot be read: %w", err)
	}
	var unverified jwt.Claims
	if err := token.UnsafeClaimsWithoutVerification(&unverified); err != nil {
		return err
	}
	host := unverified.Issuer
	if host != "grafana.localhost" && host != "wiki.localhost" {
		return fmt.Errorf("the issuer is %q", host)
	}
	set, err := c.keySet(host)
	if err != nil {
		return nil
	}
	var claims jwt.Claims
	if err := token.Claims(set, &claims); err != nil {
		return fmt.Errorf("a JWT with the key %s does not verify with a key set of that age: %w", token.Headers[0].KeyID, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.verified++
	return nil
}

// keySet is the kept one while it is young enough.
func (c *consumer) keySet(host string) (jose.JSONWebKeySet, error) {
	c.mu.Lock()
	kept := c.keys[host]
	c.mu.Unlock()
	if kept != nil && time.Since(kept.from) < c.cache {
		return kept.set, nil
	}
	fresh := &keptKeys{from: time.Now()}
	name, _, _ := strings.Cut(host, ".")
	v := newVisitor(c.s)
	defer v.CloseIdleConnections()
	page, err := v.get(c.s.url(name, "/.well-known/pomerium/jwks.json"))
	if err != nil {
		return fresh.set, err
	}
	if page.StatusCode != http.StatusOK {
		return fresh.set, fmt.Errorf("key set: %s", page.Status)
	}
	if err := json.Unmarshal([]byte(page.text), &fresh.set); err != nil {
		return fresh.set, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keys[host] = fresh
	c.fetched++
	return fresh.set, nil
}
