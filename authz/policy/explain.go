package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"doorward/authz/config"
)

// names are what a policy can refer to, for errors that say what was meant.
type names struct {
	local map[string][]string // by file: rules of the file's package, and the file's imports
	data  []string            // packages and their rules, as data.x.y
	calls []string            // built-ins and rules, as they are called from elsewhere

	documents *documents
}

func knownNames(modules map[string]*ast.Module, d *documents) *names {
	n := &names{local: map[string][]string{}, documents: d}
	rules := map[string][]string{}
	for _, m := range modules {
		path := m.Package.Path.String()
		n.data = append(n.data, path)
		for _, r := range m.Rules {
			name := string(r.Head.Ref()[0].Value.(ast.Var))
			rules[path] = append(rules[path], name)
			n.data = append(n.data, path+"."+name)
		}
	}
	for _, b := range capabilities().Builtins {
		n.calls = append(n.calls, b.Name)
	}
	n.data = compact(n.data)
	n.calls = compact(append(n.calls, n.data...))
	for file, m := range modules {
		n.local[file] = rules[m.Package.Path.String()]
		for _, i := range m.Imports {
			n.local[file] = append(n.local[file], string(i.Name()))
		}
		n.local[file] = compact(append(n.local[file], "input", "data"))
	}
	return n
}

func compact(list []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}

// checkImports finds the imports of what does not exist, which OPA takes for documents that may come later.
func checkImports(modules map[string]*ast.Module, n *names) (problems config.Problems) {
	for _, m := range modules {
		for _, i := range m.Imports {
			ref, ok := i.Path.Value.(ast.Ref)
			if !ok || !ref.HasPrefix(ast.DefaultRootRef) || n.exists(ref) {
				continue
			}
			problems = append(problems, config.Problem{
				Position: position(i.Location),
				Message:  fmt.Sprintf("there is no %s to import%s", ref, n.meant(ref)),
			})
		}
	}
	return problems
}

// meant ends what is said of a reference to data that leads nowhere: with the name that may have been meant, or the file.
func (n *names) meant(ref ast.Ref) string {
	if unread := n.documents.unread(ref); unread != "" {
		return unread
	}
	return didYouMean(ref.String(), append(n.documents.names(ref[:len(ref)-1]), n.data...))
}

// exists says whether a reference leads to a package, a rule, into a rule's value, or to a data document.
func (n *names) exists(ref ast.Ref) bool {
	if !n.documents.lacks(ref) {
		return true
	}
	text := ref.String()
	return slices.ContainsFunc(n.data, func(known string) bool {
		return within(known, text) || within(text, known) && !slices.ContainsFunc(n.data, func(k string) bool { return k != known && within(k, known) })
	})
}

var (
	undefinedFunction = regexp.MustCompile(`^undefined function (\S+)$`)
	unsafeVariable    = regexp.MustCompile(`^var (\S+) is unsafe$`)
)

// explain says in one line what OPA found, and what was probably meant.
func explain(e *ast.Error, n *names) string {
	switch d := e.Details.(type) {
	case *ast.RefErrInvalidDetail:
		return explainRef(d)
	case *ast.RefErrUnsupportedDetail:
		return fmt.Sprintf("%s: %s is %s, so nothing can be looked up in it", d.Ref, d.Ref[:d.Pos+1], kindOf(d.Have))
	case *ast.UnificationErrDetail:
		return fmt.Sprintf("%s can never equal %s", kindOf(d.Left), kindOf(d.Right))
	}
	if m := undefinedFunction.FindStringSubmatch(e.Message); m != nil {
		if why := forbidden[m[1]]; why != "" {
			return fmt.Sprintf("%s is not available to policies: %s", m[1], why)
		}
		if library := "data.doorward." + m[1]; n != nil && slices.Contains(n.calls, library) {
			return fmt.Sprintf("there is no function %s here; add: import %s", m[1], library[:strings.LastIndexByte(library, '.')])
		}
		if n != nil {
			return fmt.Sprintf("there is no function %s%s", m[1], didYouMean(m[1], n.calls))
		}
	}
	if m := unsafeVariable.FindStringSubmatch(e.Message); m != nil && n != nil && e.Location != nil {
		if near := nearest(m[1], n.local[e.Location.File]); near != "" {
			return fmt.Sprintf("%s is not defined; did you mean %s?", m[1], near)
		}
		return m[1] + " has no value here: it is no rule and no import, and nothing outside of `not` and built-in calls gives it one"
	}
	text := e.Message
	if e.Details != nil && e.Code != ast.ParseErr {
		text += ": " + strings.Join(e.Details.Lines(), ", ")
	}
	return strings.Join(strings.Fields(text), " ")
}

// explainRef explains a reference to what is not there. Candidates are the keys that there are.
func explainRef(d *ast.RefErrInvalidDetail) string {
	outer, key := d.Ref[:d.Pos], d.Ref[d.Pos]
	name, ok := key.Value.(ast.String)
	if len(d.OneOf) == 0 || !ok {
		return fmt.Sprintf("%s: %s cannot be looked up by %s", d.Ref, outer, key)
	}
	keys := map[string]bool{}
	for _, v := range d.OneOf {
		if s, ok := v.(ast.String); ok {
			keys[string(s)] = true
		}
	}
	known := slices.Sorted(maps.Keys(keys))
	if near := nearest(string(name), known); near != "" {
		return fmt.Sprintf("there is no %s; did you mean %s?", d.Ref[:d.Pos+1], outer.Append(ast.StringTerm(near)))
	}
	return fmt.Sprintf("there is no %s; %s has %s", d.Ref[:d.Pos+1], outer, strings.Join(known, ", "))
}

// kindOf is a type with its article, without what is inside.
func kindOf(t types.Type) string {
	switch t := t.(type) {
	case types.Any:
		if len(t) == 0 {
			return "any value"
		}
		kinds := make([]string, len(t))
		for i, k := range t {
			kinds[i] = kindOf(k)
		}
		return strings.Join(compact(kinds), " or ")
	case *types.Array:
		return "an array"
	case *types.Object:
		return "an object"
	case *types.Set:
		return "a set"
	case *types.Function:
		return "a function"
	case nil:
		return "nothing"
	default:
		return "a " + t.String()
	}
}

// packageLine reads the package of a file that does not parse; "" when there is no such line.
func packageLine(text string) string {
	for line := range strings.Lines(text) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "package "); ok {
			return strings.TrimSpace(name)
		}
	}
	return ""
}
