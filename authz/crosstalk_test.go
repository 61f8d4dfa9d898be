package authz

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"doorward/authz/policy"
	"doorward/authz/session"
	"doorward/authz/store"
	"doorward/authz/store/bolt"
	"doorward/authz/token"
	"doorward/authz/web"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	crowdSize  = 64
	crowdAsks  = 45 // of each person
	crowdTurns = 6  // of policy while they ask, and half as many of the key
)

// crowdPolicy says of everybody what only they should hear. %d is the policy's version. The claims are the same for everybody, so that it is
// the session that has to tell their tokens apart, and differ by what is asked, so that it cannot do so alone.
const crowdPolicy = `package grafana

default allow := false

allow if not "out" in input.user.groups

deny contains sprintf("%%s is out", [input.user.id]) if "out" in input.user.groups

claims := {"policy": %d, "path": input.request.path}

headers := {"x-who": input.user.id, "x-team": input.user.claims.team, "x-path": input.request.path, "x-asked": object.get(input.request.headers, "x-ask", "")}

response_headers := {"x-for": input.user.id}
`

// TestNobodyGetsAnothers has 64 people ask at once, over gRPC, while sessions change and are replaced, policies and signing keys are
// replaced, and the caches hold all of it (hot) or next to nothing (cold). Each answer is held against who asked.
func TestNobodyGetsAnothers(t *testing.T) {
	t.Run("hot", func(t *testing.T) { newCrowd(t).meet() })
	t.Run("cold", func(t *testing.T) {
		c := newCrowd(t)
		c.decisions = policy.NewCache(16, 16<<10)
		c.meet()
	})
}

// crowd is a real server with everything real behind it, and a client.
type crowd struct {
	*door
	store    store.Store
	sealer   *session.Sealer
	sessions *session.Sessions
	ring     *token.Ring
	ahead    atomic.Int64 // nanoseconds by which the clock of keys and tokens is ahead
	client   authv3.AuthorizationClient
	policy   atomic.Int64 // version
	answered atomic.Int64 // answers by the outcome that was expected

	mu        sync.RWMutex // guards revisions
	revisions []string     // of the route, by the policy's version
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	c := &crowd{door: &door{t: t, timeout: 10 * time.Second, header: "X-Pomerium-Jwt-Assertion", log: new(strings.Builder), ctx: t.Context()}}
	dir := t.TempDir()
	db, err := bolt.Open(filepath.Join(dir, "db"))
	c.must(err)
	c.store = db
	t.Cleanup(func() { db.Close() })
	c.sealer, err = session.OpenSealer(filepath.Join(dir, "key"))
	c.must(err)
	c.sessions, err = session.New(session.Config{Store: db, Sealer: c.sealer})
	c.must(err)
	now := func() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }
	c.ring, err = token.Open(t.Context(), token.Config{Store: db, Sealer: c.sealer, ConsumerCache: time.Second, Now: now})
	c.must(err)
	pages, err := web.New(web.Brand{})
	c.must(err)
	c.Server, err = New(Config{Sessions: c.sessions, Tokens: c.ring, Pages: pages, Log: slog.New(slog.DiscardHandler), Now: now})
	c.must(err)
	c.replacePolicy()
	c.serve()
	return c
}

func (c *crowd) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// serve runs everything until the test ends.
func (c *crowd) serve() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	c.must(err)
	server := c.NewGRPC()
	ctx, stop := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return server.Serve(l) })
	group.Go(func() error { return c.sessions.Run(ctx) })
	group.Go(func() error { return c.ring.Run(ctx) })
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	c.must(err)
	c.t.Cleanup(func() {
		conn.Close()
		server.Stop()
		stop()
		if err := group.Wait(); err != nil {
			c.t.Error(err)
		}
	})
	c.client = authv3.NewAuthorizationClient(conn)
}

// replacePolicy adopts the next version. Calls do not overlap.
func (c *crowd) replacePolicy() {
	next := c.policy.Load() + 1
	c.adopt(map[string]string{"p.rego": fmt.Sprintf(crowdPolicy, next)}, routeTo(c.t, "grafana", "grafana"))
	c.mu.Lock()
	c.revisions = append(c.revisions, c.g.Revision("grafana"))
	c.mu.Unlock()
	c.policy.Store(next)
}

// meet has everybody ask while policies and keys are replaced.
func (c *crowd) meet() {
	everybody := make(chan error, crowdSize)
	var keys sync.Map // by kid
	learn := func() { publicKeys(c.t, c.ring.JWKS(), &keys) }
	learn()
	for i := range crowdSize {
		go func() {
			everybody <- (&person{crowd: c, id: fmt.Sprintf("person-%d", i), out: i%8 == 7, keys: &keys}).live()
		}()
	}
	first := c.ring.KeyID()
	for turn := range crowdTurns {
		for goal := c.answered.Load() + crowdSize*crowdAsks/crowdTurns/2; c.answered.Load() < goal && len(everybody) < crowdSize; {
			time.Sleep(time.Millisecond)
		}
		c.replacePolicy()
		if turn%2 == 1 {
			c.Settle(c.Retired()...)
			c.must(c.ring.Rotate(c.t.Context()))
			learn()
			c.ahead.Add(int64(3 * time.Minute)) // longer than a key is published before it signs
		}
	}
	for range crowdSize {
		if err := <-everybody; err != nil {
			c.t.Error(err)
		}
	}
	if first == c.ring.KeyID() {
		c.t.Error("the signing key was never replaced")
	}
	if n := c.answered.Load(); n < crowdSize*crowdAsks*3/4 {
		c.t.Errorf("only %d of %d answers were held against who asked", n, crowdSize*crowdAsks)
	}
}

// person asks, one request after the other.
type person struct {
	*crowd
	id      string
	out     bool // the policy denies
	keys    *sync.Map
	session *session.Session
	cookie  string
	teams   []string // names and teams that an answer may have: the last is the newest
}

func (p *person) live() error {
	for i := range crowdAsks {
		var err error
		switch {
		case i%20 == 0:
			err = p.signIn(i)
		case i%10 == 5:
			err = p.change(i)
		}
		if err == nil {
			err = p.askOnce(i)
		}
		if err != nil {
			return fmt.Errorf("%s, request %d: %w", p.id, i, err)
		}
	}
	return nil
}

// signIn replaces the session.
func (p *person) signIn(i int) error {
	if p.session != nil {
		if err := p.sessions.Revoke(p.t.Context(), p.session.ID); err != nil {
			return err
		}
	}
	groups := []string{"staff", p.id}
	if p.out {
		groups = append(groups, "out")
	}
	team := fmt.Sprintf("%s-%d", p.id, i)
	made, err := p.sessions.Create(p.t.Context(), session.Session{
		Issuer: "https://idp.example.com", Subject: p.id, SID: team, Expires: time.Now().Add(24 * time.Hour),
		User: session.User{
			ID: p.id, Email: p.id + "@example.com", EmailVerified: true, Name: team, Groups: groups,
			Claims: map[string]any{"team": team, "preferred_username": p.id},
		},
	})
	if err != nil {
		return err
	}
	p.session, p.teams = made, []string{team}
	p.cookie, err = p.sessions.Issue(p.t.Context(), made.ID, host)
	return err
}

// change writes another identity into the session that there is, as a refresh would.
func (p *person) change(i int) error {
	team := fmt.Sprintf("%s-%d", p.id, i)
	p.session.User.Claims["team"], p.session.User.Name = team, team
	text, err := json.Marshal(p.session)
	if err != nil {
		return err
	}
	key := "session/" + p.session.ID
	_, err = p.store.Apply(p.t.Context(), store.Op{Key: key, Value: p.sealer.Seal(key, text), Expires: p.session.Expires, Expect: store.Any})
	p.teams = append(p.teams, team)
	return err
}

// askOnce asks and holds the answer against who asked.
func (p *person) askOnce(i int) error {
	p.mu.RLock()
	version := len(p.revisions)
	revision := p.revisions[version-1]
	p.mu.RUnlock()
	path, asked := fmt.Sprintf("/d/%d", i%2), fmt.Sprintf("asked %d", i%3) // nothing of the person
	a := ask{route: "grafana", revision: revision, host: host, sni: host, method: "GET", path: path, headers: [][2]string{
		{cookie, session.CookieName + "=" + p.cookie + "; mine=" + p.id}, {"x-ask", asked}, {"accept", "application/json"},
	}}
	if i%4 == 0 {
		a.headers[0][1] = session.CookieName + "=" + p.cookie
	}
	r, err := p.client.Check(p.t.Context(), a.question())
	if err != nil {
		return err
	}
	switch got := status(r); {
	case got == 503 && int64(version) < p.policy.Load():
		return nil // settled meanwhile
	case p.out && got == 403:
		if body := r.GetDeniedResponse().GetBody(); !strings.Contains(body, `"`+p.id+` is out"`) || r.GetOkResponse() != nil {
			return fmt.Errorf("denied with %s", body)
		}
	case p.out || got != 200:
		return fmt.Errorf("status %d: %v", got, r)
	default:
		err = p.verify(r.GetOkResponse(), version, path, asked, i%4 != 0)
	}
	p.answered.Add(1)
	return err
}

func (p *person) verify(ok *authv3.OkHttpResponse, version int, path, asked string, otherCookie bool) error {
	for name, want := range map[string]string{"x-who": p.id, "x-path": path, "x-asked": asked} {
		if got := headerOf(ok.Headers, name); got != want {
			return fmt.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	if got := headerOf(ok.ResponseHeadersToAdd, "x-for"); got != p.id {
		return fmt.Errorf("x-for is %q", got)
	}
	if got := headerOf(ok.Headers, "cookie"); otherCookie && got != "mine="+p.id || slices.Contains(ok.HeadersToRemove, "cookie") == otherCookie {
		return fmt.Errorf("cookie is %q, removed %v", got, ok.HeadersToRemove)
	}
	claims, err := verified(headerOf(ok.Headers, "x-pomerium-jwt-assertion"), p.keys)
	if err != nil {
		return err
	}
	for name, want := range map[string]any{
		"sub": p.id, "path": path, "preferred_username": p.id, "email": p.id + "@example.com",
		"sid": session.HashID(p.session.ID), "iss": host, "aud": host, "policy": float64(version), "groups": fmt.Sprint(p.session.User.Groups),
	} {
		got := claims[name]
		if name == "groups" {
			got = fmt.Sprint(got)
		}
		if got != want {
			return fmt.Errorf("claim %s is %v, want %v", name, got, want)
		}
	}
	if err := p.saw(headerOf(ok.Headers, "x-team")); err != nil {
		return err
	}
	return p.saw(claims["name"])
}

// saw holds what changes within a session: an answer may still have the old value until the store has told of the change, but never one
// older than what was seen.
func (p *person) saw(team any) error {
	for i, known := range p.teams {
		if team == known {
			p.teams = p.teams[i:]
			return nil
		}
	}
	return fmt.Errorf("name or team is %v, want one of %v", team, p.teams)
}

// publicKeys adds the keys of a JWKS (RFC 7517) by their names.
func publicKeys(t *testing.T, jwks []byte, keys *sync.Map) {
	t.Helper()
	var set struct {
		Keys []struct{ Kid, X, Y string }
	}
	if err := json.Unmarshal(jwks, &set); err != nil {
		t.Fatal(err)
	}
	for _, k := range set.Keys {
		x, errX := base64.RawURLEncoding.DecodeString(k.X)
		y, errY := base64.RawURLEncoding.DecodeString(k.Y)
		if errX != nil || errY != nil {
			t.Fatal(errX, errY)
		}
		public, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, x, y))
		if err != nil {
			t.Fatal(err)
		}
		keys.Store(k.Kid, public)
	}
}

// verified returns the claims of a compact JWS (RFC 7515) signed with ES256 by one of the keys.
func verified(jwt string, keys *sync.Map) (claims map[string]any, err error) {
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return nil, fmt.Errorf("%q is no JWT", jwt)
	}
	var raw [3][]byte
	for i, part := range parts {
		if raw[i], err = base64.RawURLEncoding.DecodeString(part); err != nil {
			return nil, err
		}
	}
	var header struct{ Kid string }
	if err := json.Unmarshal(raw[0], &header); err != nil {
		return nil, err
	}
	public, ok := keys.Load(header.Kid)
	if !ok {
		return nil, fmt.Errorf("signed with the key %q, which was not published", header.Kid)
	}
	digest := sha256.Sum256([]byte(parts[0] + "." + parts[1]))
	if len(raw[2]) != 64 || !ecdsa.Verify(public.(*ecdsa.PublicKey), digest[:], new(big.Int).SetBytes(raw[2][:32]), new(big.Int).SetBytes(raw[2][32:])) {
		return nil, fmt.Errorf("the signature of %s does not verify", jwt)
	}
	return claims, json.Unmarshal(raw[1], &claims)
}
