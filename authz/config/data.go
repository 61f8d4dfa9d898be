package config

import (
	"bytes"
	"encoding/json"
	"encoding/json/jsontext"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// Bounds of one data document, and of all of them together.
const (
	maxJSON       = 32 << 20 // bytes of a JSON document; a YAML document may have maxFile
	MaxDataValues = 2_000_000
	maxDataDepth  = 64
	maxNumber     = 64 // bytes of a number
)

// IsPolicy says whether a file of a policies directory is Rego to compile. Tests are not.
func IsPolicy(name string) bool { return strings.HasSuffix(name, ".rego") && !IsTest(name) }

// IsTest says whether a file holds tests of policies.
func IsTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// IsData says whether a file of a policies directory is a data document. The names are those that OPA reads in a bundle.
func IsData(name string) bool {
	switch path.Base(name) {
	case "data.json", "data.yaml", "data.yml":
		return true
	}
	return false
}

// IsDocument says whether a file holds JSON or YAML by its name. One that `policies` names is a data document whatever it is called.
func IsDocument(name string) bool { return isJSON(name) || isYAML(name) }

func isJSON(name string) bool { return strings.HasSuffix(name, ".json") }
func isYAML(name string) bool {
	return strings.HasSuffix(name, ".yaml") || strings.HasSuffix(name, ".yml")
}

// MaxSize is how large a file of that name may be, in bytes.
func MaxSize(name string) int {
	switch {
	case isJSON(name):
		return maxJSON
	case strings.HasSuffix(name, ".tar.gz"), strings.HasSuffix(name, ".tgz"):
		return MaxBundle
	}
	return maxFile
}

// ParseData reads a data document, JSON or YAML by the file's name, into map[string]any, []any, string, bool, json.Number and nil; numbers
// are as they are written. Refused are duplicate names, values that YAML 1.1 and 1.2 read differently, and more than limit values once aliases
// are written out. It returns how many values there are. The error is a Problems.
func ParseData(file string, text []byte, limit int) (value any, values int, err error) {
	r := dataReader{file: file, text: text, left: limit}
	if isJSON(file) {
		value, err = r.json()
	} else {
		value, err = r.yaml()
	}
	if err != nil {
		return nil, 0, err
	}
	return value, limit - r.left, nil
}

// DataPosition is where the value of a path stands in a data document that ParseData reads; the document's beginning if it is not there.
func DataPosition(file string, text []byte, path []string) Position {
	if isJSON(file) {
		return jsonPosition(file, text, path)
	}
	doc, problem := parse(file, text)
	if problem != nil {
		return problem.Position
	}
	at := doc.place()
	for _, name := range path {
		at = at.key(name)
	}
	return at.position()
}

type dataReader struct {
	file string
	text []byte
	left int
}

func (r *dataReader) problem(at Position, format string, args ...any) error {
	at.File = r.file
	return Problems{{Position: at, Message: oneLine(fmt.Sprintf(format, args...))}}
}

// enter counts a value before it is read.
func (r *dataReader) enter(depth int, at func() Position) error {
	if depth > maxDataDepth {
		return r.problem(at(), "is nested more than %d deep", maxDataDepth)
	}
	if r.left == 0 {
		return r.problem(at(), "the data documents come to more than %d values; use fewer aliases, or keep less in them", MaxDataValues)
	}
	r.left--
	return nil
}

// json reads exactly one value. The decoder refuses duplicate names and text that is not UTF-8.
func (r *dataReader) json() (any, error) {
	d := jsontext.NewDecoder(bytes.NewReader(r.text))
	value, err := r.jsonValue(d, 0)
	if err == nil {
		if _, end := d.ReadToken(); end == nil {
			err = r.problem(offset(r.text, d.InputOffset()), "something follows the document; write one value to a file")
		} else if !errors.Is(end, io.EOF) {
			err = end
		}
	}
	var syntax *jsontext.SyntacticError
	switch {
	case errors.As(err, &syntax):
		at := offset(r.text, syntax.ByteOffset)
		if errors.Is(err, jsontext.ErrDuplicateName) {
			return nil, r.problem(at, "duplicate name %q; remove one of them", shorten(syntax.JSONPointer.LastToken()))
		}
		return nil, r.problem(at, "not JSON: %s", syntax.Err)
	case errors.Is(err, io.EOF):
		return nil, r.problem(Position{Line: 1, Column: 1}, "the file is empty; write {} for no data")
	}
	return value, err
}

func (r *dataReader) jsonValue(d *jsontext.Decoder, depth int) (any, error) {
	t, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	at := func() Position { return offset(r.text, d.InputOffset()-1) }
	if err := r.enter(depth, at); err != nil {
		return nil, err
	}
	switch t.Kind() {
	case jsontext.KindNull:
		return nil, nil
	case jsontext.KindTrue, jsontext.KindFalse:
		return t.Bool(), nil
	case jsontext.KindString:
		return t.String(), nil
	case jsontext.KindNumber:
		return r.number(t.String(), at)
	case jsontext.KindBeginArray:
		list := []any{}
		for d.PeekKind() != jsontext.KindEndArray {
			v, err := r.jsonValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.ReadToken()
		return list, err
	}
	object := map[string]any{}
	for d.PeekKind() != jsontext.KindEndObject {
		name, err := d.ReadToken()
		if err != nil {
			return nil, err
		}
		key := name.String()
		if object[key], err = r.jsonValue(d, depth+1); err != nil {
			return nil, err
		}
	}
	_, err = d.ReadToken()
	return object, err
}

// number keeps a number as it is written. One with more digits, or a larger exponent, than anybody needs would cost its time at each
// comparison.
func (r *dataReader) number(text string, at func() Position) (any, error) {
	mantissa, exponent, _ := strings.Cut(strings.ToLower(text), "e")
	if len(mantissa) > maxNumber || len(strings.TrimLeft(exponent, "+-0")) > 3 {
		return nil, r.problem(at(), "the number %s has more digits than the %d allowed; write it as text", shorten(text), maxNumber)
	}
	return json.Number(text), nil
}

// offset turns a place in bytes into line and column.
func offset(text []byte, at int64) Position {
	before := text[:min(max(at, 0), int64(len(text)))]
	return Position{Line: 1 + bytes.Count(before, []byte("\n")), Column: len(before) - bytes.LastIndexByte(before, '\n')}
}

// jsonPosition reads up to the value of a path.
func jsonPosition(file string, text []byte, path []string) Position {
	d := jsontext.NewDecoder(bytes.NewReader(text))
	at := Position{File: file, Line: 1, Column: 1}
	for _, name := range path {
		if t, err := d.ReadToken(); err != nil || t.Kind() != jsontext.KindBeginObject {
			return at
		}
		for found := false; !found; {
			t, err := d.ReadToken()
			if err != nil || t.Kind() != jsontext.KindString {
				return at
			}
			if found = t.String() == name; !found && d.SkipValue() != nil {
				return at
			}
		}
	}
	end := d.InputOffset()
	if len(path) > 0 {
		quoted, _ := jsontext.AppendQuote(nil, path[len(path)-1]) // fails for text that is not UTF-8, and then is a little off
		at = offset(text, end-int64(len(quoted)))
		at.File = file
	}
	return at
}

func (r *dataReader) yaml() (any, error) {
	doc, problem := parse(r.file, r.text)
	if problem != nil {
		if len(bytes.TrimSpace(r.text)) == 0 {
			problem.Message = "the file is empty; write {} for no data"
		}
		return nil, Problems{*problem}
	}
	return r.yamlValue(doc.root, 0)
}

func (r *dataReader) yamlValue(n *yaml.Node, depth int) (any, error) {
	at := nodePosition(n)
	if err := r.enter(depth, func() Position { return at }); err != nil {
		return nil, err
	}
	n = target(n)
	switch n.Kind {
	case yaml.MappingNode:
		return r.yamlObject(n, depth)
	case yaml.SequenceNode:
		if n.ShortTag() != "!!seq" {
			break
		}
		list := make([]any, 0, len(n.Content))
		for _, item := range n.Content {
			v, err := r.yamlValue(item, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.ScalarNode:
		return r.yamlScalar(n)
	}
	return nil, r.problem(at, "has the tag %s, which JSON has no value for", shorten(n.ShortTag()))
}

func (r *dataReader) yamlObject(n *yaml.Node, depth int) (any, error) {
	if n.ShortTag() != "!!map" {
		return nil, r.problem(nodePosition(n), "has the tag %s, which JSON has no value for", shorten(n.ShortTag()))
	}
	object := make(map[string]any, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		at := nodePosition(n.Content[i])
		key := target(n.Content[i])
		if ambiguous(key) {
			return nil, r.twoMeanings(key)
		}
		if key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str" {
			return nil, r.problem(at, "%s cannot be a name here; %s", kind(key), keyRemedy(key))
		}
		if _, twice := object[key.Value]; twice {
			return nil, r.problem(at, "duplicate name %q; remove one of them", shorten(key.Value))
		}
		v, err := r.yamlValue(n.Content[i+1], depth+1)
		if err != nil {
			return nil, err
		}
		object[key.Value] = v
	}
	return object, nil
}

// yamlScalar reads a scalar as JSON has it. What YAML 1.1, which OPA reads, and YAML 1.2 take for different values is refused.
func (r *dataReader) yamlScalar(n *yaml.Node) (any, error) {
	at := nodePosition(n)
	if n.Style&yaml.TaggedStyle != 0 {
		return nil, r.problem(at, "has the tag %s; write a plain value, or text in quotes", shorten(n.ShortTag()))
	}
	if ambiguous(n) {
		return nil, r.twoMeanings(n)
	}
	if !utf8.ValidString(n.Value) {
		return nil, r.problem(at, "is not UTF-8")
	}
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		return strings.EqualFold(n.Value, "true"), nil
	case "!!int", "!!float":
		return r.number(n.Value, func() Position { return at })
	case "!!str", "!!timestamp":
		return n.Value, nil
	}
	return nil, r.problem(at, "has the tag %s, which JSON has no value for", shorten(n.ShortTag()))
}

func (r *dataReader) twoMeanings(n *yaml.Node) error {
	return r.problem(nodePosition(n), "%s is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number", shorten(n.Value))
}

func nodePosition(n *yaml.Node) Position { return Position{Line: n.Line, Column: n.Column} }

// oldBooleans are booleans in YAML 1.1 (https://yaml.org/type/bool.html) and text in YAML 1.2.
var oldBooleans = []string{"y", "yes", "n", "no", "on", "off"}

// ambiguous says whether a plain scalar stands for different values in YAML 1.1 and 1.2, or for a number that JSON cannot write.
func ambiguous(n *yaml.Node) bool {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		return false
	}
	if slices.Contains(oldBooleans, strings.ToLower(n.Value)) {
		return true
	}
	switch n.ShortTag() {
	case "!!int", "!!float":
		return !isDecimal(n.Value)
	case "!!str":
		return isDecimal(strings.ReplaceAll(n.Value, "_", ""))
	}
	return false
}

// isDecimal says whether a number is written as JSON writes it (RFC 8259, section 6).
func isDecimal(s string) bool {
	return jsontext.Value(s).IsValid() && jsontext.Value(s).Kind() == jsontext.KindNumber
}
