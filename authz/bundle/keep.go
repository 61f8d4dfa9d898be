package bundle

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"doorward/authz/config"
)

// path is where the last good archive of a bundle is kept. A name is a file's name (config.Bundle).
func path(dir, name string) string { return filepath.Join(dir, name+suffix) }

const suffix = ".tar.gz"

// Keep writes an archive in the place of the one that is kept, whole or not at all.
func Keep(dir, name string, archive []byte) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep the bundle %s: %w", name, err)
	}
	f, err := os.CreateTemp(dir, ".new-*")
	if err != nil {
		return fmt.Errorf("keep the bundle %s: %w", name, err)
	}
	_, err = f.Write(archive)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path(dir, name))
	}
	if err != nil {
		return fmt.Errorf("keep the bundle %s: %w", name, errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}

// Kept returns the archive that is kept; the error is os.ErrNotExist when there is none.
func Kept(dir, name string) ([]byte, error) {
	f, err := os.Open(path(dir, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	archive, err := io.ReadAll(io.LimitReader(f, config.MaxBundle+1))
	if err == nil && len(archive) > config.MaxBundle {
		err = fmt.Errorf("%s is larger than %d MiB", f.Name(), config.MaxBundle>>20)
	}
	return archive, err
}

// Prune removes the archives that are kept under other names.
func Prune(dir string, names []string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if name, archive := strings.CutSuffix(e.Name(), suffix); archive && !slices.Contains(names, name) {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
