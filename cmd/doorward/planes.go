package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz"
	"doorward/authz/admin"
	"doorward/authz/bearer"
	"doorward/authz/config"
	"doorward/authz/decision"
	"doorward/authz/login"
	"doorward/authz/session"
	"doorward/authz/store/bolt"
	"doorward/authz/stream"
	"doorward/authz/token"
	"doorward/authz/web"
	"doorward/xds"
	"doorward/xds/cert"
	"doorward/xds/cert/acme"
	"doorward/xds/node"
)

// planes are the two halves of the program, the one that decides and the one that configures Envoy, and what they stand on.
type planes struct {
	log       *slog.Logger
	started   time.Time
	store     *bolt.Store
	seal      *seal
	sessions  *session.Sessions
	bearer    *bearer.Finder
	ring      *token.Ring
	decisions *decision.Log
	authz     *authz.Server
	streams   *stream.Server
	login     *login.Handler
	pages     *web.Pages
	xds       *xds.Server
	remote    *admin.Remote
	ca        *cert.LocalCA
	acme      *acme.Client
	nodes     *node.Nodes
	bundles   *bundles
	builder   xds.Builder
	envoy     *envoyBinary
	settings  atomic.Pointer[login.Settings]
	idle      atomic.Int64 // how long a session may be unused, in nanoseconds

	turn sync.Mutex // held while a change is made

	mu           sync.Mutex      // guards what follows; what turn guards too may be read under either
	loaded       *config.Config  // without the routes that were pushed since: index has all
	index        *config.Index   // with turn
	kept         map[string]kept // by name: the pushed routes as they are in the store; with turn
	certificates *cert.Source    // with turn
	headers      []string        // that Envoy sends, nil for all; they only grow, since older revisions may still be asked about
	delivery     *xds.Delivery   // of the last whole configuration
	status       admin.Status
	unread       string // why the files as they are could not be read
	unkept       string // why jwks_file could not be written
}

// open builds everything of the first configuration, with nothing served yet. It fails rather than return planes that could not sign.
func open(ctx context.Context, c *config.Config, log *slog.Logger) (p *planes, err error) {
	for _, dir := range []string{c.DataDir, c.SocketDir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("make data_dir or socket_dir: %w", err)
		}
		if err := private(dir); err != nil {
			return nil, err
		}
	}
	p = &planes{log: log, started: time.Now(), loaded: c, index: config.NewIndex(c), headers: []string{}, bundles: newBundles(c.DataDir, log), envoy: new(envoyBinary)}
	if p.store, err = bolt.Open(filepath.Join(c.DataDir, "doorward.db")); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.store.Close())
		}
	}()
	sealer, err := session.OpenSealer(filepath.Join(c.DataDir, "seal.key"))
	if err != nil {
		return nil, err
	}
	p.seal = &seal{sealer: sealer, store: p.store}
	if p.sessions, err = session.New(session.Config{Store: p.store, Sealer: sealer, Idle: p.idleTimeout}); err != nil {
		return nil, err
	}
	if p.ring, err = token.Open(ctx, token.Config{
		Store: p.store, Sealer: sealer, Settings: keySettings(c),
		Lifetime: time.Duration(c.JWT.Lifetime), ConsumerCache: time.Duration(c.JWT.ConsumerCache),
	}); err != nil {
		return nil, err
	}
	if p.kept, err = readKept(ctx, p.store); err != nil {
		return nil, err
	}
	if p.ca, err = cert.NewLocalCA(filepath.Join(c.DataDir, "ca")); err != nil {
		return nil, err
	}
	if err = p.openNodes(c); err != nil {
		return nil, err
	}
	if p.acme, err = acme.New(acme.Config{Store: p.store, Seal: sealer, Log: log, Ready: p.facesClients}); err != nil {
		return nil, err
	}
	if p.decisions, err = decision.New(decision.Config{Settings: c.DecisionLog, Log: log}); err != nil {
		return nil, fmt.Errorf("%s: %w", c.Path, err)
	}
	if err = p.build(sealer); err != nil {
		p.closeDecisions()
	}
	return p, err
}

// closeDecisions writes what waits, as far as whoever reads the log lets it.
func (p *planes) closeDecisions() {
	if err := p.decisions.Close(stopping); err != nil {
		p.log.Warn(err.Error())
	}
}

// private refuses a directory that everybody on the machine may enter: through what is in it one can read keys and decide requests.
func private(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if open := info.Mode().Perm() & 0o007; open != 0 {
		return fmt.Errorf("%s has mode %#o, so other users of this machine could read keys there: chmod o-rwx %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// build makes the servers.
func (p *planes) build(sealer *session.Sealer) error {
	var err error
	if p.pages, err = web.New(brand(p.loaded)); err != nil {
		return err
	}
	service, err := bearer.NewServiceTokens(bearer.Config{Store: p.store, Sealer: sealer, Log: p.log})
	if err != nil {
		return err
	}
	issuers, err := bearer.NewIssuers(bearer.IssuersConfig{Log: p.log})
	if err != nil {
		return err
	}
	p.bearer = &bearer.Finder{Service: service, Issuers: issuers}
	p.authz, err = authz.New(authz.Config{Sessions: p.sessions, Bearer: p.bearer, Tokens: p.ring, Pages: p.pages, Log: p.log, Decisions: p.decisions, Caller: caller})
	if err != nil {
		return err
	}
	p.streams, err = stream.New(stream.Config{Sessions: everybody{p.sessions, p.bearer}, Limit: p.maxStreams, Log: p.log})
	if err != nil {
		return err
	}
	p.login, err = login.New(login.Config{
		Settings: p.loginSettings,
		Sessions: p.sessions, Store: p.store, Sealer: sealer, Pages: p.pages, Log: p.log,
	})
	if err != nil {
		return err
	}
	p.settings.Store(new(login.Settings))
	p.xds = xds.NewServer(p.log)
	p.remote = admin.NewRemote(time.Now)
	return nil
}

// apply makes a configuration the one that decides and is served: authz first, then Envoy. If a part does not build, nothing of it
// is applied. What becomes of it at the Envoys, follow tells.
func (p *planes) apply(ctx context.Context, c *config.Config) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	return p.change(ctx, c)
}

// change is apply for who holds the turn.
func (p *planes) change(ctx context.Context, c *config.Config) error {
	used, err := p.bundles.of(ctx, c)
	var change *change
	if err == nil {
		change, err = p.ready(ctx, c, used)
	}
	if err != nil {
		p.refused(c.Checksum, err)
		return fmt.Errorf("refused, nothing of it is applied: %w", err)
	}
	p.install(c, change)
	p.takeBack(ctx, c)
	return nil
}

// start applies the first configuration with the routes that were pushed. A bundle that was fetched just now and does not work is waited for, as
// one that could not be fetched.
func (p *planes) start(ctx context.Context, c *config.Config) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	used, err := p.bundles.of(ctx, c)
	if err != nil {
		return err
	}
	all, unread := p.load(c.Path)
	if unread == nil {
		var change *change
		if change, unread = p.ready(ctx, all, used); unread == nil {
			p.install(all, change)
			return nil
		}
	}
	change, err := p.ready(ctx, c, used)
	if err != nil && used.fresh() {
		less := used.without(err)
		if second, without := p.ready(ctx, c, less); without == nil {
			change, used, err = second, less, nil
		}
	}
	if err != nil {
		return err
	}
	// The others are served at once, all of them: what is served first takes from an Envoy that comes back whatever is not in it.
	p.fit(c, change.generation, documents(p.kept, true))
	if all, err = p.load(c.Path); err == nil {
		if most, err := p.ready(ctx, all, used); err == nil {
			change.discard()
			p.install(all, most)
			return nil
		}
	}
	p.install(c, change)
	p.restore(ctx)
	return nil
}

// renew applies new versions of bundles: all of them or, where that does not work, each that works by itself. What is refused changes
// nothing, and is tried again when it is fetched again.
func (p *planes) renew(ctx context.Context, next bundleVersions) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	c := p.index.Config()
	change, err := p.ready(ctx, c, p.bundles.with(next))
	if err == nil {
		p.install(c, change)
		p.takeBack(ctx, c)
		return nil
	}
	for name, v := range next {
		alone := err
		if len(next) > 1 {
			if change, alone = p.ready(ctx, c, p.bundles.with(bundleVersions{name: v})); alone == nil {
				p.install(c, change)
				continue
			}
		}
		p.bundles.failed(name, alone)
	}
	return nil
}

// ready prepares a change, and has the key ring follow the configuration, which is the last thing that can be refused.
func (p *planes) ready(ctx context.Context, c *config.Config, used bundleVersions) (*change, error) {
	change, err := p.prepare(ctx, c, used)
	if err != nil {
		return nil, err
	}
	if err := p.ring.Adopt(ctx, keySettings(c)); err != nil {
		change.discard()
		return nil, err
	}
	return change, nil
}

// install makes a change the one that decides and is served.
func (p *planes) install(c *config.Config, change *change) {
	p.bearer.Issuers.Adopt(change.issuers)
	p.authz.Adopt(change.generation)
	p.settings.Store(change.settings)
	p.pages.Adopt(change.pages)
	p.idle.Store(int64(c.Session.IdleTimeout))
	if change.decisions != nil {
		p.decisions.Use(change.decisions)
	}
	p.bundles.adopt(change.bundles)
	p.mu.Lock()
	p.certificates = change.certificates
	p.mu.Unlock()
	p.acme.Adopt(change.acme, p.issued(slices.Collect(maps.Keys(c.Hosts()))))
	p.remote.Adopt(change.trust)
	p.builder.Adopt(change.resources)
	p.took(c, change.headers, p.xds.Install(change.resources))
	giveBack()
}

// fixed refuses changes that only a restart can make.
func (p *planes) fixed(c *config.Config) error {
	p.mu.Lock()
	old := p.loaded
	p.mu.Unlock()
	var errs []error
	for _, f := range []struct{ name, old, new string }{
		{"data_dir", old.DataDir, c.DataDir},
		{"socket_dir", old.SocketDir, c.SocketDir},
		{"listen.internal", old.Listen.Internal, c.Listen.Internal},
		{"listen.metrics", old.Listen.Metrics, c.Listen.Metrics},
		{"admin.listen", old.Admin.Listen, c.Admin.Listen},
		{"control.listen", old.Control.Listen, c.Control.Listen},
		{"control.address", old.Control.Address, c.Control.Address},
		{"control.local_group", old.Control.LocalGroup, c.Control.LocalGroup},
		{"jwt.lifetime", fmt.Sprint(old.JWT.Lifetime), fmt.Sprint(c.JWT.Lifetime)},
		{"jwt.consumer_cache", fmt.Sprint(old.JWT.ConsumerCache), fmt.Sprint(c.JWT.ConsumerCache)},
	} {
		if f.old != f.new {
			errs = append(errs, fmt.Errorf("%s: %s: a change from %q to %q needs a restart of doorward", c.Path, f.name, f.old, f.new))
		}
	}
	return errors.Join(errs...)
}

func (p *planes) took(c *config.Config, headers []string, d *xds.Delivery) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loaded, p.headers, p.delivery, p.index = c, headers, d, config.NewIndex(c)
	p.status = admin.Status{Config: c.Path, Loaded: c.Checksum, LoadedAt: time.Now()}
}

// loginSettings are those of the configuration that decides, and of the routes that were pushed since.
func (p *planes) loginSettings() login.Settings {
	s := *p.settings.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	s.AuthOnly = !p.index.Has(s.AuthURL.Hostname())
	return s
}

// origin is that of a host that is served; zero for any other.
func (p *planes) origin(host string) config.URL {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index.Origin(host)
}

// service says whether a host has a TCP service.
func (p *planes) service(host string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.index.Service(host)
}

// idleTimeout is how long a session may be unused now.
func (p *planes) idleTimeout() time.Duration { return time.Duration(p.idle.Load()) }

// jwksPath is where the keys are served now.
func (p *planes) jwksPath() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loaded.Paths.JWKS
}

// maxStreams is how many streams a session may have open now.
func (p *planes) maxStreams() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.loaded.Session.MaxStreams
}

func (p *planes) refused(checksum string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status.Refused, p.status.Problem = checksum, err.Error()
}

// read notes whether the configuration could be read from its files.
func (p *planes) read(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.unread = ""
	if err != nil {
		p.unread = err.Error()
	}
}
