package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	stdlog "log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"doorward/authz/admin"
	"doorward/authz/config"
	"doorward/envoy"
	"doorward/xds"
	"doorward/xds/cert/acme"
	"doorward/xds/node"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// defaultConfig is the file that commands read when none is named.
const defaultConfig = "doorward.yaml"

// controlSocket is the admin API's, in the data directory.
const controlSocket = "control.sock"

// defaultNode names the Envoy on the same machine.
const defaultNode = "edge"

// stopping bounds how long requests that are under way may take to end.
const stopping = 5 * time.Second

func serveCommand() *cobra.Command {
	var path string
	var logging loggingFlags
	cmd := &cobra.Command{
		Use:   "serve [--config FILE]",
		Short: "Run both planes for an Envoy that somebody else runs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log, flush, err := logging.logger()
			if err != nil {
				return err
			}
			defer flush()
			c, err := config.Load(path)
			if err != nil {
				return err
			}
			return serve(cmd.Context(), c, log, "")
		},
	}
	configFlag(cmd, &path)
	logging.add(cmd)
	return cmd
}

func configFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", defaultConfig, "the configuration file")
	_ = cmd.MarkFlagFilename("config", "yaml", "yml") // fails only for a flag that does not exist
}

// loggingFlags say how the log is written.
type loggingFlags struct{ level, format string }

func (f *loggingFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	cmd.Flags().StringVar(&f.format, "log-format", "json", "json or text")
}

// logger returns a logger that writes to standard error, and what has to be called at the end.
func (f *loggingFlags) logger() (log *slog.Logger, flush func(), err error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return nil, nil, fmt.Errorf("--log-level %q: it is one of debug, info, warn and error", f.level)
	}
	if f.format != "json" && f.format != "text" {
		return nil, nil, fmt.Errorf("--log-format %q: it is json or text", f.format)
	}
	q := newLogQueue(os.Stderr)
	options := &slog.HandlerOptions{Level: level}
	if f.format == "text" {
		return slog.New(slog.NewTextHandler(q, options)), q.close, nil
	}
	return slog.New(slog.NewJSONHandler(q, options)), q.close, nil
}

// serve runs both planes until ctx ends. What is in edge runs in front of them: it is started once the sockets are open, and when ctx
// ends it is waited for before the planes stop answering it.
//
// The binary is the Envoy that changes are validated with; "" for one that is looked for.
func serve(ctx context.Context, c *config.Config, log *slog.Logger, binary string, edge ...func(context.Context) error) error {
	tuneCollector()
	p, err := open(ctx, c, log)
	if err != nil {
		return err
	}
	p.envoy.flag = binary
	if err := p.envoy.use(c.SocketDir); err != nil {
		return err
	}
	defer p.store.Close()
	defer p.closeDecisions()
	defer surviveBrokenPipes()()
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, inner := errgroup.WithContext(inner)
	if err := p.listen(inner, group, c); err != nil {
		return err
	}
	if err := p.start(ctx, c); err != nil {
		return err
	}
	group.Go(func() error { return p.sessions.Run(inner) })
	group.Go(func() error { return p.bearer.Service.Run(inner) })
	group.Go(func() error { return p.ring.Run(inner) })
	group.Go(func() error { return p.login.Run(inner) })
	group.Go(func() error { return p.keepSeal(inner) })
	group.Go(func() error { return p.keepKeys(inner) })
	group.Go(func() error { return p.authz.Run(inner) })
	group.Go(func() error { return p.streams.Run(inner) })
	group.Go(func() error { return p.acme.Run(inner) })
	group.Go(func() error { return p.follow(inner) })
	group.Go(func() error {
		defer stop()
		front, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(inner, cancel)()
		running, front := errgroup.WithContext(front)
		running.Go(func() error { return p.watch(front, c) })
		running.Go(func() error { return p.bundles.run(front) })
		for _, run := range edge {
			running.Go(func() error { return run(front) })
		}
		return running.Wait()
	})
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// surviveBrokenPipes makes a write to standard output or error that nobody reads any more an error like any other, which would otherwise end
// the program (os/signal, SIGPIPE). The function that it returns ends that.
func surviveBrokenPipes() (end func()) {
	broken := make(chan os.Signal, 1) // nobody reads it: that there is somebody to tell is enough
	signal.Notify(broken, syscall.SIGPIPE)
	return func() { signal.Stop(broken) }
}

// listen opens every socket before anything is served, so that a second doorward on the same directory fails at once.
func (p *planes) listen(ctx context.Context, group *errgroup.Group, c *config.Config) error {
	bootstrap, err := envoy.Bootstrap(localBootstrap(c))
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(c.SocketDir, "envoy.yaml"), bootstrap); err != nil {
		return fmt.Errorf("write Envoy's bootstrap: %w", err)
	}
	door, err := p.door(c.Control)
	if err != nil {
		return err
	}
	api := admin.Handler(p.adminAPI(ctx))
	if err := p.serveGRPC(ctx, group, c.SocketDir, door); err != nil {
		return err
	}
	p.runNodes(ctx, group, door)
	pages := http.NewServeMux() // for what it does to paths that are not clean
	pages.Handle("/", p.adminOr(api, p.keysOr(p.login)))
	pages.Handle(acme.ChallengePath, p.acme)
	if err := p.serveChallenges(ctx, group, c.SocketDir, door); err != nil {
		return err
	}
	if door != nil {
		runHTTP(ctx, group, door.Listener(node.ProtocolHTTP), p.ofGroup(pages), nil)
	}
	return errors.Join(
		serveHTTP(ctx, group, filepath.Join(c.SocketDir, "http.sock"), 0o660, pages),
		serveHTTP(ctx, group, filepath.Join(c.DataDir, controlSocket), 0o600, api),
		p.serveRemote(ctx, group, c.Admin.Listen, api),
		serveTCP(ctx, group, "listen.internal", c.Listen.Internal, p.keysOr(http.NotFoundHandler())),
		serveTCP(ctx, group, "listen.metrics", c.Listen.Metrics, only("GET /metrics", p.metrics())),
	)
}

// localBootstrap is of the Envoy on this machine.
func localBootstrap(c *config.Config) envoy.BootstrapConfig {
	return envoy.BootstrapConfig{Node: defaultNode, Cluster: c.Control.LocalGroup, SocketDir: c.SocketDir}
}

// serveGRPC opens the services that Envoy calls, on Unix sockets and, when there is a door, for nodes.
func (p *planes) serveGRPC(ctx context.Context, group *errgroup.Group, dir string, door *node.Door) error {
	control := grpc.NewServer(append(grpcOptions(), xds.Options()...)...)
	p.xds.Register(control)
	streams := grpc.NewServer(grpcOptions()...)
	p.streams.Register(streams)
	for _, service := range []struct {
		socket, protocol string
		server           *grpc.Server
	}{
		{"authz.sock", node.ProtocolAuthz, p.authz.NewGRPC(grpcOptions()...)},
		{"xds.sock", node.ProtocolXDS, control},
		{"streams.sock", node.ProtocolStreams, streams},
	} {
		l, err := unixSocket(filepath.Join(dir, service.socket), 0o660)
		if err != nil {
			return err
		}
		group.Go(func() error { return service.server.Serve(l) })
		if door != nil {
			group.Go(func() error { return service.server.Serve(door.Listener(service.protocol)) })
		}
		group.Go(func() error {
			<-ctx.Done()
			forced := time.AfterFunc(stopping, service.server.Stop)
			defer forced.Stop()
			service.server.GracefulStop()
			return nil
		})
	}
	return nil
}

// serveTCP serves plain HTTP at an address of the configuration, if there is one: the JWKS alone for upstreams inside that do not know the
// edge's CA, and the metrics.
func serveTCP(ctx context.Context, group *errgroup.Group, key, address string, h http.Handler) error {
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	runHTTP(ctx, group, l, h, nil)
	return nil
}

// serveRemote serves the admin API at an address of the configuration, if there is one, to clients that prove themselves.
func (p *planes) serveRemote(ctx context.Context, group *errgroup.Group, address string, api http.Handler) error {
	if address == "" {
		return nil
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("admin.listen: %w", err)
	}
	runHTTP(ctx, group, tls.NewListener(l, p.remote.TLS()), p.remote.Guard(api), slog.NewLogLogger(p.log.Handler(), slog.LevelDebug))
	return nil
}

// only serves what a pattern matches.
func only(pattern string, h http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(pattern, h)
	return mux
}

// keysOr serves the JWKS at the path that it has now, and everything else by next.
func (p *planes) keysOr(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == p.jwksPath() {
			p.ring.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func serveHTTP(ctx context.Context, group *errgroup.Group, path string, mode os.FileMode, h http.Handler) error {
	l, err := unixSocket(path, mode)
	if err != nil {
		return err
	}
	runHTTP(ctx, group, l, h, nil)
	return nil
}

// runHTTP serves until ctx ends. What goes wrong with connections goes to log, nil for the log package's own.
func runHTTP(ctx context.Context, group *errgroup.Group, l net.Listener, h http.Handler, log *stdlog.Logger) {
	server := &http.Server{Handler: h, ErrorLog: log, ConnContext: node.ConnContext, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 128 << 10}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopping)
		defer cancel()
		return server.Shutdown(ctx)
	})
}

// replaceFile writes a file whole, for readers that wait for it, and lets everybody read it. What is there before stays until then.
func replaceFile(path string, data []byte) error { return replaceWithMode(path, data, 0o644) }

func replaceWithMode(path string, data []byte, mode os.FileMode) error {
	next := path + ".new"
	if err := os.Remove(next); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(next, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode) // O_EXCL follows no link that somebody put there
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close()); err == nil { // whatever the umask is
		err = os.Rename(next, path)
	}
	if err != nil {
		err = errors.Join(err, os.Remove(next))
	}
	return err
}

// unixSocket listens on a path, in place of a socket that a killed process left there. The store's lock has made sure that no other doorward
// uses it. Through the sockets one can read every private key and decide requests, so beside mode there is the directory's, which open checks.
func unixSocket(path string, mode os.FileMode) (net.Listener, error) {
	if info, err := os.Lstat(path); err == nil && info.Mode()&os.ModeSocket != 0 {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove the old socket: %w", err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, mode); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}
