package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/loader/filter"
)

// Bounds of a bundle, unpacked.
const (
	maxUnpacked = 128 << 20 // bytes, of all files
	maxEntries  = 5000
	maxBundled  = 32 << 20 // bytes of one file
)

// bundled is one file of a bundle.
type bundled struct {
	name string // as in the archive: signatures name it so
	path string // without what stands for the top before it
	data []byte
}

// unpack reads a gzipped tar archive. Nothing of it is written anywhere; what could only be there to be extracted elsewhere is refused all
// the same, as are two files of one name, of which it would not be clear which was signed.
func unpack(archive []byte) (entries []bundled, err error) {
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return nil, fmt.Errorf("is no gzipped archive: %w", err)
	}
	zipped.Multistream(false)
	limited := &io.LimitedReader{R: zipped, N: maxUnpacked}
	files, seen, total := tar.NewReader(limited), map[string]bool{}, int64(0)
	tooLarge := fmt.Errorf("comes to more than %d MiB unpacked", maxUnpacked>>20)
	for {
		header, err := files.Next()
		if errors.Is(err, io.EOF) && limited.N > 0 {
			break
		}
		if limited.N <= 0 {
			return nil, tooLarge
		}
		if err != nil {
			return nil, fmt.Errorf("is no whole archive: %w", err)
		}
		if header.Typeflag == tar.TypeDir || header.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		if total += max(header.Size, 0); total > maxUnpacked { // holes of a sparse file are in no stream
			return nil, tooLarge
		}
		e, err := newBundled(header, files)
		if limited.N <= 0 {
			return nil, tooLarge
		}
		if err != nil {
			return nil, err
		}
		if seen[e.path] {
			return nil, fmt.Errorf("holds %s twice", e.path)
		}
		if seen[e.path] = true; len(seen) > maxEntries {
			return nil, fmt.Errorf("holds more than %d files", maxEntries)
		}
		entries = append(entries, e)
	}
	// The checksum of gzip stands at the end: an archive that is cut there is not whole.
	if _, err := io.Copy(io.Discard, limited); err != nil {
		return nil, fmt.Errorf("is no whole archive: %w", err)
	}
	if limited.N <= 0 {
		return nil, tooLarge
	}
	return entries, nil
}

func newBundled(header *tar.Header, content io.Reader) (bundled, error) {
	e := bundled{name: header.Name, path: strings.TrimPrefix(strings.TrimPrefix(header.Name, "./"), "/")}
	switch {
	case header.Typeflag != tar.TypeReg:
		return e, fmt.Errorf("holds %q, which is no plain file", printed(header.Name))
	case e.path != path.Clean(e.path) || path.IsAbs(e.path) || strings.ContainsAny(e.path, "\\\x00") || strings.HasPrefix(e.path, "..") || !utf8.ValidString(e.path):
		return e, fmt.Errorf("holds %q, whose name is no plain path", printed(header.Name))
	case hidden(path.Dir(e.path)):
		return e, fmt.Errorf("holds %q, which is in a hidden directory", printed(header.Name))
	case header.Size > maxBundled:
		return e, fmt.Errorf("holds %s with %d bytes; a file may have %d", e.path, header.Size, maxBundled)
	}
	var err error
	if e.data, err = io.ReadAll(content); err != nil {
		return e, fmt.Errorf("is no whole archive: %w", err)
	}
	return e, nil
}

// hidden says whether the name of a directory begins with a dot. OPA drops those dots at the top and keeps others.
func hidden(dir string) bool {
	for segment := range strings.SplitSeq(dir, "/") {
		if segment != "." && strings.HasPrefix(segment, ".") {
			return true
		}
	}
	return false
}

// printed bounds a name that is repeated in an error.
func printed(name string) string {
	const most = 200
	if len(name) > most {
		return name[:most] + "..."
	}
	return name
}

// bundledLoader gives OPA's reader the entries that unpack has bounded. It is a bundle.DirectoryLoader.
type bundledLoader struct{ left []bundled }

func (l *bundledLoader) NextFile() (*bundle.Descriptor, error) {
	if len(l.left) == 0 {
		return nil, io.EOF
	}
	e := l.left[0]
	l.left = l.left[1:]
	return bundle.NewDescriptor(e.name, e.name, bytes.NewReader(e.data)), nil
}

func (l *bundledLoader) WithFilter(filter.LoaderFilter) bundle.DirectoryLoader   { return l }
func (l *bundledLoader) WithPathFormat(bundle.PathFormat) bundle.DirectoryLoader { return l }
func (l *bundledLoader) WithSizeLimitBytes(int64) bundle.DirectoryLoader         { return l }
func (l *bundledLoader) WithFollowSymlinks(bool) bundle.DirectoryLoader          { return l }
