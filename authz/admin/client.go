package admin

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"doorward/authz/config"
)

// Client asks a running Doorward through its socket, or over the network. Safe for concurrent use.
type Client struct {
	base url.URL
	at   string // the socket, or the URL
	http http.Client

	bearer config.Secret // token for a route to the API; "" for none
}

// answerWithin bounds a question whose answer does not stream.
const answerWithin = 5 * time.Second

// NewClient returns a client for the socket at path. Nothing is opened yet.
func NewClient(path string) *Client {
	return &Client{base: url.URL{Scheme: "http", Host: "doorward"}, at: path, http: http.Client{
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}},
	}}
}

// NewRemoteClient returns a client of the API at host:port on the network, or at a route to it. By trust it knows the server, and shows who it is, or it
// shows a bearer token. Nothing is opened yet.
func NewRemoteClient(address string, trust *tls.Config, bearer config.Secret) *Client {
	base := url.URL{Scheme: "https", Host: address}
	return &Client{base: base, at: base.String(), bearer: bearer, http: http.Client{
		Transport:     &http.Transport{TLSClientConfig: trust, TLSHandshakeTimeout: answerWithin, DialContext: dialHost},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// dialHost is what names below .localhost mean to browsers, and not to every resolver (RFC 6761, section 6.3).
func dialHost(ctx context.Context, network, address string) (net.Conn, error) {
	if host, port, err := net.SplitHostPort(address); err == nil && config.IsLocalhost(strings.ToLower(host)) {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// ErrNotRunning says that nobody answers at the socket.
var ErrNotRunning = errors.New("no running doorward answers")

// Status asks for the status. The error is ErrNotRunning when there is nobody to ask.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.Get(ctx, "/v1/status", nil, &s)
	return s, err
}

// Get asks an endpoint and reads its JSON into answer. The error is ErrNotRunning when there is nobody to ask; otherwise it is what an
// endpoint that refused said.
func (c *Client) Get(ctx context.Context, path string, query url.Values, answer any) error {
	return c.ask(ctx, http.MethodGet, path, query, answer)
}

// Post has an endpoint do something, and reads its JSON into answer. The errors are those of Get.
func (c *Client) Post(ctx context.Context, path string, query url.Values, answer any) error {
	return c.ask(ctx, http.MethodPost, path, query, answer)
}

func (c *Client) ask(ctx context.Context, method, path string, query url.Values, answer any) error {
	return c.Send(ctx, Request{Method: method, Path: path, Query: query}, answer)
}

// Request is a question to an endpoint.
type Request struct {
	Method, Path string
	Query        url.Values
	Type         string // content type of Body
	Body         []byte
	Header       http.Header
	Within       time.Duration // how long the answer may take beyond the ordinary
}

// Send asks an endpoint and reads its JSON into answer. The error is ErrNotRunning when there is nobody to ask, and a *Refusal when the endpoint
// refused.
func (c *Client) Send(ctx context.Context, r Request, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin+r.Within)
	defer cancel()
	body, err := c.open(ctx, r)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(answer); err != nil {
		return fmt.Errorf("ask %s: %w", c.at, err)
	}
	return nil
}

// Refusal is what an endpoint that refused said.
type Refusal struct {
	Status int
	Text   string
	Body   []byte // JSON, where the endpoint answers with it
}

func (r *Refusal) Error() string { return r.Text }

// refusal reads an answer of an endpoint that refused.
func refusal(socket string, res *http.Response) error {
	said, err := io.ReadAll(io.LimitReader(res.Body, 4<<20))
	if err != nil || len(said) == 0 {
		return fmt.Errorf("ask %s: status %s", socket, res.Status)
	}
	r := &Refusal{Status: res.StatusCode, Text: strings.TrimSpace(string(said))}
	var detail struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(said, &detail) == nil && detail.Error != "" {
		r.Text, r.Body = detail.Error, said
	}
	return r
}

// Stream asks an endpoint and returns its answer, which is read until it or ctx ends and then closed. The errors are those of Get.
func (c *Client) Stream(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	return c.open(ctx, Request{Method: http.MethodGet, Path: path, Query: query})
}

func (c *Client) open(ctx context.Context, r Request) (io.ReadCloser, error) {
	target := c.base
	target.Path, target.RawQuery = r.Path, r.Query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.Method, target.String(), bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	maps.Copy(req.Header, r.Header)
	if r.Method != http.MethodGet {
		req.Header.Set("Content-Type", cmp.Or(r.Type, "application/json"))
	}
	if c.bearer != "" {
		req.Header.Set("Authorization", "Bearer "+string(c.bearer))
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, c.unanswered(err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusUnauthorized && c.bearer != "" {
		return nil, &Refusal{Status: res.StatusCode, Text: c.at + " does not take the token: it is wrong or over, or is not for the route to doorward://admin"}
	}
	return nil, refusal(c.at, res)
}

// unanswered is ErrNotRunning unless somebody was there, and did not like the client's certificate, or has one that the client does not like.
func (c *Client) unanswered(err error) error {
	var cause *url.Error
	if errors.As(err, &cause) {
		err = cause.Err
	}
	var op *net.OpError
	switch is := errors.As(err, &op); {
	case c.base.Scheme != "https", is && op.Op == "dial":
	case is && op.Op == "remote error":
		return fmt.Errorf("ask %s: %w", c.at, op) // without what the transport was about to do
	case errors.As(err, new(x509.UnknownAuthorityError)):
		return fmt.Errorf("ask %s: %w; --server-ca names another", c.at, err)
	default:
		return fmt.Errorf("ask %s: %w", c.at, err)
	}
	if op != nil {
		err = op.Err // without the address
	}
	return fmt.Errorf("%w at %s: %w; start it with doorward up or serve", ErrNotRunning, c.at, err)
}
