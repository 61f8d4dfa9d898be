package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Find returns the Envoy binary to run: the flag's when it is not empty, else the one that the environment variable ENVOY names, else
// `envoy` on the PATH, else .tools/envoy-VERSION/envoy in the working directory, beside this program, or in any directory above
// either. A flag or ENVOY that names no program is an error and nothing else is tried. The error of a search that found nothing
// says what can be done.
func Find(flag string) (string, error) {
	if flag != "" {
		return flag, runnable("--envoy", flag)
	}
	if env := os.Getenv("ENVOY"); env != "" {
		return env, runnable("ENVOY", env)
	}
	if path, err := exec.LookPath("envoy"); err == nil {
		return path, nil
	}
	for _, start := range searchRoots() {
		if path := upward(start); path != "" {
			return path, nil
		}
	}
	return "", fmt.Errorf("envoy: found none; run envoy/fetch.sh for the pinned %s, or put it on the PATH, or name it with --envoy or ENVOY", Version)
}

// searchRoots are the working directory and the program's own, as far as they can be known.
func searchRoots() []string {
	var roots []string
	if cwd, err := os.Getwd(); err == nil {
		roots = append(roots, cwd)
	}
	if exe, err := os.Executable(); err == nil {
		if real, err := filepath.EvalSymlinks(exe); err == nil {
			exe = real
		}
		roots = append(roots, filepath.Dir(exe))
	}
	return roots
}

// upward looks for the fetched binary in dir and above. "" when there is none.
func upward(dir string) string {
	for {
		path := filepath.Join(dir, ".tools", "envoy-"+Version, "envoy")
		if runnable("", path) == nil {
			return path
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
}

// runnable says why path is no program, and who named it.
func runnable(source, path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("envoy: %s names %s, which does not exist", source, path)
	case err != nil:
		return fmt.Errorf("envoy: %s: %w", source, err)
	case !info.Mode().IsRegular() || info.Mode().Perm()&0o111 == 0:
		return fmt.Errorf("envoy: %s names %s, which is not an executable file", source, path)
	}
	return nil
}

// CheckVersion asks a binary for its version and returns it. It is an error when it is not of the minor release that Doorward is made for: what
// an older one does not know it refuses, and a newer one may have dropped what is used here.
func CheckVersion(ctx context.Context, path string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").Output()
	if err != nil {
		return "", fmt.Errorf("envoy: %s --version: %w", path, err)
	}
	version := parseVersion(out)
	if version == "" {
		return "", fmt.Errorf("envoy: %s does not say its version as Envoy does", path)
	}
	if minor(version) != minor(Version) {
		return version, fmt.Errorf("envoy: %s is version %s and Doorward is made for %s; run envoy/fetch.sh, or name another with --envoy or ENVOY",
			path, version, Version)
	}
	return version, nil
}

// parseVersion reads "envoy  version: COMMIT/1.40.0/Clean/RELEASE/BoringSSL". "" when it is something else.
func parseVersion(out []byte) string {
	_, rest, found := bytes.Cut(out, []byte("version: "))
	parts := strings.Split(string(rest), "/")
	if !found || len(parts) < 2 {
		return ""
	}
	return parts[1]
}

// minor is "1.40" of "1.40.0".
func minor(version string) string {
	parts := strings.SplitN(version, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

// CheckAddress says whether Envoy will be able to listen on addr (host:port or :port), by opening it for a moment. Envoy itself would
// report a port in use only to the control plane. field names the setting in the error. Run it before Envoy runs.
func CheckAddress(field, addr string) error {
	l, err := net.Listen("tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s: %s is in use by another program; stop that one or choose another port", field, addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: this user may not listen on %s; ports below 1024 need root or CAP_NET_BIND_SERVICE, others do not", field, addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s: %s is not an address of this machine", field, addr)
	case err != nil:
		return fmt.Errorf("%s: listen on %s: %w", field, addr, err)
	}
	return l.Close()
}
