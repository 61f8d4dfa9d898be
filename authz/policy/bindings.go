package policy

import "github.com/open-policy-agent/opa/v1/ast"

// parameter is the count of a variable that is an argument of its function once, and nothing else: negative, so that it is never taken for
// one that an equality binds.
const parameter = -1 << 20

// bindings counts, for each variable of a rule with its else branches, the places that can give it a value or compare it with one. Those are
// all but four: where something is looked up in it (v.x), where it is passed to a rule's function or is what object.get looks into, where it
// stands alone as a condition, and where it is the value of the head. A variable of one place holds what that place gives it.
type bindings struct {
	compiler *ast.Compiler
	counts   map[ast.Var]int
}

func countBindings(c *ast.Compiler, r *ast.Rule) map[ast.Var]int {
	b := &bindings{c, map[ast.Var]int{}}
	seen := map[ast.Var]bool{}
	for e := r; e != nil; e = e.Else {
		b.parameters(e.Head.Args, seen)
		if len(e.Head.Reference) > 0 {
			b.terms(e.Head.Reference[1:])
		}
		b.term(e.Head.Key)
		b.used(e.Head.Value)
		b.body(e.Body)
	}
	return b.counts
}

// parameters counts a variable once however many else branches repeat it, but again when one list of parameters does.
func (b *bindings) parameters(params []*ast.Term, seen map[ast.Var]bool) {
	here := map[ast.Var]bool{}
	for _, p := range params {
		ast.WalkVars(p, func(v ast.Var) bool {
			if here[v] || !seen[v] {
				b.counts[v] += parameter
			}
			here[v], seen[v] = true, true
			return false
		})
	}
}

func (b *bindings) body(body ast.Body) {
	for _, e := range body {
		b.expr(e)
	}
}

func (b *bindings) expr(e *ast.Expr) {
	for _, w := range e.With {
		b.term(w.Target)
		b.term(w.Value)
	}
	switch terms := e.Terms.(type) {
	case *ast.Term:
		b.used(terms)
	case []*ast.Term:
		b.call(e, terms[0], terms[1:])
	case *ast.Every:
		b.terms([]*ast.Term{terms.Key, terms.Value, terms.Domain})
		b.body(terms.Body)
	case *ast.SomeDecl:
		b.terms(terms.Symbols)
	}
}

func (b *bindings) call(e *ast.Expr, operator *ast.Term, args []*ast.Term) {
	ref, ok := operator.Value.(ast.Ref)
	inputs := 0
	switch {
	case !ok || e.IsEquality():
	case ref[0].Equal(ast.DefaultRootDocument):
		inputs = min(len(args), max(b.compiler.GetArity(ref), 0))
	case ref.String() == ast.ObjectGet.Name:
		inputs = min(len(args), 1)
	}
	for _, t := range args[:inputs] {
		b.used(t)
	}
	b.terms(args[inputs:])
}

func (b *bindings) terms(terms []*ast.Term) {
	for _, t := range terms {
		b.term(t)
	}
}

// used visits a term at a place that does not count for a variable.
func (b *bindings) used(t *ast.Term) {
	if t == nil {
		return
	}
	if _, ok := t.Value.(ast.Var); !ok {
		b.term(t)
	}
}

// term counts the variables of a term. nil is allowed.
func (b *bindings) term(t *ast.Term) {
	if t == nil {
		return
	}
	switch v := t.Value.(type) {
	case ast.Var:
		b.counts[v]++
	case ast.Ref:
		b.used(v[0])
		b.terms(v[1:])
	case *ast.Array:
		v.Foreach(b.term)
	case ast.Set:
		v.Foreach(b.term)
	case ast.Object:
		v.Foreach(func(k, e *ast.Term) { b.term(k); b.term(e) })
	case *ast.ArrayComprehension:
		b.term(v.Term)
		b.body(v.Body)
	case *ast.SetComprehension:
		b.term(v.Term)
		b.body(v.Body)
	case *ast.ObjectComprehension:
		b.term(v.Key)
		b.term(v.Value)
		b.body(v.Body)
	case ast.Null, ast.Boolean, ast.Number, ast.String:
	default: // what is not known counts twice, so that no variable in it is one that a single place binds
		for range 2 {
			ast.WalkVars(t, func(v ast.Var) bool {
				b.counts[v]++
				return false
			})
		}
	}
}
