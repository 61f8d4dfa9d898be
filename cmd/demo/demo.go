package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"doorward/cmd/demo/provider"
	"doorward/cmd/demo/upstream"
	"doorward/envoy"
)

// demo is one run.
type demo struct {
	port     int // https; http and the provider have the two after it
	doorward string
	envoy    string
	dir      string
	control  string
	out      io.Writer

	log       *os.File
	provider  net.Listener
	grafana   net.Listener
	wiki      net.Listener
	recorder  upstream.Recorder
	socketDir string   // "" for the default
	changed   []string // policies that are not as the demo has them
	closers   []func()
}

// run sets everything up, says that it is ready, and takes it down when ctx ends.
func (d *demo) run(ctx context.Context) error {
	defer d.close()
	if err := d.setUp(); err != nil {
		return err
	}
	door, err := startDoorward(d.doorward, d.arguments(), d.log)
	if err != nil {
		return err
	}
	defer door.stop()
	fmt.Fprintf(d.out, "starting; doorward's log is %s\n", d.shown("doorward.log"))
	waiting, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	ready := make(chan error, 1)
	go func() { ready <- d.waitReady(waiting) }()
	for {
		select {
		case err := <-ready:
			if err != nil && ctx.Err() == nil {
				return fmt.Errorf("%w; its last lines in %s:\n%s", err, d.shown("doorward.log"), d.tail())
			}
			if err == nil {
				d.announce()
			}
		case err := <-door.done:
			return d.ended(ctx, err)
		case <-ctx.Done():
			return nil
		}
	}
}

// setUp does all that comes before doorward: ports, files, provider and applications.
func (d *demo) setUp() error {
	if err := d.find(); err != nil {
		return err
	}
	if err := d.openPorts(); err != nil {
		return err
	}
	if err := d.openLog(); err != nil {
		return err
	}
	secret, err := d.writeSite()
	if err != nil {
		return err
	}
	return d.serve(secret)
}

// ended explains a doorward that ended by itself.
func (d *demo) ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	how := "without an error"
	if err != nil {
		how = "with " + err.Error()
	}
	return fmt.Errorf("doorward ended %s; its last lines in %s:\n%s", how, d.shown("doorward.log"), d.tail())
}

// find completes the paths.
func (d *demo) find() error {
	root := repository()
	if d.dir == "" {
		name := "demo"
		if d.port != defaultPort {
			name += "-" + strconv.Itoa(d.port) // two demos at once have a data directory each
		}
		d.dir = filepath.Join(root, ".tools", name)
	}
	var err error
	if d.dir, err = filepath.Abs(d.dir); err != nil {
		return err
	}
	if d.doorward != "" {
		return nil
	}
	candidates := []string{filepath.Join(root, ".tools", "bin", "doorward")}
	if self, err := os.Executable(); err == nil {
		candidates = append([]string{filepath.Join(filepath.Dir(self), "doorward")}, candidates...)
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			d.doorward = path
			return nil
		}
	}
	return errors.New("there is no doorward binary; make build makes one, or name it with --doorward")
}

// repository is the directory above the working directory that holds go.mod, or the working directory.
func repository() string {
	start, err := os.Getwd()
	if err != nil {
		return "."
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		if dir == filepath.Dir(dir) {
			return start
		}
	}
}

// openPorts makes sure that Envoy's are free, and opens the others.
func (d *demo) openPorts() error {
	for _, port := range []int{d.port, d.port + 1} {
		if err := envoy.CheckAddress("DEMO_PORT", loopback(port)); err != nil {
			return d.portError(err)
		}
	}
	var err error
	if d.provider, err = net.Listen("tcp", loopback(d.port+2)); err != nil {
		if busy := envoy.CheckAddress("DEMO_PORT", loopback(d.port+2)); busy != nil {
			err = busy
		}
		return d.portError(err)
	}
	for _, l := range []*net.Listener{&d.grafana, &d.wiki} {
		if *l, err = net.Listen("tcp", loopback(0)); err != nil {
			return fmt.Errorf("listen for an application: %w", err)
		}
	}
	return nil
}

func (d *demo) portError(err error) error {
	other := d.port + 1000
	if other > 65533 {
		other = defaultPort
	}
	return fmt.Errorf("%w, as in: DEMO_PORT=%d make demo", err, other)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// openLog starts a new log, which the provider's library writes to as well.
func (d *demo) openLog() error {
	if err := os.MkdirAll(d.dir, 0o700); err != nil {
		return fmt.Errorf("make the demo's directory: %w", err)
	}
	var err error
	d.log, err = os.OpenFile(d.path("doorward.log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	d.closers = append(d.closers, func() { _ = d.log.Close() })
	slog.SetDefault(slog.New(slog.NewTextHandler(d.log, &slog.HandlerOptions{Level: slog.LevelWarn})))
	return nil
}

// serve starts the provider, the applications and the control listener.
func (d *demo) serve(secret string) error {
	idp, err := d.newProvider(secret)
	if err != nil {
		return err
	}
	grafana, err := upstream.NewGrafana(d.jwtSettings("grafana.localhost"), "/.pomerium/sign_out")
	if err != nil {
		return err
	}
	wiki, err := upstream.NewWiki(d.jwtSettings("wiki.localhost"))
	if err != nil {
		return err
	}
	d.start(d.provider, idp)
	d.start(d.grafana, d.recorder.Wrap(grafana))
	d.start(d.wiki, d.recorder.Wrap(wiki))
	if d.control == "" {
		return nil
	}
	if host, _, err := net.SplitHostPort(d.control); err != nil || !net.ParseIP(host).IsLoopback() {
		return fmt.Errorf("--control %q must be a loopback address with a port: it shows identity JWTs", d.control)
	}
	control, err := net.Listen("tcp", d.control)
	if err != nil {
		return fmt.Errorf("--control: %w", err)
	}
	d.start(control, &d.recorder)
	return nil
}

// start serves until close.
func (d *demo) start(l net.Listener, h http.Handler) {
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 10 * time.Minute,
		ErrorLog: slog.NewLogLogger(slog.Default().Handler(), slog.LevelWarn)}
	go func() { _ = server.Serve(l) }()
	d.closers = append(d.closers, func() { _ = server.Close() })
}

// newProvider is the demo's, with a key that is kept, so that a sign-out after a restart finds the ID token of before valid.
func (d *demo) newProvider(secret string) (*provider.Provider, error) {
	key, err := keptKey(d.path("data/idp.key"))
	if err != nil {
		return nil, err
	}
	host := "localhost:" + strconv.Itoa(d.port)
	return provider.New(provider.Config{
		Issuer: d.issuer(),
		Client: provider.Client{
			ID: clientID, Secret: secret,
			RedirectURIs:           []string{"https://auth." + host + "/.pomerium/callback"},
			PostLogoutRedirectURIs: []string{"https://*." + host + "/", "https://*." + host + "/*", "https://*." + host + "/.pomerium/*"},
		},
		Users: users(),
		Hint:  "The demo's users are " + userNames() + ". Each one's password is the name.",
		Key:   key,
	})
}

// users are the demo's. Each password is the name.
func users() []provider.User {
	return []provider.User{
		{Username: "alice", Password: "alice", Name: "Alice Adams", Email: "alice@example.com", Groups: []string{"grafana-admins", "engineering"}},
		{Username: "bob", Password: "bob", Name: "Bob Brown", Email: "bob@example.com", Groups: []string{"viewers"}},
		{Username: "mallory", Password: "mallory", Name: "Mallory Moore", Email: "mallory@example.com"},
	}
}

func userNames() string {
	var names []string
	for _, u := range users() {
		names = append(names, u.Username)
	}
	return strings.Join(names, ", ")
}

// jwtSettings are the guide's, and the audience, so that no other application can replay its JWT here.
func (d *demo) jwtSettings(host string) upstream.Settings {
	return upstream.Settings{
		HeaderName:        "X-Pomerium-Jwt-Assertion",
		JWKSetURL:         fmt.Sprintf("https://%s:%d/.well-known/pomerium/jwks.json", host, d.port),
		TLSClientCA:       d.path(caFile),
		CacheTTL:          time.Hour,
		ExpectClaims:      map[string]any{"iss": host, "aud": host},
		UsernameClaim:     "email",
		EmailClaim:        "email",
		RoleAttributePath: "role",
		AutoSignUp:        true,
		Dial:              dialLocalhost,
	}
}

func (d *demo) issuer() string { return "http://localhost:" + strconv.Itoa(d.port+2) }

func (d *demo) path(name string) string { return filepath.Join(d.dir, filepath.FromSlash(name)) }

// shown is a path as it is shortest from here.
func (d *demo) shown(name string) string {
	path := d.path(name)
	if cwd, err := os.Getwd(); err == nil {
		if short, err := filepath.Rel(cwd, path); err == nil && len(short) < len(path) {
			return short
		}
	}
	return path
}

// close takes down what serve and openPorts opened, last first.
func (d *demo) close() {
	for _, l := range []net.Listener{d.provider, d.grafana, d.wiki} {
		if l != nil {
			_ = l.Close()
		}
	}
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
}
