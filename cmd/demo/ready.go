package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

const (
	readyWithin = time.Minute
	readyEvery  = 50 * time.Millisecond
)

// waitReady returns when both hosts send a browser to its sign-in, over TLS that the local CA vouches for, or when ctx ends.
func (d *demo) waitReady(ctx context.Context) error {
	last := errors.New("it was not asked")
	for {
		err := errors.Join(d.probe(ctx, "grafana.localhost"), d.probe(ctx, "wiki.localhost"))
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err // what is wrong, and not that the time was up while asking
		}
		select {
		case <-time.After(readyEvery):
		case <-ctx.Done():
			return fmt.Errorf("doorward is not ready after %v: %w", readyWithin, last)
		}
	}
}

// probe asks a host for its first page as a browser without a session does.
func (d *demo) probe(ctx context.Context, host string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	ca, err := os.ReadFile(d.path(caFile))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return fmt.Errorf("%s holds no certificate", d.path(caFile))
	}
	transport := &http.Transport{DialContext: dialLocalhost, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("https://%s:%d/", host, d.port), nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "text/html")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusFound {
		return fmt.Errorf("https://%s:%d/ answers %s, not with a redirect to the sign-in", host, d.port, resp.Status)
	}
	return nil
}

// dialLocalhost connects to this machine for every name below .localhost, as browsers do (RFC 6761, section 6.3): the system's resolver may
// not know them.
func dialLocalhost(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		addr = net.JoinHostPort("127.0.0.1", port)
	}
	var dialer net.Dialer
	return dialer.DialContext(ctx, network, addr)
}

// announce says that all is ready, and what there is.
func (d *demo) announce() {
	fmt.Fprintf(d.out, "ready: https://grafana.localhost:%d/  users: %s (password = name)\n", d.port, userNames())
	for _, line := range [][2]string{
		{"wiki", fmt.Sprintf("https://wiki.localhost:%d/ (who may change it is up to policies/wiki.rego)", d.port)},
		{"public", fmt.Sprintf("https://grafana.localhost:%d/public/ (no sign-in)", d.port)},
		{"you", fmt.Sprintf("https://grafana.localhost:%d/.pomerium/ (who you are, sign out)", d.port)},
		{"routes", d.shown("doorward.yaml") + " (an edit is served within a second)"},
		{"policies", d.shown("policies") + d.policiesNote()},
		{"CA", d.shown(caFile) + " (trust it, or accept the browser's warning)"},
		{"log", d.shown("doorward.log")},
		{"decisions", d.shown("decisions.log") + " (a line for each request)"},
	} {
		fmt.Fprintf(d.out, "  %-9s %s\n", line[0], line[1])
	}
}

// policiesNote says whose the policies are.
func (d *demo) policiesNote() string {
	if len(d.changed) == 0 {
		return " (yours to edit: a start leaves what you change)"
	}
	return fmt.Sprintf(" (changed: %s; delete a file to get the demo's own back)", strings.Join(d.changed, ", "))
}
