package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"doorward/authz/config"
)

const (
	// pollEvery is how often the files are looked at. Looking, unlike a kernel's notifications, also sees changes behind symlinks,
	// single-file bind mounts and network file systems.
	pollEvery = 200 * time.Millisecond
	// retryEvery is how often a refused configuration is tried again: the fault may be mended in a file that it could not name.
	retryEvery = 2 * time.Second
	// renewEvery is how often the configuration is applied again as it is, so that certificates that are about to end are replaced.
	renewEvery = 6 * time.Hour
	// pollShare bounds the time spent looking to a fiftieth, where there is that much to look at; pollAtMost bounds what a machine that
	// stalls for a moment can make of that.
	pollShare  = 50
	pollAtMost = time.Second
)

// watch applies the configuration again whenever one of its files changes, once they have been still for one look, until ctx ends.
func (p *planes) watch(ctx context.Context, c *config.Config) error {
	r := reloader{planes: p, current: c, seen: c, files: c.Files(), tried: time.Now()}
	last, wait := r.applied, time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(max(pollEvery, wait)):
		}
		start := time.Now()
		r.follow()
		now := fingerprint(r.files)
		wait = min(pollAtMost, pollShare*time.Since(start))
		still := now == last
		last = now
		if still && (now != r.applied || r.failed && time.Since(r.tried) > retryEvery || time.Since(r.tried) > renewEvery) {
			r.reload(ctx, now)
		} else if next := r.bundles.waiting(); next != nil {
			r.renewBundles(ctx, next)
		} else if hosts := r.acme.Changed(); hosts != nil {
			r.renewCertificates(hosts)
		}
	}
}

// reloader remembers what the last attempt came to.
type reloader struct {
	*planes
	current *config.Config
	seen    *config.Config // planes.loaded, when last looked at
	files   []string
	applied uint64 // fingerprint of files when they were last read
	tried   time.Time
	failed  bool
	problem string // already in the log
}

// follow has the files looked at that a pushed route names, from when it is pushed.
func (r *reloader) follow() {
	r.mu.Lock()
	loaded := r.loaded
	r.mu.Unlock()
	if loaded == r.seen {
		return
	}
	r.seen, r.current = loaded, loaded
	if files := loaded.Files(); !slices.Equal(files, r.files) {
		r.files, r.applied = files, 0 // as in reload
	}
}

// reload reads the configuration and applies it if it differs. seen is the fingerprint from before, so that a change made meanwhile is
// noticed at the next look.
func (r *reloader) reload(ctx context.Context, seen uint64) {
	renew := time.Since(r.tried) > renewEvery
	r.applied, r.tried = seen, time.Now()
	r.turn.Lock()
	defer r.turn.Unlock()
	next, err := r.load(r.current.Path)
	r.read(err)
	if err == nil {
		if files := next.Files(); !slices.Equal(files, r.files) {
			r.files, r.applied = files, 0 // these have no fingerprint from before they were read: look again
		}
		if next.Checksum != r.current.Checksum || r.failed || renew {
			err = r.change(ctx, next)
		}
	}
	r.failed = err != nil
	if err == nil {
		r.current, r.problem = next, ""
	} else if r.problem != err.Error() {
		r.problem = err.Error()
		r.log.Error("the configuration is not served as it stands in the files", "config", r.current.Path, "cause", r.problem)
	}
}

// renewBundles applies bundles that were fetched, with the configuration that is served.
func (r *reloader) renewBundles(ctx context.Context, next bundleVersions) {
	if err := r.renew(ctx, next); err != nil {
		r.failed = true
		r.log.Error("the bundles are not served everywhere", "cause", err.Error())
	}
}

// fingerprint changes whenever one of the files, or of the files below one of the directories, does: its size, its time or the file that its
// name leads to.
func fingerprint(paths []string) uint64 {
	h := fnv.New64a()
	note := func(path string, info os.FileInfo, err error) {
		if err != nil {
			fmt.Fprintln(h, path, "missing")
			return
		}
		fmt.Fprintln(h, path, info.Size(), info.ModTime().UnixNano(), inode(info))
	}
	for _, path := range paths {
		info, err := os.Stat(path)
		note(path, info, err)
		if err != nil || !info.IsDir() {
			continue
		}
		_ = filepath.WalkDir(path, func(below string, _ fs.DirEntry, err error) error {
			if err != nil {
				fmt.Fprintln(h, below, "unreadable")
				return nil
			}
			info, err := os.Stat(below)
			note(below, info, err)
			return nil
		})
	}
	return h.Sum64()
}

// inode tells a file from another that took its name.
func inode(info os.FileInfo) uint64 {
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
