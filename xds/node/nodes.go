package node

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"doorward/authz/store"
	"doorward/xds/cert"
)

const (
	// asking bounds one look into the store.
	asking = 2 * time.Second
	// lookEvery is how often the records of connected nodes are read beside the store's own notifications, and certificates' ends are minded.
	lookEvery = time.Second
	// patience is how long connections stay open while their nodes' records cannot be read.
	patience = 10 * time.Second
	// maxConns is of one node: an Envoy has one for each worker thread and service, and those of pages.
	maxConns = 4096
)

// Config is what Nodes need. All fields but Now are required.
type Config struct {
	Store store.Store
	CA    *cert.Authority
	Log   *slog.Logger
	Now   func() time.Time // time.Now when nil
}

// Nodes are the Envoys on other machines. Safe for concurrent use. Run must be running: without it a revocation ends nothing that is open.
type Nodes struct {
	store store.Store
	ca    *cert.Authority
	log   *slog.Logger
	now   func() time.Time

	mu      sync.Mutex // guards present and what is in it
	present map[string]*presence
}

// presence is a node with open connections.
type presence struct {
	conns map[*conn]struct{}
	until atomic.Int64 // when its newest certificate ends, in Unix nanoseconds
	read  time.Time    // when its record was last read and good
}

// New returns Nodes of which none has connected.
func New(c Config) (*Nodes, error) {
	if c.Store == nil || c.CA == nil || c.Log == nil {
		return nil, errors.New("node: Store, CA and Log are required")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Nodes{store: c.Store, ca: c.CA, log: c.Log, now: c.Now, present: make(map[string]*presence)}, nil
}

// Root is the certificate of the CA, as PEM: what nodes trust.
func (n *Nodes) Root() []byte { return n.ca.Root() }

// Run closes what nodes have open once they are no longer good, until ctx ends.
func (n *Nodes) Run(ctx context.Context) error { return store.Follow(ctx, n.follow) }

func (n *Nodes) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	changed, err := store.Names(ctx, n.store, prefix, func(key string) string { return strings.TrimPrefix(key, prefix) })
	if err != nil {
		n.lookAtAll(ctx) // what could not be read for long is not trusted for ever
		return err
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	n.lookAtAll(ctx) // what changed while nobody watched
	for {
		select {
		case name, ok := <-changed:
			switch {
			case !ok:
				return nil
			case name == "":
				n.lookAtAll(ctx)
			default:
				n.look(ctx, name)
			}
		case <-tick.C:
			n.lookAtAll(ctx)
		}
	}
}

func (n *Nodes) lookAtAll(ctx context.Context) {
	n.mu.Lock()
	names := make([]string, 0, len(n.present))
	for name := range n.present {
		names = append(names, name)
	}
	n.mu.Unlock()
	for _, name := range names {
		n.look(ctx, name)
	}
}

// look reads the record of a connected node and closes what it has open if the record is no longer good.
func (n *Nodes) look(ctx context.Context, name string) {
	n.mu.Lock()
	here := n.present[name]
	n.mu.Unlock()
	if here == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	r, _, err := n.read(ctx, name)
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.now()
	switch {
	case errors.Is(err, store.ErrNotFound):
		here.close(func(*Peer) string { return "is not known any more" }, n.log)
	case err != nil && now.Sub(here.read) > patience:
		here.close(func(*Peer) string { return "cannot be looked up: " + err.Error() }, n.log)
	case err == nil:
		here.read = now
		here.until.Store(r.Expires.UnixNano())
		here.close(func(p *Peer) string { return r.fault(p.generation, now) }, n.log)
	}
}

// close closes the connections that a fault is found in.
func (here *presence) close(fault func(*Peer) string, log *slog.Logger) {
	closed, why, name := 0, "", ""
	for c := range here.conns {
		if found := fault(c.peer); found != "" {
			closed, why, name = closed+1, found, c.peer.Name
			delete(here.conns, c)
			_ = c.raw.Close() // without TLS's farewell, for which a peer could let us wait
		}
	}
	if closed > 0 {
		log.Warn("connections of a node are closed: it "+why, "node", name, "connections", closed)
	}
}

// admit says whose a verified certificate is, or why it is good for nothing.
func (n *Nodes) admit(ctx context.Context, leaf *x509.Certificate) (*Peer, error) {
	p, err := identify(leaf)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, asking)
	defer cancel()
	r, _, err := n.read(ctx, p.Name)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fmt.Errorf("node %q is not known", p.Name)
	}
	if err != nil {
		return nil, err
	}
	if fault := r.fault(p.generation, n.now()); fault != "" {
		return nil, fmt.Errorf("node %q %s", p.Name, fault)
	}
	if r.Group != p.Group {
		return nil, fmt.Errorf("node %q is of another group than its certificate says", p.Name)
	}
	return p, nil
}

// enter notes an open connection of a node. It is looked at again afterwards by its caller, since the node may have been revoked meanwhile.
func (n *Nodes) enter(c *conn, expires time.Time) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	here := n.present[c.peer.Name]
	if here == nil {
		here = &presence{conns: make(map[*conn]struct{}), read: n.now()}
		here.until.Store(expires.UnixNano())
		n.present[c.peer.Name] = here
	}
	if len(here.conns) >= maxConns {
		return fmt.Errorf("node %q has %d connections open", c.peer.Name, maxConns)
	}
	here.conns[c] = struct{}{}
	c.peer.until = &here.until
	return nil
}

// leave forgets a connection. It may be called several times.
func (n *Nodes) leave(c *conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	here := n.present[c.peer.Name]
	if here == nil {
		return
	}
	if delete(here.conns, c); len(here.conns) == 0 {
		delete(n.present, c.peer.Name)
	}
}
