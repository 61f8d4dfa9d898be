package envoy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

const (
	// DefaultGrace is how long requests that are under way may take once the program is told to end.
	DefaultGrace = 10 * time.Second
	// drainTime is how long connections of a filter chain that was changed or removed may live on; Envoy's own default is ten minutes.
	drainTime = time.Minute
	killAfter = 5 * time.Second // from SIGTERM to SIGKILL
	firstWait = 100 * time.Millisecond
	longWait  = 5 * time.Second
	steady    = 10 * time.Second // a life this long starts the backoff anew
	giveUp    = 5                // refusals in a row, none steady before, that no further start will cure
	pollEvery = 50 * time.Millisecond
)

// ChildConfig says how Envoy is run as a child process.
type ChildConfig struct {
	Path      string          // of the binary; see Find
	Bootstrap BootstrapConfig // limits that are 0 are taken from this machine; the socket directory is created when missing
	LogLevel  string          // Envoy's word: trace, debug, info, warning, error, critical, off; "warning" when empty
	Grace     time.Duration   // DefaultGrace when 0
	Log       *slog.Logger    // gets Envoy's lines, each at its level, and what happens to the process
}

// Run runs Envoy until ctx ends, and starts it again when it dies, after 100 ms at first and 5 s at most. When ctx ends it drains: clients
// are asked to leave, listeners are closed as soon as no request is under way or Grace has passed, and Envoy is told to end. Then Run
// returns nil; what Envoy asks (xds, authz) must answer until it has returned.
//
// It returns an error when Envoy cannot be started at all, or refuses to start several times in a row without ever having run.
//
// Envoy gets a process group of its own, so a Ctrl-C in the terminal reaches it through this drain only. It ends by itself when this process
// dies, by whatever signal (Linux).
func Run(ctx context.Context, c ChildConfig) error {
	args, err := prepare(&c)
	if err != nil {
		return err
	}
	wait, refusals, everSteady := firstWait, 0, false
	for {
		begun := time.Now()
		err := runOnce(ctx, c, args)
		if ctx.Err() != nil {
			return nil
		}
		var exit *exitError
		if !errors.As(err, &exit) {
			return err
		}
		if time.Since(begun) >= steady {
			wait, refusals, everSteady = firstWait, 0, true
		}
		if exit.refused {
			refusals++
		}
		if refusals >= giveUp && !everSteady {
			return fmt.Errorf("%w; given up after %d tries", err, refusals)
		}
		c.Log.Error("envoy died; it is started again", "cause", err, "after", wait.String())
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil
		}
		wait = min(2*wait, longWait)
	}
}

// prepare fills in defaults, writes the bootstrap beside the sockets and returns Envoy's arguments.
func prepare(c *ChildConfig) ([]string, error) {
	if c.LogLevel == "" {
		c.LogLevel = "warning"
	}
	if c.Grace == 0 {
		c.Grace = DefaultGrace
	}
	c.Bootstrap = withLocalLimits(c.Bootstrap)
	bootstrap, err := Bootstrap(c.Bootstrap)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(c.Bootstrap.SocketDir, 0o700); err != nil {
		return nil, fmt.Errorf("envoy: socket_dir: %w", err)
	}
	file := filepath.Join(c.Bootstrap.SocketDir, "envoy.json")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		return nil, fmt.Errorf("envoy: bootstrap: %w", err)
	}
	return []string{
		"--config-path", file,
		"--disable-hot-restart", // its socket is open to every local user, and each start would leave shared memory behind
		"--drain-time-s", strconv.Itoa(int(drainTime.Seconds())),
		"--drain-strategy", "immediate",
		"--log-level", c.LogLevel,
		"--log-format", logFormat,
	}, nil
}

// runOnce runs one Envoy to its end. The error is an *exitError when it had started.
func runOnce(ctx context.Context, c ChildConfig, args []string) error {
	lines := &lineLog{log: c.Log}
	cmd := exec.Command(c.Path, args...)
	cmd.Stdout, cmd.Stderr = lines, lines
	cmd.WaitDelay = time.Second
	done, err := Start(cmd)
	if err != nil {
		return fmt.Errorf("envoy: start %s: %w", c.Path, err)
	}
	pid := cmd.Process.Pid
	c.Log.Info("envoy started", "pid", pid, "path", c.Path)
	select {
	case err := <-done:
		return newExitError(err, lines.last())
	case <-ctx.Done():
		stop(c, cmd.Process, done, lines)
		c.Log.Info("envoy ended", "pid", pid)
		return nil
	}
}

// Start starts a command in a process group of its own that ends with this process (Linux), and returns what Wait will return. The command runs
// from an operating-system thread that lives as long as it does: the kernel takes the thread that forked a child for its parent, and
// on one that the Go runtime may end the child would be stopped for no visible reason.
func Start(cmd *exec.Cmd) (done <-chan error, err error) {
	cmd.SysProcAttr = childAttr()
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			ended <- cmd.Wait()
		}
	}()
	return ended, <-started
}

// stop drains Envoy for at most the grace, then ends it, by force if need be. It returns when the process is gone.
func stop(c ChildConfig, p *os.Process, done <-chan error, lines *lineLog) {
	ctx, cancel := context.WithTimeout(context.Background(), c.Grace)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- drain(ctx, NewAdmin(SocketsIn(c.Bootstrap.SocketDir).Admin)) }()
	select {
	case err := <-drained:
		if err != nil {
			c.Log.Warn("envoy is ended undrained", "cause", err)
		}
	case <-done:
		return
	}
	lines.end()
	_ = p.Signal(syscall.SIGTERM) // that it ended by itself meanwhile is as good
	select {
	case <-done:
	case <-time.After(killAfter):
		c.Log.Warn("envoy does not end; it is killed", "pid", p.Pid)
		_ = p.Kill()
		<-done
	}
}

// drain returns nil when no request is under way and none can come.
func drain(ctx context.Context, admin *Admin) error {
	if err := admin.Drain(ctx); err != nil {
		return err
	}
	if err := idle(ctx, admin); err != nil {
		return err
	}
	if err := admin.CloseListeners(ctx); err != nil {
		return err
	}
	return idle(ctx, admin)
}

// idle returns when no request was under way at two moments in a row.
func idle(ctx context.Context, admin *Admin) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for quiet := 0; ; {
		active, err := admin.Active(ctx)
		if err != nil {
			return err
		}
		if active > 0 {
			quiet = 0
		} else if quiet++; quiet == 2 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d still active when the grace had passed", active)
		}
	}
}

// exitError says how an Envoy that had started ended.
type exitError struct {
	cause   error
	line    string // the last that it logged
	refused bool   // it ended by itself with a status, as it does for a configuration that it does not take
}

func newExitError(cause error, line string) *exitError {
	e := &exitError{cause: cause, line: line}
	var status *exec.ExitError
	e.refused = errors.As(cause, &status) && status.Exited()
	return e
}

func (e *exitError) Error() string {
	how := "ended without an error"
	if e.cause != nil {
		how = e.cause.Error()
	}
	if e.line == "" {
		return "envoy: " + how
	}
	return fmt.Sprintf("envoy: %s: %s", how, e.line)
}

func (e *exitError) Unwrap() error { return e.cause }
