package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"
)

const (
	// maxValues bounds how many values one file comes to once its aliases are written out. A route of 20 keys counts as 30, so this is
	// some 30,000 routes.
	maxValues = 1_000_000
	// structCost is what a mapping with known keys counts: it takes memory for all its keys, given or not.
	structCost = 10
)

// decoder turns YAML into the values of this package, and reports what does not fit.
type decoder struct {
	report *report
	left   int // of maxValues
	keys   map[reflect.Type]*keySet
}

// defaulter is a type whose keys have defaults.
type defaulter interface{ setDefaults() }

// keySet is the keys of a struct: by name, and in the order of their declaration.
type keySet struct {
	index map[string][]int
	names []string
}

// decode fills out, a pointer to a struct, from a whole document.
func (r *report) decode(doc *document, out any) {
	d := decoder{report: r, left: maxValues, keys: make(map[reflect.Type]*keySet)}
	d.value(doc.place(), reflect.ValueOf(out).Elem())
}

// value fills v from the value at p. It reports whether the value was understood.
func (d *decoder) value(p place, v reflect.Value) bool {
	if !d.spend(p, 1) {
		return false
	}
	switch into := v.Addr().Interface().(type) {
	case *URL:
		if p.field == "from" || strings.HasSuffix(p.field, "].from") { // of a route, the only `from` that there is
			return decodeText(d, p, into, ParseFrom)
		}
		return decodeText(d, p, into, ParseURL)
	case *UpstreamURL:
		return decodeText(d, p, into, parseUpstreamURL)
	case *Duration:
		return decodeText(d, p, into, parseDuration)
	case *Size:
		return decodeText(d, p, into, parseSize)
	case *Share:
		return decodeText(d, p, into, parseShare)
	case *Unauthenticated:
		return decodeText(d, p, into, parseUnauthenticated)
	case *Targets:
		if text := target(p.node); text.Kind == yaml.ScalarNode && text.Value == AdminTarget {
			*into = adminTargets()
			return true
		}
		if target(p.node).Kind == yaml.ScalarNode {
			*into = make(Targets, 1)
			return d.value(p, v.Index(0))
		}
	case *IDPs:
		if target(p.node).Kind == yaml.MappingNode {
			*into = make(IDPs, 1)
			return d.value(p, v.Index(0))
		}
	case *IdentityHeader:
		list := target(p.node).Kind == yaml.SequenceNode
		var values Names
		if !d.value(p, reflect.ValueOf(&values).Elem()) {
			return false
		}
		into.Each = list
		for _, v := range values {
			into.Values = append(into.Values, Template(v))
		}
		return true
	case *Names:
		if target(p.node).Kind == yaml.ScalarNode {
			*into = make(Names, 1)
			return d.value(p, v.Index(0))
		}
	case *Target:
		if target(p.node).Kind == yaml.ScalarNode {
			into.setDefaults()
			return decodeText(d, p, &into.URL, parseUpstreamURL)
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(p, v.Elem())
	case reflect.Struct:
		return d.mapping(p, v)
	case reflect.Slice:
		return d.list(p, v)
	case reflect.Map:
		return d.table(p, v)
	}
	return d.scalar(p, v)
}

// spend takes from the budget of values. When it is used up it says so once and stops the decoding.
func (d *decoder) spend(p place, n int) bool {
	if d.left < 0 {
		return false
	}
	if d.left -= n; d.left < 0 {
		p.excused = false
		d.report.add(p, "the file comes to more than %d values; use fewer aliases, or split it into several files of routes_dir", maxValues)
		return false
	}
	return true
}

// mapping fills a struct by its yaml tags.
func (d *decoder) mapping(p place, v reflect.Value) bool {
	if !d.spend(p, structCost) || !d.is(p, yaml.MappingNode, "!!map") {
		return false
	}
	if t, ok := v.Addr().Interface().(defaulter); ok {
		t.setDefaults()
	}
	known := d.keySet(v.Type())
	d.pairs(p, func(key string, at, value place) bool {
		index, ok := known.index[key]
		if !ok {
			near := nearest(key, known.names)
			if near != "" && p.key(near).absent {
				p.doc.faulty[slot{target(p.node), near}] = true // so that it is not called missing as well
			}
			d.report.add(at, "%s", unknownKey(key, near, known.names))
			return true
		}
		return d.value(value, v.FieldByIndex(index))
	})
	return true
}

// table fills a map of strings, whose keys are free.
func (d *decoder) table(p place, v reflect.Value) bool {
	if !d.is(p, yaml.MappingNode, "!!map") {
		return false
	}
	v.Set(reflect.MakeMap(v.Type()))
	d.pairs(p, func(key string, _, value place) bool {
		text := reflect.New(v.Type().Elem()).Elem()
		if !d.value(value, text) {
			return false
		}
		v.SetMapIndex(reflect.ValueOf(key), text)
		return true
	})
	return true
}

// pairs calls f with each key of a mapping, where the key stands and its value; what f does not understand is marked as faulty.
func (d *decoder) pairs(p place, f func(key string, at, value place) bool) {
	node := target(p.node)
	first := make(map[string]*yaml.Node, len(node.Content)/2)
	for i := 0; i+1 < len(node.Content) && d.left >= 0; i += 2 {
		name := target(node.Content[i])
		at := p
		at.node = node.Content[i]
		if name.Kind != yaml.ScalarNode || !slices.Contains(textTags, name.ShortTag()) {
			d.report.add(at, "%s cannot be a key here; %s", kind(name), keyRemedy(name))
			continue
		}
		key := name.Value
		at.field = join(p.field, shorten(key))
		if before := first[key]; before != nil {
			d.report.add(at, "duplicate key %q; it is also on line %d: remove one of them", shorten(key), before.Line)
			continue
		}
		first[key] = node.Content[i]
		value := at
		value.node = node.Content[i+1]
		if !f(key, at, value) {
			p.doc.faulty[slot{node, key}] = true
		}
	}
}

// list fills a slice.
func (d *decoder) list(p place, v reflect.Value) bool {
	if !d.is(p, yaml.SequenceNode, "!!seq") {
		return false
	}
	node := target(p.node)
	v.SetZero()
	v.Grow(min(len(node.Content), 1024))
	for i := range node.Content {
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
		if !d.value(p.item(i), v.Index(i)) {
			p.doc.faulty[slot{node, strconv.Itoa(i)}] = true
		}
		if d.left < 0 || d.report.full {
			break
		}
	}
	return true
}

// scalar fills a string, a boolean or a number.
func (d *decoder) scalar(p place, v reflect.Value) bool {
	n := target(p.node)
	switch v.Kind() {
	case reflect.String:
		text, ok := d.text(p)
		v.SetString(text)
		return ok
	case reflect.Bool:
		if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!bool" {
			d.report.add(p, "must be true or false, not %s", kind(n))
			return false
		}
		v.SetBool(strings.EqualFold(n.Value, "true"))
		return true
	}
	number, err := strconv.ParseUint(n.Value, 10, 32)
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || err != nil {
		d.report.add(p, "must be a whole number from 0 to %d, not %s", uint32(math.MaxUint32), kind(n))
		return false
	}
	if v.CanUint() {
		v.SetUint(number)
	} else {
		v.SetInt(int64(number))
	}
	return true
}

// textTags are the tags of plain scalars that are text when text is wanted: a number or a date stands for how it is written. true, false
// and null are not among them, because who writes them means something else.
var textTags = []string{"!!str", "!!int", "!!float", "!!timestamp"}

// text returns the text of a scalar.
func (d *decoder) text(p place) (string, bool) {
	n := target(p.node)
	switch {
	case n.Kind != yaml.ScalarNode || !slices.Contains(textTags, n.ShortTag()):
		d.report.add(p, "must be text, not %s%s", kind(n), quoteRemedy(n))
	case strings.ContainsRune(n.Value, 0):
		d.report.add(p, "must not contain a NUL character")
	default:
		return n.Value, true
	}
	return "", false
}

// decodeText fills a value that is written as text. The error of parse is what the problem says.
func decodeText[T any](d *decoder, p place, into *T, parse func(string) (T, error)) bool {
	text, ok := d.text(p)
	if !ok {
		return false
	}
	value, err := parse(text)
	if err != nil {
		d.report.add(p, "%s", err)
		return false
	}
	*into = value
	return true
}

// is reports a value that is not of the wanted kind.
func (d *decoder) is(p place, want yaml.Kind, tag string) bool {
	n := target(p.node)
	if n.Kind == want && n.ShortTag() == tag {
		return true
	}
	name := "a mapping of keys to values"
	if want == yaml.SequenceNode {
		name = "a list"
	}
	d.report.add(p, "must be %s, not %s", name, kind(n))
	return false
}

// keySet returns the keys of a struct.
func (d *decoder) keySet(t reflect.Type) *keySet {
	if known := d.keys[t]; known != nil {
		return known
	}
	known := &keySet{index: make(map[string][]int)}
	known.add(t, nil)
	d.keys[t] = known
	return known
}

// add notes the keys of a struct that is reached by an index; those of an inline struct are keys of the outer one.
func (k *keySet) add(t reflect.Type, index []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		at := append(slices.Clone(index), i)
		switch name := f.Tag.Get("yaml"); name {
		case "", "-":
		case ",inline":
			k.add(f.Type, at)
		default:
			k.index[name] = at
			k.names = append(k.names, name)
		}
	}
}

// kind names what a value is, for messages. It never holds the value: it may be a secret.
func kind(n *yaml.Node) string {
	switch tag := n.ShortTag(); tag {
	case "!!map":
		return "a mapping"
	case "!!seq":
		return "a list"
	case "!!null":
		return "nothing"
	case "!!bool":
		return "true or false"
	case "!!int", "!!float":
		return "a number"
	case "!!str", "!!timestamp":
		return "text"
	case "!!merge":
		return "a merge key"
	default:
		return fmt.Sprintf("a value with the tag %s", shorten(tag))
	}
}
