package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"doorward/authz/admin"
	"doorward/authz/config"

	"github.com/spf13/cobra"
)

// runningFlags say which running doorward is asked: the one of a configuration or a data directory, by its socket, or one on the network.
type runningFlags struct {
	config, dataDir             string
	server, serverCA, cert, key string
}

func (f *runningFlags) add(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.StringVar(&f.dataDir, "data-dir", "", "the data_dir of the running program, where the configuration does not say it")
	flags.StringVar(&f.server, "server", "", "host:port of admin.listen of a doorward on another machine, which is asked with --client-cert and --client-key")
	flags.StringVar(&f.serverCA, "server-ca", "", "PEM file of whom to trust for --server; the system's roots otherwise")
	flags.StringVar(&f.cert, "client-cert", "", "PEM file of the certificate to show to --server")
	flags.StringVar(&f.key, "client-key", "", "PEM file of its key")
	for _, name := range []string{"server-ca", "client-cert", "client-key"} {
		_ = cmd.MarkFlagFilename(name, "pem", "crt", "key") // fails only for a flag that does not exist
	}
}

// client returns a client of the running program, which may not run.
func (f *runningFlags) client() (*admin.Client, error) {
	if f.server != "" {
		return f.remote()
	}
	if slices.ContainsFunc([]string{f.serverCA, f.cert, f.key}, func(s string) bool { return s != "" }) {
		return nil, errors.New("--server-ca, --client-cert and --client-key are for --server")
	}
	dir := f.dataDir
	if dir == "" {
		c, err := config.Load(f.config)
		if err != nil {
			return nil, fmt.Errorf("%w\n(the running program can be asked all the same: --data-dir DIR names its data_dir)", err)
		}
		dir = c.DataDir
	}
	return admin.NewClient(filepath.Join(dir, controlSocket)), nil
}

// remote returns a client of a program on the network.
func (f *runningFlags) remote() (*admin.Client, error) {
	address := strings.TrimPrefix(f.server, "https://")
	if _, _, err := net.SplitHostPort(address); err != nil {
		return nil, fmt.Errorf("--server %q: it is host:port", f.server)
	}
	if f.cert == "" || f.key == "" {
		return nil, errors.New("--server needs --client-cert and --client-key: a doorward on the network answers only clients that prove themselves")
	}
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	if err != nil {
		return nil, fmt.Errorf("--client-cert, --client-key: %w", err)
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{pair}}
	if f.serverCA != "" {
		pem, err := os.ReadFile(f.serverCA)
		if err != nil {
			return nil, fmt.Errorf("--server-ca: %w", err)
		}
		if trust.RootCAs = x509.NewCertPool(); !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--server-ca: %s has no certificate in PEM", f.serverCA)
		}
	}
	return admin.NewRemoteClient(address, trust), nil
}
