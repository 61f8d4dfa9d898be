package main

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"doorward/authz/bundle"
	"doorward/authz/config"
	"doorward/authz/policy"
)

// run asks the servers for every current bundle until ctx ends.
func (b *bundles) run(ctx context.Context) error {
	type poller struct {
		from config.Bundle
		by   string
		stop context.CancelFunc
	}
	running := map[string]poller{}
	var group sync.WaitGroup
	defer group.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.changed:
		}
		b.mu.Lock()
		current := maps.Clone(b.current)
		b.mu.Unlock()
		for name, p := range running {
			if v := current[name]; v == nil || v.by != p.by || !same(v.from, p.from) {
				p.stop()
				delete(running, name)
			}
		}
		for name, v := range current {
			if _, runs := running[name]; runs || v.from.File != "" {
				continue
			}
			inner, stop := context.WithCancel(ctx)
			running[name] = poller{v.from, v.by, stop}
			group.Go(func() { b.poll(inner, v.from) })
		}
	}
}

// poll asks one server again and again. After a failure it asks sooner at first, and then as often as it would anyhow.
func (b *bundles) poll(ctx context.Context, from config.Bundle) {
	source, err := bundle.NewSource(from)
	if err != nil {
		b.failed(from.Name, err)
		return
	}
	every := time.Duration(from.Poll)
	for failures, wait := 0, time.Duration(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(jitter(wait)):
		}
		wait = every
		if err := b.ask(ctx, source, from); err == nil {
			failures = 0
		} else if ctx.Err() == nil {
			b.failed(from.Name, err)
			wait = min(every, time.Second<<min(failures, 20))
			failures++
		}
	}
}

// jitter spreads what many would otherwise do at once: a tenth more or less, and at least a part of a second.
func jitter(wait time.Duration) time.Duration {
	return time.Duration(float64(wait)*(0.9+0.2*rand.Float64())) + time.Duration(rand.Int64N(int64(200*time.Millisecond)))
}

// ask fetches a bundle. A new one that is good waits to be applied.
func (b *bundles) ask(ctx context.Context, source *bundle.Source, from config.Bundle) error {
	b.mu.Lock()
	current := b.current[from.Name]
	b.mu.Unlock()
	if current == nil {
		return nil // the configuration has just changed
	}
	archive, etag, err := source.Fetch(ctx, current.etag)
	if errors.Is(err, bundle.ErrNotModified) {
		b.succeeded(from.Name, current.etag)
		return nil
	}
	if err != nil {
		return err
	}
	v := bundleVersion{from: from, archive: archive, etag: etag}
	verification, err := verification(from, &v.by)
	if err != nil {
		return err
	}
	if v.bundle, err = policy.ReadBundle(from.Name, archive, verification); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch now := b.current[from.Name]; {
	case now == nil || now.by != v.by:
	case now.bundle != nil && now.bundle.Sum() == v.bundle.Sum():
		kept := *now
		kept.etag = etag
		b.current[from.Name] = &kept
		b.success(from.Name, etag)
	default:
		b.next[from.Name] = &v
	}
	return nil
}

func (b *bundles) succeeded(name, etag string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.success(name, etag)
}

// success notes that the server has what is applied. b.mu is held.
func (b *bundles) success(name, etag string) {
	if s := b.status[name]; s != nil {
		s.LastSuccess, s.LastError, s.ETag = time.Now(), "", etag
	}
}

// failed notes why there is no new version, and logs what is not in the log already.
func (b *bundles) failed(name string, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.next, name)
	s := b.status[name]
	if s == nil || s.LastError == err.Error() {
		return
	}
	s.LastError = err.Error()
	b.log.Error("the bundle is not renewed, what was applied stays", "bundle", name, "cause", s.LastError)
}

// waiting are the new versions that are to be applied.
func (b *bundles) waiting() bundleVersions {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.next) == 0 {
		return nil
	}
	return maps.Clone(b.next)
}

// with are the current versions with others in the place of some of them.
func (b *bundles) with(next bundleVersions) bundleVersions {
	b.mu.Lock()
	defer b.mu.Unlock()
	all := maps.Clone(b.current)
	maps.Copy(all, next)
	return all
}
