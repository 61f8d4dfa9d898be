package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"go.yaml.in/yaml/v4"
)

// document is one parsed YAML file.
type document struct {
	file string
	root *yaml.Node
	// faulty names the fields whose value was not understood. Their problem is reported already; what follows from it is not.
	faulty map[slot]bool
}

// slot is a key of a mapping, or an index of a list.
type slot struct {
	parent *yaml.Node
	key    string
}

// parse reads exactly one YAML document.
func parse(file string, data []byte) (*document, *Problem) {
	doc := &document{file: file, faulty: make(map[slot]bool)}
	var root, second yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(data))
	if err == nil {
		err = load(loader, &root)
	}
	if errors.Is(err, io.EOF) {
		return nil, doc.syntax(1, 1, "the file is empty; if that is meant, write: routes: []")
	}
	if err != nil {
		return nil, doc.broken(err)
	}
	switch err := load(loader, &second); {
	case err == nil:
		return nil, doc.syntax(second.Line, second.Column, "a second YAML document begins here; write one document to a file")
	case !errors.Is(err, io.EOF):
		return nil, doc.broken(err)
	}
	if root.Kind != yaml.DocumentNode || len(root.Content) != 1 {
		return nil, doc.syntax(1, 1, "the file holds no YAML document")
	}
	doc.root = root.Content[0]
	return doc, nil
}

// load reads the next document. The parser reports what it cannot read as errors; should it ever panic on a file, then that file is
// refused like any other that cannot be read, because a mistake in a file must not end a running program.
func load(loader *yaml.Loader, into *yaml.Node) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("the YAML parser gave up: %v", v)
		}
	}()
	return loader.Load(into)
}

// broken turns the parser's error into a problem at its position.
func (d *document) broken(err error) *Problem {
	var located *yaml.LoadError
	if errors.As(err, &located) {
		return d.syntax(max(1, located.Mark.Line), max(1, located.Mark.Column), "not YAML: "+located.Message)
	}
	return d.syntax(1, 1, "not YAML: "+err.Error())
}

func (d *document) syntax(line, column int, message string) *Problem {
	return &Problem{Position: Position{File: d.file, Line: line, Column: column}, Message: message}
}

// place is a field of a document, whether it is there or not.
type place struct {
	doc     *document
	node    *yaml.Node // the field's value, or of a field that is not there the nearest value around it
	field   string     // "routes[grafana].from"
	absent  bool
	excused bool // lies in a field whose value was not understood
}

func (d *document) place() place { return place{doc: d, node: d.root} }

// position is where the field's value begins, or what is around it when it is not there.
func (p place) position() Position {
	return Position{File: p.doc.file, Line: p.node.Line, Column: p.node.Column}
}

// key is the field of a mapping.
func (p place) key(name string) place {
	parent := target(p.node)
	q := p
	q.excused = p.excused || p.doc.faulty[slot{parent, name}]
	q.absent = true
	q.field = join(p.field, name)
	if p.absent || parent.Kind != yaml.MappingNode {
		return q
	}
	for i := 0; i+1 < len(parent.Content); i += 2 {
		if target(parent.Content[i]).Value == name {
			q.node, q.absent = parent.Content[i+1], false
			break
		}
	}
	return q
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

// orItem is the element of a list, or the value itself where it stands in place of a list of one.
func (p place) orItem(i int) place {
	if !p.absent && target(p.node).Kind == yaml.SequenceNode {
		return p.item(i)
	}
	return p
}

// has says whether a mapping has a key, be its value good or bad.
func (p place) has(name string) bool {
	q := p.key(name)
	return !q.absent || q.excused
}

// item is an element of a list. It is called by its name if it has one, so that a problem names the route.
func (p place) item(i int) place {
	parent := target(p.node)
	label := strconv.Itoa(i)
	q := p
	q.excused = p.excused || p.doc.faulty[slot{parent, label}]
	q.absent = true
	if !p.absent && parent.Kind == yaml.SequenceNode && i < len(parent.Content) {
		q.node, q.absent = parent.Content[i], false
		if name := q.key("name"); !name.absent && routeName.MatchString(target(name.node).Value) {
			label = target(name.node).Value
		}
	}
	q.field += "[" + label + "]"
	return q
}

// target follows an alias to what it stands for.
func target(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}
