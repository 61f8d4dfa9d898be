package policy

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
)

// What OPA's Envoy plugin gives its policies as input.attributes: the fields of envoy.service.auth.v3.AttributeContext under their protojson
// names. Fields that have their default value are not there, as in the plugin.

// pseudoHeaders are among the headers there, because Envoy's own map of them has them.
var pseudoHeaders = []string{":authority", ":method", ":path", ":scheme"}

// attributesPlan says which parts of input.attributes to build.
type attributesPlan struct {
	parts      map[document][]string // of each document that is looked into, sorted
	asks       bool                  // more of `request` is read than Request has
	headers    []string              // when not all
	allHeaders bool
}

// newAttributesPlan returns nil when nothing of input.attributes is read.
func newAttributesPlan(s *readSet) *attributesPlan {
	if s.documents()&docAttributes == 0 {
		return nil
	}
	p := &attributesPlan{parts: map[document][]string{}, allHeaders: s.all&docHTTPHeaders != 0}
	for d := docAttributes; d < docEnd; d <<= 1 {
		p.parts[d] = s.list(d, closed[d])
	}
	if !p.allHeaders {
		p.headers = slices.Sorted(maps.Keys(s.parts[docHTTPHeaders]))
	}
	p.asks = slices.Contains(p.parts[docAttributesRequest], "time") ||
		slices.ContainsFunc(p.parts[docHTTP], func(name string) bool { _, own := ownAttribute(&Request{}, name); return !own && name != "headers" })
	return p
}

// ownAttribute is a part of attributes.request.http that Request has; false for the others.
func ownAttribute(r *Request, name string) (string, bool) {
	switch name {
	case "method":
		return r.Method, true
	case "path":
		return r.Target, true
	case "host":
		return r.Authority, true
	case "scheme":
		return r.Scheme, true
	}
	return "", false
}

// visitor takes the parts that are read, in the order of the plan.
type visitor interface {
	enter(name string) // a document that is there; its parts follow, up to leave
	leave(name string)
	value(name string, v any) // of a part, nil when it is undefined
}

// walk visits all that is read of the request's attributes. Key and input are made by the same walk, so that nothing can be in the one that is
// not in the other.
func (p *attributesPlan) walk(r *Request, v visitor) error {
	for _, name := range p.parts[docAttributes] {
		if name == "request" {
			v.enter(name)
			if err := p.walkRequest(r, v); err != nil {
				return err
			}
			v.leave(name)
			continue
		}
		part, err := r.attribute(name)
		if err != nil {
			return err
		}
		p.visit(docAttributes, name, orNothing(part), v)
	}
	return nil
}

// orNothing turns a map that is nil into no value.
func orNothing(m map[string]any) any {
	if m == nil {
		return nil
	}
	return m
}

func (p *attributesPlan) walkRequest(r *Request, v visitor) error {
	var from map[string]any
	if p.asks {
		var err error
		if from, err = r.attribute("request"); err != nil {
			return err
		}
	}
	for _, name := range p.parts[docAttributesRequest] {
		if name != "http" {
			v.value(name, from[name])
			continue
		}
		http, _ := from[name].(map[string]any)
		v.enter(name)
		p.walkHTTP(r, http, v)
		v.leave(name)
	}
	return nil
}

func (p *attributesPlan) walkHTTP(r *Request, from map[string]any, v visitor) {
	for _, name := range p.parts[docHTTP] {
		own, is := ownAttribute(r, name)
		switch {
		case name == "headers":
			v.enter(name)
			p.walkHeaders(r, v)
			v.leave(name)
		case is && own != "":
			v.value(name, own)
		case is:
			v.value(name, nil)
		default:
			v.value(name, from[name])
		}
	}
}

func (p *attributesPlan) walkHeaders(r *Request, v visitor) {
	names := p.headers
	if p.allHeaders {
		names = pseudoHeaders
		if r.Names != nil {
			names = append(r.Names(), pseudoHeaders...)
		}
	}
	for _, name := range names {
		if value, ok := r.envoyHeader(name); ok {
			v.value(name, value)
		} else {
			v.value(name, nil)
		}
	}
}

// envoyHeader is a header as Envoy's own map of them has it, with the pseudo-headers of HTTP/2.
func (r *Request) envoyHeader(name string) (string, bool) {
	var value string
	switch name {
	case ":authority":
		value = r.Authority
	case ":method":
		value = r.Method
	case ":path":
		value = r.Target
	case ":scheme":
		value = r.Scheme
	default:
		return r.header(name)
	}
	return value, value != ""
}

// visit passes on a part, or enters the document that it is and takes from it what is read.
func (p *attributesPlan) visit(d document, name string, x any, v visitor) {
	inner, is := nested[d][name]
	from, there := x.(map[string]any)
	switch {
	case !is:
		v.value(name, x)
	case !there:
		v.value(name, nil)
	default:
		v.enter(name)
		for _, part := range p.parts[inner] {
			p.visit(inner, part, from[part], v)
		}
		v.leave(name)
	}
}

func (r *Request) attribute(name string) (map[string]any, error) {
	if r.Attribute == nil {
		return nil, nil
	}
	part, err := r.Attribute(name)
	if err != nil {
		return nil, fmt.Errorf("input.attributes.%s: %w", name, err)
	}
	return part, nil
}

// build makes input.attributes.
func (p *attributesPlan) build(r *Request) (ast.Value, error) {
	b := &built{open: []ast.Object{ast.NewObject()}}
	if err := p.walk(r, b); err != nil {
		return nil, err
	}
	return b.open[0], b.err
}

// built is the value that a walk makes: the documents that are open, the innermost last.
type built struct {
	open []ast.Object
	err  error
}

func (b *built) enter(string) { b.open = append(b.open, ast.NewObject()) }

func (b *built) leave(name string) {
	last := len(b.open) - 1
	done := b.open[last]
	b.open = b.open[:last]
	insert(b.open[last-1], name, done)
}

func (b *built) value(name string, x any) {
	if x == nil {
		return
	}
	v, err := ast.InterfaceToValue(x)
	if err != nil {
		b.err = fmt.Errorf("input.attributes, %s: %w", name, err)
		return
	}
	insert(b.open[len(b.open)-1], name, v)
}

// keyed is what a walk adds to the cache's key. Names are in it because those of headers are the client's to choose.
type keyed struct {
	b   []byte
	err error
}

func (k *keyed) enter(name string) { k.b = appendText(append(k.b, '{'), name) }
func (k *keyed) leave(string)      { k.b = append(k.b, '}') }

func (k *keyed) value(name string, x any) {
	switch x := x.(type) {
	case nil:
		k.b = appendText(append(k.b, '-'), name)
	case string:
		k.b = appendText(appendText(append(k.b, 's'), name), x)
	default:
		text, err := json.Marshal(x) // names sorted
		if err != nil {
			k.err = err
		}
		k.b = appendText(appendText(append(k.b, 'j'), name), string(text))
	}
}

// pluginPaths lists what is read of the plugin's input, as paths below `input`.
func (s *readSet) pluginPaths() (paths []string) {
	for _, name := range pluginParts {
		if name != "attributes" && s.has(docInput, name) {
			paths = append(paths, name)
		}
	}
	if s.has(docInput, "attributes") {
		paths = s.paths(paths, docAttributes, "attributes")
	}
	slices.Sort(paths)
	return paths
}

// paths adds the parts of a document that are read, and of the documents in it.
func (s *readSet) paths(paths []string, d document, at string) []string {
	before := len(paths)
	for _, name := range s.list(d, closed[d]) {
		path := at + "." + name
		switch inner, is := nested[d][name]; {
		case inner == docHTTPHeaders:
			paths = append(paths, s.headerPaths(path)...)
		case is:
			paths = s.paths(paths, inner, path)
		default:
			paths = append(paths, path)
		}
	}
	if len(paths) == before {
		paths = append(paths, at) // whether it is there
	}
	return paths
}

func (s *readSet) headerPaths(at string) (paths []string) {
	if s.all&docHTTPHeaders != 0 {
		return []string{at}
	}
	for _, name := range slices.Sorted(maps.Keys(s.parts[docHTTPHeaders])) {
		paths = append(paths, fmt.Sprintf("%s[%q]", at, name))
	}
	return paths
}

// body says whether the request's body is read.
func (s *readSet) body() bool {
	return s.has(docInput, "parsed_body") || s.has(docInput, "truncated_body") || s.has(docHTTP, "body") || s.has(docHTTP, "rawBody")
}

// headers are the names of those that are read by name.
func (s *readSet) headers() []string {
	names := map[string]bool{}
	maps.Copy(names, s.parts[docHeaders])
	maps.Copy(names, s.parts[docHTTPHeaders])
	for _, name := range pseudoHeaders {
		delete(names, name)
	}
	if s.body() {
		for _, name := range bodyHeaders {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// namesPlugin says whether a rule holds the name of a part that only the plugin's input has, wherever that is.
func namesPlugin(r *ast.Rule) (found bool) {
	ast.WalkTerms(r, func(t *ast.Term) bool {
		if s, ok := t.Value.(ast.String); ok && slices.Contains(pluginParts, string(s)) {
			found = true
		}
		return found
	})
	return found
}
