package policy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"doorward/authz/config"
	"doorward/policies"
)

// source is one Rego file.
type source struct {
	file    string // as it is named in errors
	text    string
	library bool // shipped in the binary
}

// maxSource bounds one file, so that a path given by mistake (a log, a device) is an error and not an exhausted memory.
const maxSource = 1 << 20

// readAll returns the files that the paths name, each once, and the library's.
func readAll(paths []string) ([]source, config.Problems) {
	r := &reader{seen: map[string]bool{}}
	for _, path := range paths {
		r.path(path, true)
	}
	r.library()
	return r.sources, r.problems
}

type reader struct {
	sources  []source
	problems config.Problems
	tests    bool            // directories are searched for *_test.rego too
	seen     map[string]bool // resolved paths, so that a file reached twice is read once and a loop of links ends
}

func (r *reader) problem(file string, format string, args ...any) {
	r.problems = append(r.problems, config.Problem{
		Position: config.Position{File: file},
		Message:  fmt.Sprintf(format, args...),
	})
}

// path reads a file or a directory. What is named in the configuration is read whatever its name; in a directory only *.rego is,
// without tests and hidden entries (the folders of a Kubernetes volume are hidden and its files are links into them).
func (r *reader) path(path string, named bool) {
	info, err := os.Stat(path)
	if err != nil {
		r.problem(path, "cannot be read: %v", unwrapPath(err))
		return
	}
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		resolved, err = filepath.Abs(resolved)
	}
	if err != nil {
		r.problem(path, "cannot be read: %v", unwrapPath(err))
		return
	}
	switch {
	case r.seen[resolved]:
	case info.IsDir():
		r.seen[resolved] = true
		r.directory(path)
	case named || r.wanted(path):
		r.seen[resolved] = true
		r.file(path, info)
	}
}

func (r *reader) directory(path string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		r.problem(path, "cannot be read: %v", unwrapPath(err))
		return
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && (r.wanted(e.Name()) || e.IsDir() || e.Type()&fs.ModeSymlink != 0) {
			r.path(filepath.Join(path, e.Name()), false)
		}
	}
}

func (r *reader) file(path string, info fs.FileInfo) {
	if !info.Mode().IsRegular() {
		r.problem(path, "is not a regular file")
		return
	}
	if info.Size() > maxSource {
		r.problem(path, "has %d bytes; a policy file may have %d", info.Size(), maxSource)
		return
	}
	text, err := os.ReadFile(path)
	if err != nil {
		r.problem(path, "cannot be read: %v", unwrapPath(err))
		return
	}
	r.sources = append(r.sources, source{file: path, text: string(text)})
}

// library adds the files shipped in the binary. That they can be read is settled when the program is built.
func (r *reader) library() {
	err := fs.WalkDir(policies.Library, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !isPolicy(path) {
			return err
		}
		text, err := fs.ReadFile(policies.Library, path)
		r.sources = append(r.sources, source{file: libraryFiles + path, text: string(text), library: true})
		return err
	})
	if err != nil {
		r.problem("library", "%v", err)
	}
}

// libraryFiles begins the names of the library's files in errors.
const libraryFiles = "library:"

func (r *reader) wanted(name string) bool { return isPolicy(name) || r.tests && isTest(name) }

func isPolicy(name string) bool { return strings.HasSuffix(name, ".rego") && !isTest(name) }

func isTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// unwrapPath leaves out operation and path of an error that is shown beside its path.
func unwrapPath(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}
