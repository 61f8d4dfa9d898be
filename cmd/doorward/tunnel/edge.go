package tunnel

import (
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"doorward/authz/config"
	"doorward/authz/session"
)

// edge is the way to the edge: HTTP/2 over TLS, with one connection for many streams. HTTP/1.1 would do for CONNECT, but there Envoy takes the end of
// what a client sends for the end of everything.
type edge struct {
	config Config
	client *http.Client
}

func newEdge(c Config) *edge {
	only := new(http.Protocols)
	only.SetHTTP2(true)
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialLocalhost,
		TLSClientConfig:     &tls.Config{ServerName: c.Host, RootCAs: c.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second,
		Protocols:           only,
		HTTP2:               &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		DisableCompression:  true,
	}
	never := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &edge{c, &http.Client{Transport: transport, CheckRedirect: never}}
}

// dialLocalhost is net.Dial for which localhost and what is below it are this computer, whatever its resolver says (RFC 6761, section 6.3).
func dialLocalhost(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	host, port, err := net.SplitHostPort(address)
	if err == nil && config.IsLocalhost(strings.ToLower(host)) {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return dialer.DialContext(ctx, network, address)
}

// request is one to the edge in which host stands as :authority. The connection is verified for Config.Host in any case.
func (e *edge) request(ctx context.Context, method, host, path string, body io.Reader) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, (&url.URL{Scheme: "https", Host: e.config.Edge, Path: path}).String(), body)
	if err != nil {
		return nil, err
	}
	r.Host = host
	return r, nil
}

// open opens a stream to the service. The error is a *Refusal where the edge has answered and does not let it through.
func (e *edge) open(ctx context.Context, known Credential) (*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	late := time.AfterFunc(opening, func() { cancel(errors.New("the edge did not answer in time")) })
	defer late.Stop()
	reader, writer := io.Pipe()
	r, err := e.request(ctx, http.MethodConnect, e.config.Service(), "", reader)
	if err != nil {
		cancel(err)
		return nil, err
	}
	if e.config.Token != "" {
		r.Header.Set("Authorization", "Bearer "+e.config.Token)
	} else if known.Secret != "" {
		r.AddCookie(&http.Cookie{Name: session.CookieName, Value: known.Secret})
	}
	response, err := e.client.Do(r)
	if err != nil {
		err = cmp.Or(context.Cause(ctx), err)
		cancel(err)
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		defer cancel(nil)
		defer writer.Close()
		return nil, refusal(response)
	}
	return &stream{response.Body, writer, func() { cancel(nil) }}, nil
}

// maxAnswer bounds what is read of an answer that is no connection.
const maxAnswer = 64 << 10

// refusal reads why the edge does not let a connection through.
func refusal(response *http.Response) *Refusal {
	defer response.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxAnswer)) // the status says enough
	out := new(Refusal)
	if json.Unmarshal(text, out) != nil {
		out = &Refusal{}
		out.Message, _, _ = strings.Cut(strings.TrimPrefix(string(text), fmt.Sprintf("%d: ", response.StatusCode)), "\n")
	}
	out.Status, out.Message, out.Decision = response.StatusCode, printable(out.Message), printable(out.Decision)
	return out
}

// stream is an open connection to the service.
type stream struct {
	in    io.ReadCloser
	out   *io.PipeWriter
	abort func()
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.in.Read(p)
	if err != nil && err != io.EOF {
		err = &cutError{err}
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) { return s.out.Write(p) }

// CloseWrite says that nothing more is sent.
func (s *stream) CloseWrite() { s.out.Close() }

// Close ends the connection in both directions.
func (s *stream) Close() error {
	s.abort()
	return errors.Join(s.out.Close(), s.in.Close())
}
