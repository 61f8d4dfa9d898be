package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

const (
	// handshakeTime bounds a TLS handshake, and handshakes how many are under way: strangers can take no more than these. One address has few of
	// them, so that one stranger keeps no node out.
	handshakeTime = 5 * time.Second
	handshakes    = 512
	fromOne       = 32
	// serverLife is of Doorward's own certificate, which is replaced at two thirds of it.
	serverLife = 7 * 24 * time.Hour
	// tellEvery is how often the log has a line about who was refused.
	tellEvery = time.Second
)

// Door lets nodes in at one TCP listener and hands their connections to the servers of what they speak.
type Door struct {
	nodes    *Nodes
	listener net.Listener
	tls      *tls.Config
	branches map[string]*branch

	mu      sync.Mutex     // guards what follows
	under   int            // handshakes under way
	from    map[string]int // of these, by address
	own     *tls.Certificate
	renew   time.Time
	told    time.Time // when somebody who was refused was last in the log
	refused int       // since then
}

// Open makes a door at a listener, for the protocols that are named by ALPN. Host is what nodes call this side: a DNS name or an IP address. Nobody
// is let in before Run.
func (n *Nodes) Open(l net.Listener, host string, protocols ...string) *Door {
	d := &Door{nodes: n, listener: l, branches: make(map[string]*branch), from: make(map[string]int)}
	for _, p := range protocols {
		d.branches[p] = &branch{addr: l.Addr(), conns: make(chan net.Conn), closed: make(chan struct{})}
	}
	d.tls = &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protocols, Time: n.now,
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: n.ca.Pool(),
		SessionTicketsDisabled: true, // each handshake is looked at as the first
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return d.certificate(host) },
		VerifyConnection: func(state tls.ConnectionState) error {
			_, err := n.admit(context.Background(), state.PeerCertificates[0])
			return err
		},
	}
	return d
}

// Listener is where connections that speak a protocol of Open come out.
func (d *Door) Listener(protocol string) net.Listener { return d.branches[protocol] }

// Run lets nodes in until ctx ends.
func (d *Door) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = d.listener.Close() })()
	for {
		c, err := d.listener.Accept()
		if ctx.Err() != nil {
			if err == nil {
				_ = c.Close()
			}
			return nil
		}
		if err != nil { // as with no file descriptor left: it passes
			d.nodes.log.Error("no connection of a node can be accepted", "cause", err)
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("control.listen: %w", err)
			}
			time.Sleep(100 * time.Millisecond)
			continue
		}
		from := addressOf(c)
		if !d.begin(from) {
			d.refuse(c, errors.New("too many handshakes are under way"))
			continue
		}
		go func() {
			defer d.end(from)
			d.let(ctx, c)
		}()
	}
}

func addressOf(c net.Conn) string {
	host, _, err := net.SplitHostPort(c.RemoteAddr().String())
	if err != nil {
		return ""
	}
	return host
}

// begin says whether one more handshake may begin, which end then ends.
func (d *Door) begin(from string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.under == handshakes || d.from[from] == fromOne {
		return false
	}
	d.under++
	d.from[from]++
	return true
}

func (d *Door) end(from string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.under--
	if d.from[from]--; d.from[from] == 0 {
		delete(d.from, from)
	}
}

// let does the handshake and hands the connection on.
func (d *Door) let(ctx context.Context, raw net.Conn) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTime)
	defer cancel()
	secured := tls.Server(raw, d.tls)
	if err := secured.HandshakeContext(ctx); err != nil {
		d.refuse(raw, err)
		return
	}
	state := secured.ConnectionState()
	leaf := state.PeerCertificates[0]
	p, err := identify(leaf)
	to := d.branches[state.NegotiatedProtocol]
	if err == nil && to == nil {
		err = errors.New("it names no protocol that is spoken here (ALPN)")
	}
	if err != nil {
		d.refuse(secured, err)
		return
	}
	c := &conn{Conn: secured, raw: raw, peer: p, nodes: d.nodes}
	if err := d.nodes.enter(c, leaf.NotAfter); err != nil {
		d.refuse(secured, err)
		return
	}
	d.nodes.look(ctx, p.Name)
	select {
	case to.conns <- c:
	case <-to.closed:
		_ = c.Close()
	case <-ctx.Done():
		_ = c.Close()
	}
}

// refuse closes a connection and says so, not more often than the log can bear: strangers can cause it at will.
func (d *Door) refuse(c net.Conn, cause error) {
	_ = c.Close()
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.nodes.now()
	if d.refused++; now.Sub(d.told) < tellEvery {
		return
	}
	d.nodes.log.Warn("a connection to control.listen is refused", "from", c.RemoteAddr().String(), "cause", cause.Error(), "refused", d.refused)
	d.told, d.refused = now, 0
}

// certificate is Doorward's own, issued anew in time.
func (d *Door) certificate(host string) (*tls.Certificate, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.nodes.now()
	if d.own != nil && now.Before(d.renew) {
		return d.own, nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := x509.Certificate{Subject: pkix.Name{Organization: []string{"Doorward"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{host}
	}
	chain, err := d.nodes.ca.Issue(template, key.Public(), now, now.Add(serverLife))
	if err != nil {
		return nil, err
	}
	text, err := encodePair(chain, key)
	if err != nil {
		return nil, err
	}
	own, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	d.own, d.renew = &own, now.Add(serverLife*2/3)
	return d.own, nil
}

// conn is a connection of a node.
type conn struct {
	net.Conn
	raw   net.Conn // what is below TLS
	peer  *Peer
	nodes *Nodes
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.nodes.leave(c)
	return c.Conn.Close()
}

// branch is the listener of one protocol.
type branch struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

// Accept implements net.Listener.
func (b *branch) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. What was accepted stays open.
func (b *branch) Close() error {
	b.once.Do(func() { close(b.closed) })
	return nil
}

// Addr implements net.Listener.
func (b *branch) Addr() net.Addr { return b.addr }
