package policy

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"doorward/authz/config"
	"doorward/policies"
)

// source is one Rego file.
type source struct {
	file    string // as it is named in errors
	text    string
	library bool   // shipped in the binary
	real    string // the file that its name leads to
	bundle  string // that holds it; "" for files
}

// corpus is all that is compiled together.
type corpus struct {
	sources   []source
	documents *documents
	bundles   []*Bundle
	waiting   []string // bundles that are not there yet
}

// maxSource bounds one policy file, so that a path given by mistake (a log, a device) is an error and not an exhausted memory.
const maxSource = 1 << 20

// read returns everything that a configuration names, each file once, and the library.
func read(c Config) (*corpus, config.Problems) {
	r := newReader(false)
	for _, path := range c.Paths {
		r.path(path, nil, true)
	}
	r.join(c.Bundles)
	r.library()
	if err := r.documents.seal(); err != nil {
		r.problem("", "the data documents cannot be used: %v", err)
	}
	r.bundles, r.waiting = c.Bundles, c.Waiting
	return &r.corpus, r.problems
}

// readTests returns the policies, tests among them, that paths name. Data documents are not read.
func readTests(paths []string) ([]source, config.Problems) {
	r := newReader(true)
	r.documents = nil
	for _, path := range paths {
		r.path(path, nil, true)
	}
	return r.sources, r.problems
}

type reader struct {
	corpus
	problems config.Problems
	tests    bool            // directories are searched for *_test.rego too
	seen     map[string]bool // resolved paths, so that a file reached twice is read once and a loop of links ends
}

func newReader(tests bool) *reader {
	return &reader{corpus: corpus{documents: newDocuments()}, tests: tests, seen: map[string]bool{}}
}

func (r *reader) problem(file string, format string, args ...any) {
	r.problems = append(r.problems, config.Problem{
		Position: config.Position{File: file},
		Message:  fmt.Sprintf(format, args...),
	})
}

// path reads a file or a directory. What is named in the configuration is read whatever its name; in a directory only *.rego and data
// documents are, without hidden entries (the folders of a Kubernetes volume are hidden and its files are links into them). Below are the
// names of the directories that lead there from the one that is named, which is the place of a data document.
func (r *reader) path(path string, below []string, named bool) {
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
		r.directory(path, below)
	case config.IsData(path), named && config.IsDocument(path):
		r.seen[resolved] = true
		if r.documents == nil {
			return
		}
		if text, ok := r.file(path, info, config.MaxSize(path)); ok {
			r.problems = append(r.problems, r.documents.add(path, below, text)...)
		}
	case named || r.wanted(path):
		r.seen[resolved] = true
		if text, ok := r.file(path, info, maxSource); ok {
			r.sources = append(r.sources, source{file: path, text: string(text), real: resolved})
		}
	}
}

func (r *reader) directory(path string, below []string) {
	entries, err := os.ReadDir(path)
	if err != nil {
		r.problem(path, "cannot be read: %v", unwrapPath(err))
		return
	}
	for _, e := range entries {
		name, inner := e.Name(), below
		if r.documents != nil && config.IsDocument(name) && !config.IsData(name) {
			r.documents.other[strings.TrimSuffix(name, filepath.Ext(name))] = filepath.Join(path, name)
		}
		if strings.HasPrefix(name, ".") || !(r.wanted(name) || config.IsData(name) || e.IsDir() || e.Type()&fs.ModeSymlink != 0) {
			continue
		}
		if info, err := os.Stat(filepath.Join(path, name)); err == nil && info.IsDir() {
			inner = append(slices.Clone(below), name)
		}
		r.path(filepath.Join(path, name), inner, false)
	}
}

func (r *reader) file(path string, info fs.FileInfo, limit int) (text []byte, ok bool) {
	if !info.Mode().IsRegular() {
		r.problem(path, "is not a regular file")
		return nil, false
	}
	if info.Size() > int64(limit) {
		r.problem(path, "has %d bytes; it may have %d", info.Size(), limit)
		return nil, false
	}
	text, err := os.ReadFile(path)
	if err != nil {
		r.problem(path, "cannot be read: %v", unwrapPath(err))
	}
	return text, err == nil
}

// library adds the files shipped in the binary. That they can be read is settled when the program is built.
func (r *reader) library() {
	err := fs.WalkDir(policies.Library, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !config.IsPolicy(path) {
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

// wanted says whether a file of a directory is compiled.
func (r *reader) wanted(name string) bool {
	return config.IsPolicy(name) || r.tests && config.IsTest(name)
}

// unwrapPath leaves out operation and path of an error that is shown beside its path.
func unwrapPath(err error) error {
	if pe, ok := err.(*fs.PathError); ok {
		return pe.Err
	}
	return err
}
