// Package acme gets certificates from an ACME server (RFC 8555) and keeps them renewed, by certmagic.
//
// It gets them for the hosts that it is given and for no others, so a stranger's handshake makes nothing happen. What it has is in the store, sealed,
// under locks with leases, so that any number of replicas share one certificate and any of them answers a challenge. Challenges come through
// Envoy; the package opens no port but, while it waits for one, two of the loopback interface. It refuses wildcards, which would need DNS.
package acme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"doorward/authz/config"
	"doorward/authz/store"
	"doorward/xds/cert"

	"golang.org/x/sync/errgroup"
)

const (
	// atOnce is how many certificates are got or renewed at a time.
	atOnce = 4
	// The wait after a failure, which doubles from the first to the last.
	firstRetry, lastRetry = 15 * time.Second, 6 * time.Hour
	// readyEvery is how often it is asked whether challenges would be answered.
	readyEvery = 200 * time.Millisecond
	// idle is how long Run sleeps when nothing is due.
	idle = time.Hour
)

// Config is what a Client is made of.
type Config struct {
	Store store.Store
	Seal  Sealer
	Log   *slog.Logger
	Ready func() bool      // challenges would be answered now; nil for always. Until then no server is asked for anything
	Now   func() time.Time // time.Now when nil
}

// Client gets certificates. Safe for concurrent use.
type Client struct {
	log     *slog.Logger
	ready   func() bool
	now     func() time.Time
	store   store.Store
	storage *storage
	ports   solverPorts
	wake    chan struct{} // has room for one: something is due sooner

	mu      sync.Mutex // guards what follows
	engine  *engine    // nil while no configuration names a server
	hosts   map[string]*host
	changed map[string]bool // hosts whose certificate is another one since Changed was called
}

// host is what is known of one host's certificate.
type host struct {
	kept     kept // without a leaf while the first certificate is awaited
	next     time.Time
	busy     bool // somebody is at it
	failures int  // in a row
	problem  string
}

// State is what there is to say of one host's certificate.
type State struct {
	Renewal time.Time // when it is due to be renewed; zero while the first one is awaited
	Retry   time.Time // when it is tried again; zero when the last try was good
	Problem string    // why the last try was not; "" when it was
}

// New returns a Client that has nothing to do until Adopt.
func New(c Config) (*Client, error) {
	ports, err := newSolverPorts()
	if err != nil {
		return nil, err
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Ready == nil {
		c.Ready = func() bool { return true }
	}
	return &Client{
		log: c.Log, ready: c.Ready, now: c.Now, store: c.Store, storage: newStorage(c.Store, c.Seal, c.Now), ports: ports, wake: make(chan struct{}, 1),
		hosts: make(map[string]*host), changed: make(map[string]bool),
	}, nil
}

// Prepared is what a configuration makes of a Client, before it is adopted. It gives certificates as they will be then.
type Prepared struct {
	client *Client
	engine *engine

	mu     sync.Mutex      // guards loaded
	loaded map[string]kept // nil once it is adopted
}

// Prepare reads what settings name and changes nothing. It returns nil for nil.
func (c *Client) Prepare(settings *config.ACME) (*Prepared, error) {
	if settings == nil {
		return nil, nil
	}
	c.mu.Lock()
	e := c.engine
	c.mu.Unlock()
	if e == nil || !e.settings.Equal(settings) {
		var err error
		if e, err = newEngine(settings, c.storage, c.ports); err != nil {
			return nil, err
		}
	}
	return &Prepared{client: c, engine: e, loaded: make(map[string]kept)}, nil
}

// Pair is cert.Awaited. A host that is new is looked up in the store. Until a server that takes another's place has issued, the other's
// certificate stays.
func (p *Prepared) Pair(name string) (cert.Pair, error) {
	current, problem, same := p.client.look(name, p.engine)
	if same && current.Leaf != nil {
		return current.Pair, nil
	}
	k, err := p.load(name)
	switch {
	case err == nil:
		return k.stapledAs(current).Pair, nil
	case current.Leaf != nil:
		return current.Pair, nil
	case !errors.Is(err, fs.ErrNotExist):
		return cert.Pair{}, fmt.Errorf("%w; what is kept cannot be used: %w", cert.ErrPending, err)
	case problem != "":
		return cert.Pair{}, fmt.Errorf("%w: %s", cert.ErrPending, problem)
	}
	return cert.Pair{}, cert.ErrPending
}

func (p *Prepared) load(name string) (kept, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if k, ok := p.loaded[name]; ok {
		return k, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), renewTimeout)
	defer cancel()
	k, err := p.engine.load(ctx, name)
	if err == nil && p.loaded != nil {
		p.loaded[name] = k
	}
	return k, err
}

// look says what is known of a host, and whether the engine is the one in use.
func (c *Client) look(name string, e *engine) (k kept, problem string, same bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.hosts[name]; h != nil {
		k, problem = h.kept, h.problem
	}
	return k, problem, c.engine == e
}

// Adopt has the Client get and renew certificates for these hosts from now on, and for no others. A nil Prepared ends all of it; what is in the store
// stays there.
func (c *Client) Adopt(p *Prepared, names []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var e *engine
	var loaded map[string]kept
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		e, loaded, p.loaded = p.engine, p.loaded, nil
	}
	hosts := make(map[string]*host, len(names))
	for _, name := range names {
		h := c.hosts[name]
		if h == nil || c.engine != e {
			h = c.fresh(h, loaded[name])
		}
		hosts[name] = h
	}
	c.engine, c.hosts = e, hosts
	c.rouse()
}

// Change adds hosts to those of the last Adopt, and takes hosts from them.
func (c *Client) Change(ctx context.Context, add, remove []string) {
	c.mu.Lock()
	e := c.engine
	c.mu.Unlock()
	if e == nil {
		return
	}
	found := make(map[string]kept, len(add))
	for _, name := range add {
		if k, err := e.load(ctx, name); err == nil {
			found[name] = k
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range remove {
		delete(c.hosts, name)
	}
	for _, name := range add {
		if c.engine == e && c.hosts[name] == nil {
			c.hosts[name] = c.fresh(nil, found[name])
		}
	}
	c.rouse()
}

// fresh is a host that is looked after for the first time by an engine: at once if it has no certificate of that engine's, else within the usual time, so
// that a start asks no server a thousand things.
func (c *Client) fresh(old *host, k kept) *host {
	h := &host{kept: k, next: c.now()}
	switch {
	case k.Leaf == nil && old != nil:
		h.kept = old.kept
	case k.Leaf != nil:
		if old != nil {
			h.kept = k.stapledAs(old.kept)
		}
		if len(k.Leaf.OCSPServer) == 0 || len(h.kept.Staple) > 0 { // else its response is fetched at once
			h.next = c.nextLook(k)
		}
	}
	return h
}

// nextLook is when a certificate that is well is looked after again: after the moment at which certmagic renews it too.
func (c *Client) nextLook(k kept) time.Time {
	return sooner(k.renew.Add(renewMargin), c.now().Add(spread(checkEvery)))
}

// stapledAs has the OCSP response of the same certificate as it was known before.
func (k kept) stapledAs(before kept) kept {
	if k.Leaf != nil && before.Leaf != nil && k.Leaf.Equal(before.Leaf) {
		k.Staple = before.Staple
	}
	return k
}

// State says how it stands with a host; nothing of one that is not ours.
func (c *Client) State(name string) State {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[name]
	if h == nil {
		return State{}
	}
	s := State{Renewal: h.kept.renew, Problem: h.problem}
	if h.problem != "" {
		s.Retry = h.next
	}
	return s
}

// Changed returns the hosts whose certificate is another one since it was last called, sorted.
func (c *Client) Changed() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.changed) == 0 {
		return nil
	}
	names := slices.Sorted(maps.Keys(c.changed))
	clear(c.changed)
	return names
}

// rouse has Run look again at what is due.
func (c *Client) rouse() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// Run gets and renews certificates, and takes up what other replicas have got, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	due := make(chan job)
	group.Go(func() error { return c.dispatch(ctx, due) })
	for range atOnce {
		group.Go(func() error {
			for j := range due {
				c.tend(ctx, j)
				c.rouse()
			}
			return nil
		})
	}
	group.Go(func() error { return store.Follow(ctx, c.follow) })
	return group.Wait()
}

// job is a host that is due, marked as busy.
type job struct {
	name string
	host *host
}

// dispatch hands out the hosts that are due, one at a time.
func (c *Client) dispatch(ctx context.Context, due chan<- job) error {
	defer close(due)
	for {
		j, wait := job{}, idle
		if c.ready() {
			j, wait = c.first()
		} else if len(c.names()) > 0 {
			wait = readyEvery
		}
		if j.host == nil {
			select {
			case <-ctx.Done():
				return nil
			case <-c.wake:
			case <-time.After(wait):
			}
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case due <- j:
		}
	}
}

// first takes the host that is due first, those without a certificate before others; or says how long nothing is.
func (c *Client) first() (j job, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	wait = idle
	for name, h := range c.hosts {
		if h.busy {
			continue
		}
		if left := h.next.Sub(now); left > 0 {
			wait = min(wait, left)
			continue
		}
		if j.host == nil || h.before(j.host) {
			j = job{name, h}
		}
	}
	if j.host != nil {
		j.host.busy = true
	}
	return j, wait
}

// before says whether a host is looked after before another one that is due too.
func (h *host) before(other *host) bool {
	if awaited := h.kept.Leaf == nil; awaited != (other.kept.Leaf == nil) {
		return awaited
	}
	return h.next.Before(other.next)
}

// tend looks after one host.
func (c *Client) tend(ctx context.Context, j job) {
	name, h := j.name, j.host
	c.mu.Lock()
	e, there, failures := c.engine, c.hosts[name] == h, h.failures
	c.mu.Unlock()
	if e == nil || !there {
		return // it went meanwhile, or somebody else is there by its name
	}
	k, err := e.tend(ctx, name, failures)
	if ctx.Err() != nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	h.busy = false
	if c.hosts[name] != h {
		return
	}
	c.took(name, h, k)
	if err == nil && !k.renew.After(c.now()) {
		err = fmt.Errorf("the certificate that was issued for %s is due to be renewed already: correct this machine's clock", name)
	}
	if err != nil {
		h.failures++
		h.problem = strings.TrimSpace(err.Error())
		wait := spread(min(firstRetry<<min(h.failures-1, 20), lastRetry))
		h.next = c.now().Add(wait)
		c.log.Warn("no certificate from the ACME server", "host", name, "cause", h.problem, "failures", h.failures, "again_in", wait.Round(time.Second).String())
		return
	}
	h.failures, h.problem = 0, ""
	h.next = c.nextLook(k)
}

// took notes the certificate that a host has now.
func (c *Client) took(name string, h *host, k kept) {
	if k.Leaf == nil {
		return
	}
	same := h.kept.Leaf != nil && h.kept.Equal(k.Pair)
	h.kept = k
	if same {
		return
	}
	c.changed[name] = true
	c.log.Info("a certificate is there", "host", name, "issuer", k.Leaf.Issuer.String(), "until", k.Leaf.NotAfter, "renewal", k.renew)
	if k.LacksStaple() {
		c.log.Warn("a certificate is to be shown with an OCSP response (must-staple) and there is none: clients refuse it", "host", name)
	}
}

// follow takes up what other replicas have got, until the store cannot tell it.
func (c *Client) follow(ctx context.Context) error {
	prefix := dataPrefix + certificatesPrefix
	names, err := store.Names(ctx, c.store, prefix, func(key string) string { return hostOf(nameOf(key)) })
	if err != nil {
		return err
	}
	c.reload(ctx, c.names()...)
	for name := range names {
		if name == "" {
			c.reload(ctx, c.names()...)
			continue
		}
		c.reload(ctx, name)
	}
	return nil
}

func (c *Client) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Collect(maps.Keys(c.hosts))
}

// reload reads certificates from the store. One of which only a part is written yet does not fit, and comes again.
func (c *Client) reload(ctx context.Context, names ...string) {
	for _, name := range names {
		c.mu.Lock()
		e, h := c.engine, c.hosts[name]
		busy := h != nil && h.busy
		c.mu.Unlock()
		if e == nil || h == nil || busy {
			continue // who is at it reads it too
		}
		k, err := e.load(ctx, name)
		if err != nil {
			continue
		}
		c.mu.Lock()
		if c.hosts[name] == h && !h.busy {
			c.learn(name, h, k)
		}
		c.mu.Unlock()
	}
}

// learn notes what is in the store. That the certificate is the same says nothing of whether it can be renewed: a failure stays one.
func (c *Client) learn(name string, h *host, k kept) {
	if h.kept.Leaf == nil || !h.kept.Leaf.Equal(k.Leaf) {
		h.failures, h.problem, h.next = 0, "", c.nextLook(k)
	} else if h.problem == "" {
		h.next = sooner(h.next, k.renew.Add(renewMargin))
	}
	c.took(name, h, k.stapledAs(h.kept))
}

func sooner(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}
