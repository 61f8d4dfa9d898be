package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"doorward/authz/config"
	"doorward/cmd/doorward/tunnel"

	"github.com/spf13/cobra"
)

// tcpFlags are those of doorward tcp.
type tcpFlags struct {
	listen, edge, caFile, tokenFile string
	noBrowser, noStore              bool
}

func tcpCommand() *cobra.Command {
	var flags tcpFlags
	cmd := &cobra.Command{
		Use:   "tcp HOST:PORT [--listen ADDRESS|-]",
		Short: "Connect programs on this computer to a TCP service behind an edge",
		Long: "Listens on this computer and connects what comes in to the TCP service whose route is `from: tcp+https://HOST:PORT`, by way of the edge at\n" +
			"HOST:443. You sign in through the browser, and the route's policy decides. Everybody on this computer who can connect to the address\n" +
			"connects as you.\n\n" +
			"With --listen - it is one connection from standard input to standard output, for ssh:\n\n" +
			"  ssh -o ProxyCommand='doorward tcp ssh.example.com:22 --listen -' ssh.example.com",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return flags.run(cmd, args[0])
		},
	}
	cmd.Flags().StringVar(&flags.listen, "listen", "", "address on this computer, or - for standard input and output (default 127.0.0.1:PORT)")
	cmd.Flags().StringVar(&flags.edge, "edge", "", "where the edge is reached, as edge.example.com:8443 (default HOST:443)")
	cmd.Flags().StringVar(&flags.caFile, "ca-file", "", "PEM of the CA of the edge's certificate, in place of the system's")
	cmd.Flags().StringVar(&flags.tokenFile, "token-file", "", "file with a service token or JWT to show, in place of a sign-in")
	cmd.Flags().BoolVar(&flags.noBrowser, "no-browser", false, "print the address to sign in at, and start no browser")
	cmd.Flags().BoolVar(&flags.noStore, "no-store", false, "keep the sign-in for this run alone")
	return cmd
}

func (f *tcpFlags) run(cmd *cobra.Command, service string) error {
	c, err := f.config(service)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	c.Tell = func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		fmt.Fprintf(cmd.ErrOrStderr(), format+"\n", args...)
	}
	if !f.noBrowser {
		c.Open = openBrowser
	}
	t, err := tunnel.New(c)
	if err != nil {
		return err
	}
	defer t.Close()
	if f.listen == "-" {
		return t.Pipe(cmd.Context(), cmd.InOrStdin(), output{cmd.OutOrStdout()})
	}
	address, err := f.address(c.Port)
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	if err := t.Ready(cmd.Context()); err != nil {
		return unlessInterrupted(cmd.Context(), errors.Join(err, l.Close()))
	}
	c.Tell("listening on %s", l.Addr())
	return t.Serve(cmd.Context(), l)
}

// unlessInterrupted is nil when the person has ended the program.
func unlessInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// output is a standard output that can be closed where it is a file.
type output struct{ io.Writer }

func (o output) Close() error {
	if c, ok := o.Writer.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// config is what the flags and the argument say.
func (f *tcpFlags) config(service string) (tunnel.Config, error) {
	host, service, err := splitService(service)
	if err != nil {
		return tunnel.Config{}, err
	}
	port, _ := strconv.Atoi(service) // splitService has checked it
	c := tunnel.Config{Host: host, Port: port, Edge: f.edge}
	if c.Edge == "" {
		c.Edge = net.JoinHostPort(host, "443")
	}
	if _, _, err := net.SplitHostPort(c.Edge); err != nil {
		return c, fmt.Errorf("--edge %q: write it as edge.example.com:8443", f.edge)
	}
	if f.caFile != "" {
		pem, err := os.ReadFile(f.caFile)
		if err != nil {
			return c, fmt.Errorf("--ca-file: %w", err)
		}
		if c.Roots = x509.NewCertPool(); !c.Roots.AppendCertsFromPEM(pem) {
			return c, fmt.Errorf("--ca-file: %s holds no PEM certificate", f.caFile)
		}
	}
	if f.tokenFile != "" {
		token, err := os.ReadFile(f.tokenFile)
		if err != nil {
			return c, fmt.Errorf("--token-file: %w", err)
		}
		c.Token = string(bytes.TrimSpace(token))
		if c.Token == "" || strings.ContainsAny(c.Token, " \t\r\n") {
			return c, fmt.Errorf("--token-file: %s holds no token", f.tokenFile)
		}
	}
	if f.noStore || f.tokenFile != "" {
		return c, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return c, fmt.Errorf("where to keep the sign-in is not known: %w; --no-store does without", err)
	}
	c.Store = tunnel.NewStore(dir, host, c.Edge)
	return c, nil
}

// splitService reads HOST:PORT, as a route's `from` names it.
func splitService(s string) (host, port string, err error) {
	bare := strings.TrimPrefix(s, "tcp+https://")
	u, err := config.ParseURL("https://" + bare)
	host, port, split := net.SplitHostPort(bare)
	if err != nil || split != nil || u.Path() != "" || net.ParseIP(host) != nil {
		return "", "", fmt.Errorf("%q is no service; write its host and port, as db.example.com:5432", s)
	}
	return strings.ToLower(host), port, nil
}

// address is where to listen: on this computer alone, since everybody who can connect connects as the person.
func (f *tcpFlags) address(port int) (string, error) {
	if f.listen == "" {
		return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), nil
	}
	at, err := netip.ParseAddrPort(strings.Replace(f.listen, "localhost:", "127.0.0.1:", 1))
	if err != nil {
		return "", fmt.Errorf("--listen %q: write it as 127.0.0.1:%d", f.listen, port)
	}
	if !at.Addr().IsLoopback() {
		return "", fmt.Errorf("--listen %s: whoever reaches it would connect as you; use 127.0.0.1:%d", f.listen, at.Port())
	}
	return at.String(), nil
}

// openBrowser starts the person's browser. What it does then is not waited for.
func openBrowser(url string) error {
	name, args := "xdg-open", []string{url}
	switch runtime.GOOS {
	case "darwin":
		name = "open"
	case "windows":
		name, args = "rundll32", []string{"url.dll,FileProtocolHandler", url}
	}
	cmd := exec.Command(name, args...)
	if err := cmd.Start(); err != nil {
		return err
	}
	go func() { _ = cmd.Wait() }()
	return nil
}
