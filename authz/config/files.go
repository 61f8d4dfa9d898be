package config

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	// maxFile is how large one file may be, in bytes.
	maxFile = 4 << 20
	// maxEntries is how many files and directories one directory of policies may hold, with what is below it.
	maxEntries = 10_000
)

// files reads each file at most once, and remembers what was read: for Config.Files, Config.Checksum and the routes' revisions.
type files struct {
	read map[string]content
	dirs map[string]bool
}

type content struct {
	data []byte
	err  error
}

func newFiles() *files {
	return &files{read: make(map[string]content), dirs: make(map[string]bool)}
}

// file returns the content of a regular file. The error names the file and the remedy.
func (f *files) file(path string) ([]byte, error) {
	c, ok := f.read[path]
	if !ok {
		c.data, c.err = readFile(path)
		f.read[path] = c
	}
	return c.data, c.err
}

// readFile looks at what the path is before it opens it: opening a pipe would wait for its other end.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, pathError(path, err)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file; name a file", path)
	}
	in, err := os.Open(path)
	if err != nil {
		return nil, pathError(path, err)
	}
	defer in.Close()
	limit := MaxSize(path)
	data, err := io.ReadAll(io.LimitReader(in, int64(limit)+1))
	if err != nil {
		return nil, pathError(path, err)
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s is larger than %d MiB; split it or name another file", path, limit>>20)
	}
	return data, nil
}

// pathError says what is wrong with a path, without the name of the system call.
func pathError(path string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s does not exist; create it or correct the path", path)
	}
	var cause *fs.PathError
	if errors.As(err, &cause) {
		err = cause.Err
	}
	return fmt.Errorf("%s cannot be read: %w", path, err)
}

// list returns the sorted names in a directory, without hidden ones: the folders behind the links of a Kubernetes volume are hidden.
func (f *files) list(dir string) ([]string, error) {
	f.dirs[dir] = true
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, pathError(dir, err)
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// policies reads what a path of `policies` stands for: the file that it names, or all policies and data documents below the directory.
func (f *files) policies(path string) error {
	return f.walk(path, make(map[string]bool))
}

// walk follows links, to each directory once. A file is read under every name that leads to it.
func (f *files) walk(path string, seen map[string]bool) error {
	info, err := os.Stat(path)
	if err != nil {
		return pathError(path, err)
	}
	if !info.IsDir() {
		_, err := f.file(path)
		return err
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return pathError(path, err)
	}
	if seen[resolved] {
		return nil
	}
	if seen[resolved] = true; len(seen)+len(f.read) > maxEntries {
		return fmt.Errorf("%s belongs to more than %d files and directories of policies; name a directory that has only policies", path, maxEntries)
	}
	names, err := f.list(path)
	if err != nil {
		return err
	}
	for _, name := range names {
		below := filepath.Join(path, name)
		info, err := os.Stat(below)
		if err != nil && !isPart(name) {
			continue // a dangling link that is no policy
		}
		if isPart(name) || info != nil && info.IsDir() {
			if err := f.walk(below, seen); err != nil {
				return err
			}
		}
	}
	return nil
}

// isPart says whether a file of a directory of policies is read.
func isPart(name string) bool { return IsPolicy(name) || IsData(name) }

// names are all files and directories that were read, sorted.
func (f *files) names() []string {
	all := slices.Collect(maps.Keys(f.read))
	for dir := range f.dirs {
		all = append(all, dir)
	}
	slices.Sort(all)
	return all
}

// sum is a hash of some of the files that were read: of their names relative to dir, and of their content.
func (f *files) sum(dir string, paths []string) string {
	h := sha256.New()
	part := func(data []byte) {
		var size [8]byte
		binary.BigEndian.PutUint64(size[:], uint64(len(data)))
		h.Write(size[:])
		h.Write(data)
	}
	for _, path := range paths {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			name = path
		}
		part([]byte(name))
		part(f.read[path].data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// checksum is the sum of all files that were read.
func (f *files) checksum(dir string) string {
	return f.sum(dir, slices.Sorted(maps.Keys(f.read)))
}
