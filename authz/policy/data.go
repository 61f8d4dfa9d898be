package policy

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"doorward/authz/config"
)

// maxDocuments bounds how many data documents there may be.
const maxDocuments = 1000

// documents are the data documents: what rules read below `data` where no rule is. It is filled by add, and not changed after seal.
type documents struct {
	root  any // map[string]any, merged of all files; nil once sealed
	files []dataFile
	left  int               // values that may be added
	value ast.Object        // set by seal
	other map[string]string // JSON and YAML files that are not read, by their names without extension
	sums  map[string][sha256.Size]byte
}

// dataFile is one document with the place that it is read at.
type dataFile struct {
	name  string // as it is named in errors
	path  []string
	text  []byte
	value any
}

func newDocuments() *documents {
	return &documents{root: map[string]any{}, left: config.MaxDataValues, other: map[string]string{}, sums: map[string][sha256.Size]byte{}}
}

// add parses a file and merges it in, at a path. Objects are merged; nothing else may be given twice.
func (d *documents) add(name string, path []string, text []byte) config.Problems {
	if len(d.files) == maxDocuments {
		return config.Problems{problem(name, fmt.Sprintf("there are more than %d data documents; put more into each", maxDocuments))}
	}
	value, n, err := config.ParseData(name, text, d.left)
	if err != nil {
		return err.(config.Problems)
	}
	d.left -= n
	return d.merge(dataFile{name, path, text, value})
}

// merge adds what was parsed.
func (d *documents) merge(f dataFile) config.Problems {
	if _, object := f.value.(map[string]any); !object && len(f.path) == 0 {
		return config.Problems{problem(f.name, "must be an object, since it is `data` itself; put it into a directory with the name that it is to have")}
	}
	if len(f.path) > 0 && f.path[0] == libraryRoot || len(f.path) == 0 && f.value.(map[string]any)[libraryRoot] != nil {
		return config.Problems{{Position: f.position([]string{libraryRoot}), Message: fmt.Sprintf("data.%s is the library's; choose another name", libraryRoot)}}
	}
	added := f.value
	for _, name := range slices.Backward(f.path) {
		added = map[string]any{name: added}
	}
	var problems config.Problems
	d.root = union(d.root, added, nil, func(path []string) {
		message := fmt.Sprintf("%s is in %s too; keep one of them", dataRef(path), d.position(path))
		problems = append(problems, config.Problem{Position: f.position(path), Message: message})
	})
	d.files = append(d.files, f)
	return problems
}

// union is both objects in one, without changing them. What is in both and is no object is reported, and stays as it was in a.
func union(a, b any, path []string, conflict func([]string)) any {
	x, first := a.(map[string]any)
	y, second := b.(map[string]any)
	if !first || !second {
		conflict(slices.Clone(path))
		return a
	}
	merged := maps.Clone(x)
	for _, name := range slices.Sorted(maps.Keys(y)) {
		if old, both := x[name]; both {
			merged[name] = union(old, y[name], append(path, name), conflict)
		} else {
			merged[name] = y[name]
		}
	}
	return merged
}

// position is where a path of `data` stands in the file.
func (f *dataFile) position(path []string) config.Position {
	if f.text == nil {
		return config.Position{File: f.name}
	}
	return config.DataPosition(f.name, f.text, path[min(len(path), len(f.path)):])
}

// position is where the value at a path was given first.
func (d *documents) position(path []string) config.Position {
	for i := range d.files {
		f := &d.files[i]
		if len(path) < len(f.path) {
			if slices.Equal(path, f.path[:len(path)]) {
				return config.Position{File: f.name}
			}
		} else if slices.Equal(path[:len(f.path)], f.path) && has(f.value, path[len(f.path):]) {
			return f.position(path)
		}
	}
	return config.Position{}
}

// inside says whether the documents give something at a path, above it or below it, other than objects on the way to it; and where.
func (d *documents) inside(path []string) (config.Position, bool) {
	for i := range d.files {
		f := &d.files[i]
		if n := min(len(path), len(f.path)); !slices.Equal(path[:n], f.path[:n]) {
			continue
		}
		v, rest := f.value, path[min(len(path), len(f.path)):]
		for len(rest) > 0 {
			object, ok := v.(map[string]any)
			if !ok {
				break
			}
			if v, ok = object[rest[0]]; !ok {
				break
			}
			rest = rest[1:]
		}
		if object, ok := v.(map[string]any); v != nil && (!ok || len(rest) == 0 && len(object) > 0) {
			return f.position(path[:len(path)-len(rest)]), true
		}
	}
	return config.Position{}, false
}

// has says whether an object, or an object in it, has the path.
func has(v any, path []string) bool {
	for _, name := range path {
		object, _ := v.(map[string]any)
		inner, ok := object[name]
		if !ok {
			return false
		}
		v = inner
	}
	return true
}

// seal turns what was added into values that evaluations share without copying.
func (d *documents) seal() error {
	value, err := ast.InterfaceToValue(d.root)
	if err != nil {
		return err
	}
	d.value, d.root = value.(ast.Object), nil
	return nil
}

// at follows a reference from `data` into the documents, as far as its terms are names of an object's members. It returns the value where
// that ends, and how many terms of the reference led there. The value is nil when the next name is not there.
func (d *documents) at(ref ast.Ref) (ast.Value, int) {
	var v ast.Value = d.value
	for i, t := range ref[1:] {
		object, ok := v.(ast.Object)
		if _, name := t.Value.(ast.String); !ok || !name {
			return v, i + 1
		}
		member := object.Get(t)
		if member == nil {
			return nil, i + 1
		}
		v = member.Value
	}
	return v, len(ref)
}

// lacks says whether the documents have nothing at a reference, whatever its variables are and however long their lists.
func (d *documents) lacks(ref ast.Ref) bool {
	v, n := d.at(ref)
	if v == nil || n == len(ref) {
		return v == nil
	}
	switch v.(type) {
	case ast.Object:
		return false
	case *ast.Array:
		_, name := ref[n].Value.(ast.String)
		return name
	}
	return true // nothing can be looked up in it
}

// names are the members of the object at a reference, for what was meant by one that is not there.
func (d *documents) names(ref ast.Ref) (names []string) {
	v, n := d.at(ref)
	object, ok := v.(ast.Object)
	if !ok || n < len(ref) || object.Len() > 1000 {
		return nil
	}
	object.Foreach(func(k, _ *ast.Term) { names = append(names, ref.Append(k).String()) })
	return names
}

// unread says that a file has the name of what a reference does not find, and is not read; "" when there is none.
func (d *documents) unread(ref ast.Ref) string {
	name, _ := ref[len(ref)-1].Value.(ast.String)
	if file := d.other[string(name)]; file != "" {
		return fmt.Sprintf("; %s is not read: only files named data.json, data.yaml and data.yml are", file)
	}
	return ""
}

// sum is a hash of the content at a reference, however the files write it; the same for documents that have nothing there.
func (d *documents) sum(ref ast.Ref) [sha256.Size]byte {
	v, n := d.at(ref)
	name := ref[:n].String()
	if v == nil {
		return [sha256.Size]byte{}
	}
	sum, known := d.sums[name]
	if !known {
		h := sha256.New()
		w := hasher{bufio.NewWriter(h)}
		w.value(v)
		_ = w.Flush() // to a hash, which takes everything
		h.Sum(sum[:0])
		d.sums[name] = sum
	}
	return sum
}

// hasher writes values so that different ones are different bytes: a kind, a length, the content.
type hasher struct{ *bufio.Writer }

func (h hasher) value(v ast.Value) {
	switch v := v.(type) {
	case ast.Object:
		fmt.Fprintf(h, "o%d:", v.Len())
		v.Foreach(func(k, e *ast.Term) { h.value(k.Value); h.value(e.Value) })
	case *ast.Array:
		fmt.Fprintf(h, "a%d:", v.Len())
		v.Foreach(func(e *ast.Term) { h.value(e.Value) })
	case ast.String:
		fmt.Fprintf(h, "s%d:%s", len(v), string(v))
	default:
		text := v.String()
		fmt.Fprintf(h, "v%d:%s", len(text), text)
	}
}

// conflicts finds rules where documents are: either would hide the other.
func (d *documents) conflicts(c *ast.Compiler) (problems config.Problems) {
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			path := constant(r.Ref())
			if v, n := d.at(path); v != nil {
				message := fmt.Sprintf("the rule %s is where %s has %s; move one of them", path, d.position(segments(path[:n])), path[:n])
				problems = append(problems, config.Problem{Position: position(r.Location), Message: message})
			}
		}
	}
	return problems
}

// constant is the beginning of a reference to `data` whose terms are names.
func constant(ref ast.Ref) ast.Ref {
	n := 1
	for n < len(ref) {
		if _, name := ref[n].Value.(ast.String); !name {
			break
		}
		n++
	}
	return ref[:n]
}

// segments are the names of a reference that is constant, without `data`.
func segments(ref ast.Ref) []string {
	names := make([]string, 0, len(ref))
	for _, t := range ref[1:] {
		names = append(names, string(t.Value.(ast.String)))
	}
	return names
}

// dataRef is a path of `data` as a reference.
func dataRef(path []string) ast.Ref {
	ref := ast.Ref{ast.DefaultRootDocument}
	for _, name := range path {
		ref = append(ref, ast.StringTerm(name))
	}
	return ref
}
