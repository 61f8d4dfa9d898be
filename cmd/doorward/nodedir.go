package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"doorward/envoy"
	"doorward/xds/node"

	"golang.org/x/sync/errgroup"
)

// nodeDir is the directory of an Envoy whose doorward is on another machine. Whoever reads it is that Envoy, so only its owner may.
type nodeDir struct{ path string }

// aboutNode is what the commands on the node's machine have to know.
type aboutNode struct {
	Node    string `json:"node"`
	Group   string `json:"group"`
	Address string `json:"address"` // of doorward: host:port
	Life    string `json:"life"`    // of a certificate, as a Go duration
}

// openNodeDir makes the directory if it is missing, and refuses one that others may enter.
func openNodeDir(path string) (nodeDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nodeDir{}, err
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nodeDir{}, err
	}
	return nodeDir{path}, private(path)
}

func (d nodeDir) in(name string) string { return filepath.Join(d.path, name) }

// create writes everything for a directory that will be at a path on the node's machine. The key and certificate come last: an Envoy that runs takes
// them as soon as they are there.
func (d nodeDir) create(at string, about aboutNode, pair, root []byte) error {
	text, err := json.MarshalIndent(about, "", "  ")
	if err != nil {
		return err
	}
	return errors.Join(
		d.lead(at, about),
		writePrivate(d.in(envoy.NodeRoot), root),
		writePrivate(d.in(nodeFile), append(text, '\n')),
		writePrivate(d.in(envoy.NodePair), pair),
	)
}

// lead writes what has the directory's own path in it.
func (d nodeDir) lead(at string, about aboutNode) error {
	bootstrap, err := envoy.Bootstrap(about.bootstrap(at))
	if err != nil {
		return err
	}
	secrets, err := envoy.Secrets(at)
	if err != nil {
		return err
	}
	return errors.Join(writePrivate(d.in("envoy.yaml"), bootstrap), writePrivate(d.in(envoy.NodeSecrets), secrets))
}

// writePrivate replaces a file whole, for its owner alone.
func writePrivate(path string, data []byte) error { return replaceWithMode(path, data, 0o600) }

func (d nodeDir) about() (aboutNode, error) {
	var about aboutNode
	text, err := os.ReadFile(d.in(nodeFile))
	if errors.Is(err, fs.ErrNotExist) {
		return about, fmt.Errorf("%s has no %s: make it with doorward envoy bootstrap --node NAME --out DIR where doorward runs", d.path, nodeFile)
	}
	if err == nil {
		err = json.Unmarshal(text, &about)
	}
	if err != nil {
		return about, fmt.Errorf("read %s: %w", d.in(nodeFile), err)
	}
	return about, nil
}

// renew replaces the certificate and its key by the next ones, and returns when these end.
func (d nodeDir) renew(ctx context.Context) (time.Time, error) {
	about, err := d.about()
	if err != nil {
		return time.Time{}, err
	}
	pair, err := os.ReadFile(d.in(envoy.NodePair))
	if err != nil {
		return time.Time{}, err
	}
	root, err := os.ReadFile(d.in(envoy.NodeRoot))
	if err != nil {
		return time.Time{}, err
	}
	next, err := node.Renew(ctx, about.Address, pair, root)
	if err != nil {
		return time.Time{}, err
	}
	if err := writePrivate(d.in(envoy.NodePair), next); err != nil {
		return time.Time{}, err
	}
	return node.Lifetime(next)
}

const (
	// lookAtPair is how often the certificate's end is looked up: it may have been replaced by a new bootstrap.
	lookAtPair = time.Minute
	// renewAgain is how soon a renewal that failed is tried again, at most.
	renewAgain = 15 * time.Second
)

// life is how long a certificate of the node is good.
func (d nodeDir) life() (time.Duration, error) {
	about, err := d.about()
	if err != nil {
		return 0, err
	}
	life, err := time.ParseDuration(about.Life)
	if err != nil || life < node.MinLife {
		return 0, fmt.Errorf("%s: life %q is not a duration of %s or more", d.in(nodeFile), about.Life, node.MinLife)
	}
	return life, nil
}

// run runs Envoy and renews its certificate at two thirds of its life, until ctx ends.
func (d nodeDir) run(ctx context.Context, child envoy.ChildConfig) error {
	life, err := d.life()
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	group.Go(func() error {
		defer stop()
		return envoy.Run(ctx, child)
	})
	group.Go(func() error {
		d.keep(ctx, life, child.Log)
		return nil
	})
	return group.Wait()
}

// keep renews the certificate in time. What fails is tried again: the other side may be away, or the node may be certified anew.
func (d nodeDir) keep(ctx context.Context, life time.Duration, log *slog.Logger) {
	said := ""
	for wait := time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		left, err := d.left()
		if err == nil && left > life/3 {
			wait = min(lookAtPair, left-life/3)
			continue
		}
		var expires time.Time
		if err == nil {
			expires, err = d.renew(ctx)
		}
		if err == nil {
			log.Info("the certificate is renewed", "until", expires)
			wait, said = min(renewAgain, life/20), ""
			continue
		}
		if wait = min(renewAgain, life/20); said != err.Error() && ctx.Err() == nil {
			said = err.Error()
			log.Error("the certificate is not renewed; doorward envoy bootstrap makes a new one once it has ended", "left", left.String(), "cause", said)
		}
	}
}

// left is for how long the certificate is still good.
func (d nodeDir) left() (time.Duration, error) {
	pair, err := os.ReadFile(d.in(envoy.NodePair))
	if err != nil {
		return 0, err
	}
	expires, err := node.Lifetime(pair)
	return time.Until(expires).Round(time.Second), err
}
