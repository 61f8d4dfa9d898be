// Package tunnel is the client's end of the connections to a TCP service behind the edge. It takes connections on this computer, opens a CONNECT
// to the edge over TLS for each (RFC 9113, section 8.5), and copies bytes both ways. Who may connect the edge decides: a person signs in through
// the browser and lets this program connect (RFC 8252), a program shows its token.
//
// It verifies the edge's certificate in any case, and it sends the credential nowhere else. It does not encrypt what passes between the edge and
// the service, and it lets everybody connect who reaches the address that it listens on, so that is to be this computer's own.
package tunnel

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Config is what a Tunnel needs. Host, Port, Edge and Tell are required.
type Config struct {
	Host  string         // of the service: lower case, without port
	Port  int            // names the service
	Edge  string         // host:port to connect to
	Roots *x509.CertPool // that the edge's certificate is verified by; the system's when nil
	Token string         // of a program, shown in place of a person's credential; "" for none
	Store *Store         // where the credential is kept; nil keeps it in memory alone
	Open  func(url string) error
	Tell  func(format string, args ...any) // a line for the person; called by several goroutines
}

const (
	// maxOpen bounds the connections that are open at a time; one more waits. A session has 100 at most by default.
	maxOpen = 256
	// opening bounds what it takes until the edge has answered.
	opening = 30 * time.Second
	// ending is how long what is under way may go on after the other side has ended its part.
	ending = 5 * time.Second
)

// Tunnel opens connections to one service. Safe for concurrent use.
type Tunnel struct {
	Config
	edge *edge

	signing sync.Mutex // held while somebody signs in

	mu   sync.Mutex // guards held
	held Credential
}

// New returns a Tunnel. It reads the credential that is kept, and connects to nothing.
func New(c Config) (*Tunnel, error) {
	if c.Host == "" || c.Port == 0 || c.Edge == "" || c.Tell == nil {
		return nil, errors.New("tunnel: Host, Port, Edge and Tell are required")
	}
	t := &Tunnel{Config: c, edge: newEdge(c)}
	if c.Store != nil && c.Token == "" {
		kept, err := c.Store.Read()
		if err != nil {
			return nil, err
		}
		t.held = kept
	}
	return t, nil
}

// Service is the service's host and port.
func (c Config) Service() string { return net.JoinHostPort(c.Host, strconv.Itoa(c.Port)) }

// Close ends the connections to the edge that are not in use.
func (t *Tunnel) Close() { t.edge.client.CloseIdleConnections() }

// Ready signs in unless there is a credential, or the service asks for none.
func (t *Tunnel) Ready(ctx context.Context) error {
	if known := t.credential(); known.Secret != "" {
		t.Tell("connecting to %s as %s", t.Service(), known.Account)
		return nil
	}
	c, err := t.dial(ctx)
	if err != nil {
		return err
	}
	return c.Close()
}

// Serve takes connections until ctx ends, and then ends those that are open. It closes l.
func (t *Tunnel) Serve(ctx context.Context, l net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var open sync.WaitGroup
	defer open.Wait()
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	slots := make(chan struct{}, maxOpen)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		if err != nil {
			l.Close()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		open.Go(func() {
			defer func() { <-slots }()
			if err := t.carry(ctx, conn.(*net.TCPConn)); err != nil && ctx.Err() == nil {
				t.Tell("connection from %s: %v", conn.RemoteAddr(), err)
			}
		})
	}
}

// Pipe makes one connection of a program's own input and output, as for ssh's ProxyCommand. It returns when the service has ended it; what is
// still read from in then is lost.
func (t *Tunnel) Pipe(ctx context.Context, in io.Reader, out io.WriteCloser) error {
	return t.carry(ctx, &pipe{in, out})
}

// local is this computer's end of a connection.
type local interface {
	io.ReadWriteCloser
	CloseWrite() error // ends what is written to it; it may still be read
}

type pipe struct {
	io.Reader
	io.WriteCloser
}

func (p *pipe) CloseWrite() error { return p.WriteCloser.Close() }

// carry connects one local end to the service, and copies until both sides have ended, or one is cut off. An end of what one side sends is passed
// on to the other. Once the service has ended its part, Envoy takes nothing more for it.
func (t *Tunnel) carry(ctx context.Context, at local) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer at.Close()
	far, err := t.dial(ctx)
	if err != nil {
		return err
	}
	defer far.Close()
	defer context.AfterFunc(ctx, func() { at.Close(); far.Close() })()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		if _, err := io.Copy(far, at); err != nil {
			return // whichever side it was, the other direction ends with it
		}
		far.CloseWrite()
	}()
	_, err = io.Copy(at, far)
	if err == nil && at.CloseWrite() == nil {
		select {
		case <-sent:
		case <-time.After(ending):
		}
	}
	if _, pipe := at.(*pipe); !pipe {
		cancel()
		<-sent
	}
	if cut := new(cutError); errors.As(err, &cut) {
		return cut
	}
	return nil
}

// dial opens a connection to the service. Where the credential is not good, or no longer, the person signs in, once.
func (t *Tunnel) dial(ctx context.Context) (*stream, error) {
	known := t.credential()
	s, err := t.edge.open(ctx, known)
	refused := new(Refusal)
	if !errors.As(err, &refused) || refused.Status != 401 || refused.SignIn == "" || t.Token != "" {
		return s, err
	}
	fresh, err := t.renew(ctx, known, refused.SignIn)
	if err != nil {
		return nil, err
	}
	return t.edge.open(ctx, fresh)
}

func (t *Tunnel) credential() Credential {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.held
}

func (t *Tunnel) hold(c Credential) Credential {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.held = c
	return c
}

// renew returns another credential than the one that was refused: one that somebody else has got meanwhile, or that of a new sign-in.
func (t *Tunnel) renew(ctx context.Context, refused Credential, signIn string) (Credential, error) {
	t.signing.Lock()
	defer t.signing.Unlock()
	if now := t.credential(); now.Secret != refused.Secret {
		return now, nil
	}
	if t.Store != nil {
		if kept, err := t.Store.Read(); err == nil && kept.Secret != "" && kept.Secret != refused.Secret {
			return t.hold(kept), nil // another program has signed in
		}
	}
	fresh, err := t.signIn(ctx, signIn)
	if err != nil {
		return Credential{}, fmt.Errorf("sign in: %w", err)
	}
	t.Tell("signed in to %s as %s, until %s at the latest", t.Host, fresh.Account, fresh.Expires.Local().Format("2 Jan 15:04"))
	if t.Store != nil {
		if err := t.Store.Write(fresh); err != nil {
			t.Tell("the sign-in is not kept for the next time: %v", err)
		}
	}
	return t.hold(fresh), nil
}

// Refusal is the edge's answer to who may not connect.
type Refusal struct {
	Status   int
	Message  string `json:"message"` // for the person: the policy's reasons, where it gives some
	Decision string `json:"decision_id"`
	SignIn   string `json:"sign_in"` // where a person can sign in, "" when that would not help
}

func (r *Refusal) Error() string {
	text := fmt.Sprintf("refused with status %d", r.Status)
	if r.Status == 403 {
		text = "denied"
	}
	if r.Message != "" {
		text += ": " + r.Message
	}
	if r.Decision != "" {
		text += " (decision " + r.Decision + ")"
	}
	return text
}

// cutError says that the edge has ended a connection: with the session, or because it does not reach the service any more.
type cutError struct{ cause error }

func (e *cutError) Error() string {
	return "ended by the edge: the session may have ended, or the service went away (" + e.cause.Error() + ")"
}

func (e *cutError) Unwrap() error { return e.cause }

// printable keeps what the edge says from moving the cursor of the person's terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}
