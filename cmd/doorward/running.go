package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
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
	config, dataDir                    string
	server, serverCA, cert, key, token string
}

func (f *runningFlags) add(cmd *cobra.Command) {
	configFlag(cmd, &f.config)
	flags := cmd.Flags()
	flags.StringVar(&f.dataDir, "data-dir", "", "the data_dir of the running program, where the configuration does not say it")
	flags.StringVar(&f.server, "server", "", "host:port of admin.listen of a doorward on another machine, which is asked with --client-cert and --client-key; "+
		"or the host of a route to doorward://admin, which is asked with --token-file")
	flags.StringVar(&f.serverCA, "server-ca", "", "PEM file of whom to trust for --server; the system's roots otherwise")
	flags.StringVar(&f.cert, "client-cert", "", "PEM file of the certificate to show to --server")
	flags.StringVar(&f.key, "client-key", "", "PEM file of its key")
	flags.StringVar(&f.token, "token-file", "", "file with a service token to show to --server")
	for _, name := range []string{"server-ca", "client-cert", "client-key"} {
		_ = cmd.MarkFlagFilename(name, "pem", "crt", "key") // fails only for a flag that does not exist
	}
}

// client returns a client of the running program, which may not run.
func (f *runningFlags) client() (*admin.Client, error) {
	if f.server != "" {
		return f.remote()
	}
	if slices.ContainsFunc([]string{f.serverCA, f.cert, f.key, f.token}, func(s string) bool { return s != "" }) {
		return nil, errors.New("--server-ca, --client-cert, --client-key and --token-file are for --server")
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
	address := strings.TrimSuffix(strings.TrimPrefix(f.server, "https://"), "/")
	if u, err := url.Parse("https://" + address); err != nil || u.Host != address {
		return nil, fmt.Errorf("--server %q: it is host:port, or a host", f.server)
	}
	trust := &tls.Config{MinVersion: tls.VersionTLS12} // the edge's own may be that old; admin.listen takes 1.3 only
	var bearer config.Secret
	switch {
	case f.token != "":
		text, err := os.ReadFile(f.token)
		if err != nil {
			return nil, fmt.Errorf("--token-file: %w", err)
		}
		bearer = config.Secret(strings.TrimSpace(string(text)))
	case f.cert == "" || f.key == "":
		return nil, errors.New("--server needs --client-cert and --client-key, or --token-file: a doorward on the network answers only clients that prove themselves")
	default:
		pair, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("--client-cert, --client-key: %w", err)
		}
		trust.Certificates = []tls.Certificate{pair}
	}
	if f.serverCA != "" {
		pem, err := os.ReadFile(f.serverCA)
		if err != nil {
			return nil, fmt.Errorf("--server-ca: %w", err)
		}
		if trust.RootCAs = x509.NewCertPool(); !trust.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("--server-ca: %s has no certificate in PEM", f.serverCA)
		}
	}
	return admin.NewRemoteClient(address, trust, bearer), nil
}
