package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Fact is a value that an expression had: of a variable, a part of the input or of data, or a call in it. Both are Rego text; Value is
// "undefined" where there is none, and cut where it is long.
type Fact struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// maxShown bounds a value and an expression that are shown, in bytes.
const maxShown = 160

const undefined = "undefined"

// facts are the values in the expressions of a body from first to before end, in the order in which they are written.
func (t *tracer) facts(f *frame, e *topdown.Event, first, end int) []Fact {
	c := &collector{tracer: t, event: e}
	for i := first; i < end; i++ {
		c.expr(f.body[i], i < end-1)
	}
	return c.facts
}

type collector struct {
	*tracer
	event *topdown.Event
	facts []Fact
}

func (c *collector) add(name string, v ast.Value) {
	value := undefined
	if v != nil {
		value = cut(v.String())
	}
	name = shown(name)
	if name != value && !slices.ContainsFunc(c.facts, func(f Fact) bool { return f.Name == name }) {
		c.facts = append(c.facts, Fact{name, value})
	}
}

// expr collects what is in an expression. Of one that computes a part of a later one, the result counts too, under the text of the part.
func (c *collector) expr(e *ast.Expr, part bool) {
	terms, call := e.Terms.([]*ast.Term)
	if !call {
		if t, ok := e.Terms.(*ast.Term); ok {
			c.term(t)
		}
		return
	}
	for _, t := range terms[1:] {
		c.term(t)
	}
	result := terms[len(terms)-1]
	computed := !e.IsEquality() && c.hasResult(terms)
	if e.IsEquality() && len(terms) == 3 {
		_, isRef := terms[2].Value.(ast.Ref)
		result, computed = terms[1], !isRef && !plainValue(terms[2])
	}
	if v, ok := result.Value.(ast.Var); ok && part && computed && c.generated(v) && e.Location != nil {
		if value := c.event.Plug(result); ground(value) {
			c.add(string(e.Location.Text), value.Value)
		}
	}
}

// hasResult says whether a call has an operand for its result, behind its arguments. One that is only true or false has none.
func (c *collector) hasResult(terms []*ast.Term) bool {
	ref, ok := terms[0].Value.(ast.Ref)
	return !ok || len(terms)-1 > c.set.compiler.GetArity(ref)
}

// plainValue says whether a term is written as a value: its text says all.
func plainValue(t *ast.Term) bool {
	switch t.Value.(type) {
	case *ast.ArrayComprehension, *ast.SetComprehension, *ast.ObjectComprehension, ast.Call:
		return false
	}
	return true
}

func (c *collector) term(t *ast.Term) {
	switch v := t.Value.(type) {
	case ast.Var:
		if value := c.event.Plug(t); !c.generated(v) && ground(value) {
			c.add(c.name(v), value.Value)
		}
	case ast.Ref:
		c.ref(v)
	case *ast.Array:
		v.Foreach(c.term)
	case ast.Set:
		v.Foreach(c.term)
	case ast.Object:
		v.Foreach(func(k, v *ast.Term) { c.term(k); c.term(v) })
	}
}

// ref looks up as much of a reference as is known. Rules are explained by their bodies.
func (c *collector) ref(ref ast.Ref) {
	var root ast.Value
	name := ref[:1].Copy()
	switch head := ref[0]; {
	case head.Equal(ast.InputRootDocument):
		if in := c.event.Input(); in != nil {
			root = in.Value
		}
	case head.Equal(ast.DefaultRootDocument):
		c.document(ref)
		return
	default:
		v, _ := head.Value.(ast.Var)
		value := c.event.Plug(head)
		if c.generated(v) || !ground(value) {
			return
		}
		root, name[0] = value.Value, ast.VarTerm(c.name(v))
	}
	for _, t := range ref[1:] {
		key := c.event.Plug(t)
		if root == nil || !ground(key) {
			break
		}
		name = append(name, key)
		next, err := root.Find(ast.Ref{key})
		if err != nil {
			next = nil
		}
		if set, ok := root.(ast.Set); ok && set.Contains(key) {
			next = key.Value
		}
		root = next
	}
	c.add(name.String(), root)
}

// document looks a reference up in data that is no rule's.
func (c *collector) document(ref ast.Ref) {
	plugged := c.event.Plug(ast.NewTerm(ref))
	full, ok := plugged.Value.(ast.Ref)
	if !ok || len(rulesAt(c.set.compiler, full.GroundPrefix())) > 0 {
		return
	}
	full = full.GroundPrefix()
	if v, err := c.set.document(full); err == nil {
		c.add(full.String(), v)
	}
}

// generated says whether the variable is the compiler's, or one that nobody named (_).
func (c *collector) generated(v ast.Var) bool {
	name := ast.Var(c.name(v))
	return name.IsGenerated() || name.IsWildcard() || name == "_"
}

// name is the variable's name as it is written.
func (c *collector) name(v ast.Var) string {
	if written, ok := c.set.compiler.RewrittenVars[v]; ok {
		return string(written)
	}
	return string(v)
}

func ground(t *ast.Term) bool { return t != nil && t.IsGround() }

// shown is source text on one line, cut where it is long.
func shown(s string) string { return cut(strings.Join(strings.Fields(s), " ")) }

func cut(s string) string {
	if len(s) > maxShown {
		return strings.ToValidUTF8(s[:maxShown], "") + "..."
	}
	return s
}
