package main

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"embed"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"text/template"

	"doorward/envoy"
)

const (
	clientID = "doorward"
	caFile   = "data/ca/ca.pem" // of doorward's local CA
)

// site is what a start of the demo writes into its directory.
//
//go:embed site
var site embed.FS

// writeSite writes configuration, policies and the client's secret, which it returns. Other files in the directory are left alone, and so
// are policies that are there: a person may have changed them.
func (d *demo) writeSite() (secret string, err error) {
	for _, dir := range []string{"policies", "routes", "secrets", "data"} {
		if err := os.MkdirAll(d.path(dir), 0o700); err != nil {
			return "", fmt.Errorf("make the demo's directories: %w", err)
		}
	}
	secret = rand.Text()
	if err := os.WriteFile(d.path("secrets/oidc"), []byte(secret+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("write the client's secret: %w", err)
	}
	if err := d.writePolicies(); err != nil {
		return "", fmt.Errorf("write the policies: %w", err)
	}
	return secret, d.writeConfig()
}

// writePolicies writes those that are missing, and notes which of the others are no longer the demo's own.
func (d *demo) writePolicies() error {
	entries, err := fs.ReadDir(site, "site/policies")
	if err != nil {
		return err
	}
	d.changed = nil
	for _, entry := range entries {
		text, err := fs.ReadFile(site, "site/policies/"+entry.Name())
		if err != nil {
			return err
		}
		file := d.path("policies/" + entry.Name())
		switch there, err := os.ReadFile(file); {
		case errors.Is(err, fs.ErrNotExist):
			if err := os.WriteFile(file, text, 0o600); err != nil {
				return err
			}
		case err != nil:
			return err
		case !bytes.Equal(there, text):
			d.changed = append(d.changed, entry.Name())
		}
	}
	return nil
}

// writeConfig fills in the ports. The configuration appears whole or not at all.
func (d *demo) writeConfig() error {
	if err := d.chooseSocketDir(); err != nil {
		return err
	}
	source, err := template.ParseFS(site, "site/doorward.yaml")
	if err != nil {
		return fmt.Errorf("the configuration's template: %w", err)
	}
	var text bytes.Buffer
	err = source.Execute(&text, struct {
		HTTPS, HTTP                                int
		Issuer, ClientID, SocketDir, Grafana, Wiki string
	}{d.port, d.port + 1, d.issuer(), clientID, d.socketDir, address(d.grafana), address(d.wiki)})
	if err != nil {
		return fmt.Errorf("the configuration's template: %w", err)
	}
	if err := os.WriteFile(d.path("doorward.yaml.new"), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write the configuration: %w", err)
	}
	return os.Rename(d.path("doorward.yaml.new"), d.path("doorward.yaml"))
}

func address(l net.Listener) string { return l.Addr().String() }

// chooseSocketDir takes a directory with a short name where the usual one is too deep for a Unix socket.
func (d *demo) chooseSocketDir() error {
	usual := envoy.BootstrapConfig{Node: "demo", SocketDir: d.path("data/run")}
	if usual.Validate() == nil {
		return nil
	}
	dir, err := os.MkdirTemp("", "doorward")
	if err != nil {
		return fmt.Errorf("make a directory for sockets: %w", err)
	}
	d.socketDir = dir
	d.closers = append(d.closers, func() { _ = os.RemoveAll(dir) })
	return nil
}

// keptKey reads an RSA key, or makes one and keeps it.
func keptKey(file string) (*rsa.PrivateKey, error) {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return newKey(file)
	case err != nil:
		return nil, fmt.Errorf("the provider's key: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil {
		if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
			return key, nil
		}
	}
	return nil, fmt.Errorf("the provider's key: %s holds none; delete it and a new one is made", file)
}

func newKey(file string) (*rsa.PrivateKey, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fmt.Errorf("the provider's key: %w", err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file+".new", text, 0o600); err != nil {
		return nil, fmt.Errorf("the provider's key: %w", err)
	}
	if err := os.Rename(file+".new", filepath.Clean(file)); err != nil {
		return nil, fmt.Errorf("the provider's key: %w", err)
	}
	return key, nil
}
