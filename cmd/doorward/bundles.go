package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"doorward/authz/admin"
	"doorward/authz/bundle"
	"doorward/authz/config"
	"doorward/authz/policy"

	"golang.org/x/sync/errgroup"
)

// fetchAtOnce bounds how long a start, or a change of the configuration, waits for bundles that it has not got yet.
const fetchAtOnce = 10 * time.Second

// bundles are the OPA bundles of the configuration: of each the version that decides, and a newer one that was fetched and verified and waits
// to be applied. What is good is kept in a directory, so that a start does not need the servers.
type bundles struct {
	dir string
	log *slog.Logger

	mu      sync.Mutex     // guards what follows
	current bundleVersions // by name; nil before the first configuration
	next    bundleVersions
	status  map[string]*admin.Bundle
	changed chan struct{} // of capacity 1: current has changed
}

// version is one bundle as it was fetched and verified. It is immutable.
type bundleVersion struct {
	from    config.Bundle
	by      string         // what it was verified with, and where it is from
	bundle  *policy.Bundle // nil while there is none
	archive []byte         // to be kept; nil when it is kept already, or needs not be
	etag    string
	missing error // why bundle is nil
}

func newBundles(dataDir string, log *slog.Logger) *bundles {
	return &bundles{
		dir: filepath.Join(dataDir, "bundles"), log: log,
		next: bundleVersions{}, status: map[string]*admin.Bundle{}, changed: make(chan struct{}, 1),
	}
}

// bundleVersions are those of every bundle of a configuration.
type bundleVersions map[string]*bundleVersion

// config is what the planes load with these versions.
func (v bundleVersions) config(c *config.Config) policy.Config {
	load := policy.Config{Paths: c.Policies}
	for _, name := range slices.Sorted(maps.Keys(v)) {
		if v[name].bundle == nil {
			load.Waiting = append(load.Waiting, name)
		} else {
			load.Bundles = append(load.Bundles, v[name].bundle)
		}
	}
	return load
}

// of returns the versions that a configuration is applied with, and changes nothing. What was not fetched yet is taken from where it is kept,
// or fetched. Only at a start may one be missing: later, what is served is better than that.
func (b *bundles) of(ctx context.Context, c *config.Config) (bundleVersions, error) {
	b.mu.Lock()
	current, start := maps.Clone(b.current), b.current == nil
	b.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, fetchAtOnce)
	defer cancel()
	found, faults := make([]*bundleVersion, len(c.Bundles)), make([]error, len(c.Bundles))
	var group errgroup.Group
	for i, from := range c.Bundles {
		group.Go(func() error {
			found[i], faults[i] = b.obtain(ctx, from, current[from.Name])
			if faults[i] != nil && start && from.File == "" {
				found[i], faults[i] = &bundleVersion{from: from, by: found[i].by, missing: faults[i]}, nil
			}
			if faults[i] != nil {
				faults[i] = fmt.Errorf("%s: bundles[%s]: %w", c.Path, from.Name, faults[i])
			}
			return nil
		})
	}
	_ = group.Wait() // the errors are in faults
	all := bundleVersions{}
	for i, v := range found {
		all[c.Bundles[i].Name] = v
	}
	return all, errors.Join(faults...)
}

// obtain returns a version of one bundle: the current one if it is still from the same place and verified with the same key, else the one that
// is kept, else a new one. With an error, it has only what the version would have been verified with.
func (b *bundles) obtain(ctx context.Context, from config.Bundle, current *bundleVersion) (*bundleVersion, error) {
	v := bundleVersion{from: from}
	verification, err := verification(from, &v.by)
	if err != nil {
		return &v, err
	}
	if from.File != "" {
		return b.fromFile(v, verification, current)
	}
	if current != nil && current.by == v.by {
		v = *current
		v.from = from
		return &v, nil
	}
	if archive, err := bundle.Kept(b.dir, v.kept()); err == nil {
		if v.bundle, err = policy.ReadBundle(from.Name, archive, verification); err == nil {
			return &v, nil
		}
		b.log.Warn("the bundle that was kept is not used", "bundle", from.Name, "cause", err.Error())
	}
	source, err := bundle.NewSource(from)
	if err != nil {
		return &v, err
	}
	if v.archive, v.etag, err = source.Fetch(ctx, ""); err != nil {
		return &v, err
	}
	v.bundle, err = policy.ReadBundle(from.Name, v.archive, verification)
	return &v, err
}

// fromFile reads a bundle that is a file. Its edits come as changes of the configuration.
func (b *bundles) fromFile(v bundleVersion, verification *policy.Verification, current *bundleVersion) (*bundleVersion, error) {
	archive, err := os.ReadFile(v.from.File)
	if err != nil {
		return &v, err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(archive))
	if current != nil && current.by == v.by && current.bundle != nil && current.bundle.Sum() == sum {
		v.bundle = current.bundle
		return &v, nil
	}
	v.bundle, err = policy.ReadBundle(v.from.Name, archive, verification)
	if err != nil {
		err = fmt.Errorf("%s %w", v.from.File, err)
	}
	return &v, err
}

// verification reads the key of a bundle, and says in by what makes a version of the bundle another one's: its place, and the key.
func verification(from config.Bundle, by *string) (*policy.Verification, error) {
	h := sha256.New()
	defer func() { *by = fmt.Sprintf("%x", h.Sum(nil)[:8]) }()
	fmt.Fprintf(h, "%q %q\n", from.URL, from.File)
	if from.Signing == nil {
		return nil, nil
	}
	key, err := os.ReadFile(from.Signing.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("signing.key_file: %w", err)
	}
	fmt.Fprintf(h, "%q %q %q\n", from.Signing.Algorithm, from.Signing.Scope, key)
	return &policy.Verification{Key: key, Algorithm: from.Signing.Algorithm, Scope: from.Signing.Scope}, nil
}

// kept are the names that versions are kept under.
func (v bundleVersions) kept() (names []string) {
	for _, one := range v {
		names = append(names, one.kept())
	}
	return names
}

// kept is the name that the version is kept under.
func (v *bundleVersion) kept() string { return v.from.Name + "-" + v.by }

// adopt makes versions the current ones, which are applied, and keeps what is new.
func (b *bundles) adopt(all bundleVersions) {
	for name, v := range all {
		if v.archive == nil || v.from.File != "" {
			continue
		}
		if err := bundle.Keep(b.dir, v.kept(), v.archive); err != nil {
			b.log.Error("a start without the bundle's server would use an older one", "bundle", name, "cause", err.Error())
			continue
		}
		kept := *v
		kept.archive = nil
		all[name] = &kept
	}
	if err := bundle.Prune(b.dir, all.kept()); err != nil {
		b.log.Warn("bundles that are not used are left", "cause", err.Error())
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	replaced := b.current
	b.current = maps.Clone(all)
	for name, v := range all {
		if waits := b.next[name]; waits != nil && (waits.by != v.by || waits.bundle == v.bundle) {
			delete(b.next, name)
		}
		b.note(name, v, replaced[name])
	}
	for name := range b.status {
		if all[name] == nil {
			delete(b.status, name)
			delete(b.next, name)
		}
	}
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// note updates the status of a bundle to the version that is applied. b.mu is held.
func (b *bundles) note(name string, v, before *bundleVersion) {
	s := b.status[name]
	if s == nil {
		s = &admin.Bundle{Name: name}
		b.status[name] = s
	}
	s.Waiting = v.bundle == nil
	switch {
	case v.missing != nil:
		s.LastError = v.missing.Error()
		if before == nil {
			b.log.Error("the bundle is not there: routes that need it answer 503 until it is", "bundle", name, "cause", s.LastError)
		}
	case before == nil || before.bundle == nil || before.bundle.Sum() != v.bundle.Sum():
		s.Revision, s.Sum, s.ETag, s.LastError = v.bundle.Revision(), v.bundle.Sum(), v.etag, ""
		s.LastSuccess = time.Now()
		b.log.Info("the bundle is applied", "bundle", name, "revision", s.Revision, "sum", short(s.Sum))
	}
}

// report is the status of every bundle, by name.
func (b *bundles) report() (list []admin.Bundle) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(b.status)) {
		list = append(list, *b.status[name])
	}
	return list
}

// fresh says whether a version was fetched for this change and never applied, so that a start can do without it.
func (v bundleVersions) fresh() bool {
	for _, one := range v {
		if one.archive != nil {
			return true
		}
	}
	return false
}

// without are the versions with those that are fresh missing, for the reason why they cannot be applied.
func (v bundleVersions) without(cause error) bundleVersions {
	rest := maps.Clone(v)
	for name, one := range v {
		if one.archive != nil {
			rest[name] = &bundleVersion{from: one.from, by: one.by, missing: cause}
		}
	}
	return rest
}

// offlineBundles returns what a command loads of a configuration that no running program is asked about, and what is missing.
func offlineBundles(ctx context.Context, c *config.Config) (load policy.Config, warnings []string, err error) {
	all, err := newBundles(c.DataDir, slog.New(slog.DiscardHandler)).of(ctx, c)
	if err != nil {
		return policy.Config{}, nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if missing := all[name].missing; missing != nil {
			warnings = append(warnings, fmt.Sprintf("bundles[%s]: policies that need it are not checked, because it is not there: %s", name, strings.TrimSpace(missing.Error())))
		}
	}
	return all.config(c), warnings, nil
}

// same says whether a poller of one serves the other.
func same(a, b config.Bundle) bool { return reflect.DeepEqual(a, b) }
