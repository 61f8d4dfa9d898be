package policy

import (
	"fmt"
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"doorward/authz/config"
)

// analysis computes what a policy can read of `input`, over the rules as the compiler leaves them (every call an expression of its own,
// every variable named once in a module).
//
// A value of `input` can be had only by a reference that begins with `input`. A reference to a part is a read of that part. A reference to
// a document (input.request) is followed as long as it stays in a variable, an argument, a result or a rule's value: only what is looked
// up in it is read. Wherever it could be looked at as a whole, which is everywhere else (a comparison, a built-in's argument, a member of
// an array, a name that is not constant), all of it is read. The variables' documents only grow, so visiting the rules until nothing
// changes ends. OPA's package dependencies serves another end: it loses references through arguments.
type analysis struct {
	compiler *ast.Compiler
	reads    readSet
	rules    []*ast.Rule // reached, in the order in which they were
	reached  map[*ast.Rule]bool
	vars     map[variable]document
	results  map[*ast.Rule]document // documents that the rule's value, or the function's result, can be
	counts   map[*ast.Rule]map[ast.Var]int
	plain    bool // a function or rule is replaced by `with`, so no document is followed
	grown    int  // additions to vars, results, rules
	owner    *ast.Rule
	at       *ast.Location
	problems config.Problems
}

// variable is a variable of a rule, with its `else` rules.
type variable struct {
	rule *ast.Rule
	name ast.Var
}

// analyse follows all that the rules named by entries can reach.
func analyse(c *ast.Compiler, entries []ast.Ref) *analysis {
	a := newAnalysis(c, false)
	a.run(entries)
	if a.plain {
		a = newAnalysis(c, true)
		a.run(entries)
	}
	return a
}

func newAnalysis(c *ast.Compiler, plain bool) *analysis {
	return &analysis{
		compiler: c,
		plain:    plain,
		reached:  map[*ast.Rule]bool{},
		vars:     map[variable]document{},
		results:  map[*ast.Rule]document{},
		counts:   map[*ast.Rule]map[ast.Var]int{},
	}
}

func (a *analysis) run(entries []ast.Ref) {
	for before := -1; before != a.progress(); {
		before = a.progress()
		a.problems = nil
		for _, ref := range entries {
			a.reads.whole(a.data(ref))
		}
		for i := 0; i < len(a.rules); i++ {
			a.rule(a.rules[i])
			if !a.reads.plugin && namesPlugin(a.rules[i]) {
				a.reads.namesPlugin()
			}
		}
	}
}

func (a *analysis) progress() int { return a.reads.size + a.grown }

// rule visits a rule with its else branches.
func (a *analysis) rule(r *ast.Rule) {
	a.owner = r
	for ; r != nil; r = r.Else {
		a.at = r.Location
		for _, t := range r.Head.Args {
			if _, ok := t.Value.(ast.Var); !ok {
				a.escape(t)
			}
		}
		for _, t := range r.Head.Reference[min(1, len(r.Head.Reference)):] {
			a.escape(t)
		}
		a.escape(r.Head.Key)
		a.body(r.Body)
		if r.Head.Value != nil {
			a.result(a.owner, a.value(r.Head.Value))
		}
		a.changing()
	}
}

// changing notes a read of what no two requests have in common.
func (a *analysis) changing() {
	for _, part := range [...]struct {
		of   document
		name string
		why  string
	}{
		{docAttributesRequest, "time", "input.attributes.request.time is another one for each request"},
		{docHTTP, "id", "input.attributes.request.http.id is another one for each request"},
	} {
		if a.reads.why == "" && a.reads.has(part.of, part.name) {
			a.reads.unsteady(place(a.at) + ": " + part.why)
		}
	}
}

// result notes what a rule's value can be. It is followed only where the rule has one value at a known place: several definitions are
// compared with each other, and members of a set or object are looked through.
func (a *analysis) result(r *ast.Rule, docs document) {
	if r.Head.Key != nil || !r.Head.Ref().IsGround() || len(rulesAt(a.compiler, r.Ref())) != 1 {
		a.reads.whole(docs)
		return
	}
	if a.results[r]|docs != a.results[r] {
		a.results[r] |= docs
		a.grown++
	}
}

func (a *analysis) body(b ast.Body) {
	for _, e := range b {
		a.expr(e)
	}
}

func (a *analysis) expr(e *ast.Expr) {
	if e.Location != nil {
		a.at = e.Location
	}
	for _, w := range e.With {
		a.with(w)
	}
	switch terms := e.Terms.(type) {
	case *ast.Term:
		a.value(terms) // a document is true wherever it is defined
	case []*ast.Term:
		a.call(e, terms)
	case *ast.Every:
		a.escape(terms.Domain)
		a.body(terms.Body)
	case *ast.SomeDecl:
		for _, t := range terms.Symbols {
			a.escape(t)
		}
	default:
		a.reads.whole(docInput)
	}
	a.changing()
}

// with reads the replacement whole: below it `input` may be something that the real input is a part of.
func (a *analysis) with(w *ast.With) {
	a.escape(w.Value)
	if !isInput(w.Target) {
		a.plain = true
		a.builtin(w.Value.String())
	}
}

func isInput(t *ast.Term) bool {
	ref, ok := t.Value.(ast.Ref)
	return ok && len(ref) > 0 && ref[0].Equal(ast.InputRootDocument) || t.Equal(ast.InputRootDocument)
}

func (a *analysis) call(e *ast.Expr, terms []*ast.Term) {
	operator, args := terms[0], terms[1:]
	ref, ok := operator.Value.(ast.Ref)
	switch {
	case e.IsEquality() && len(args) == 2:
		a.unify(args[0], args[1])
	case ok && ref[0].Equal(ast.DefaultRootDocument):
		a.function(ref, args)
	case ok && ref.String() == ast.ObjectGet.Name && len(args) == 4 && a.lookup(args):
	default:
		a.builtin(operator.String())
		for _, t := range args {
			a.escape(t)
		}
	}
}

// builtin notes what makes decisions uncacheable. A name that is no built-in's is none's in `unsteady` either.
func (a *analysis) builtin(name string) {
	if why := unsteady[name]; why != "" {
		a.reads.unsteady(fmt.Sprintf("%s: %s %s", place(a.at), name, why))
	}
}

// unify follows a document into a variable that this equality alone gives a value. Any other equality compares.
func (a *analysis) unify(left, right *ast.Term) {
	l, r := a.value(left), a.value(right)
	switch {
	case a.bound(left):
		a.flow(left, r)
	case a.bound(right):
		a.flow(right, l)
	default:
		a.reads.whole(l | r)
	}
}

// bound says whether the term is a variable that gets its value in this place only, and is compared with nothing.
func (a *analysis) bound(t *ast.Term) bool {
	v, ok := t.Value.(ast.Var)
	return ok && !ast.RootDocumentNames.Contains(t) && a.occurrences(a.owner)[v] == 1
}

func (a *analysis) occurrences(r *ast.Rule) map[ast.Var]int {
	if a.counts[r] == nil {
		a.counts[r] = countBindings(a.compiler, r)
	}
	return a.counts[r]
}

func (a *analysis) flow(t *ast.Term, docs document) {
	key := variable{a.owner, t.Value.(ast.Var)}
	if a.vars[key]|docs != a.vars[key] {
		a.vars[key] |= docs
		a.grown++
	}
}

// output gives a call's result to its last operand.
func (a *analysis) output(t *ast.Term, docs document) {
	if a.bound(t) {
		a.flow(t, docs)
		return
	}
	a.escape(t)
	a.reads.whole(docs)
}

// function passes arguments on to every definition that the call can reach.
func (a *analysis) function(ref ast.Ref, args []*ast.Term) {
	values := make([]document, len(args))
	for i, t := range args {
		values[i] = a.value(t)
	}
	for _, r := range rulesAt(a.compiler, ref) {
		a.reach(r)
		arity := len(r.Head.Args)
		for e := r; e != nil; e = e.Else {
			a.arguments(r, e.Head.Args, values)
		}
		if len(args) == arity+1 {
			a.output(args[arity], a.results[r])
		} else if len(args) != arity {
			a.reads.whole(docInput)
		}
	}
}

// arguments flow into parameters that are variables. A pattern is compared with its argument, and so is a variable used twice.
func (a *analysis) arguments(r *ast.Rule, params []*ast.Term, values []document) {
	for i, p := range params {
		if i >= len(values) {
			return
		}
		v, ok := p.Value.(ast.Var)
		if !ok || a.occurrences(r)[v] != parameter {
			a.reads.whole(values[i])
			continue
		}
		key := variable{r, v}
		if a.vars[key]|values[i] != a.vars[key] {
			a.vars[key] |= values[i]
			a.grown++
		}
	}
}

// lookup handles object.get(document, constant, default, output), which is how a policy reads what may be missing.
func (a *analysis) lookup(args []*ast.Term) bool {
	docs := a.value(args[0])
	var path ast.Ref
	switch key := args[1].Value.(type) {
	case ast.String:
		path = ast.Ref{args[1]}
	case *ast.Array:
		key.Foreach(func(t *ast.Term) { path = append(path, t) })
	}
	if docs == 0 || len(path) == 0 {
		return false
	}
	if _, ok := args[0].Value.(ast.Ref); ok || a.bound(args[0]) {
		a.known(docs, path[0])
	}
	a.escape(args[1])
	a.escape(args[2])
	a.output(args[3], a.follow(docs, path))
	return true
}

// known notes a part that the document, which a reference leads to, does not have. The type checker cannot know what object.get looks up.
func (a *analysis) known(d document, name *ast.Term) {
	parts, text := closed[d], name.Value
	s, ok := text.(ast.String)
	if !ok || parts == nil || slices.Contains(parts, string(s)) {
		return
	}
	a.problems = append(a.problems, config.Problem{
		Position: position(name.Location),
		Message:  fmt.Sprintf("the document has no %s%s", text, didYouMean(string(s), parts)),
	})
}

// escape reads a term wherever it may be looked at as a whole. nil is allowed.
func (a *analysis) escape(t *ast.Term) {
	if t != nil {
		a.reads.whole(a.value(t))
	}
}

// value visits a term and returns the documents that it can be.
func (a *analysis) value(t *ast.Term) document {
	switch v := t.Value.(type) {
	case ast.Null, ast.Boolean, ast.Number, ast.String:
		return 0
	case ast.Var:
		return a.variable(t, v)
	case ast.Ref:
		return a.ref(v)
	case *ast.ArrayComprehension:
		a.body(v.Body)
		a.escape(v.Term)
	case *ast.SetComprehension:
		a.body(v.Body)
		a.escape(v.Term)
	case *ast.ObjectComprehension:
		a.body(v.Body)
		a.escape(v.Key)
		a.escape(v.Value)
	case *ast.Array:
		v.Foreach(a.escape)
	case ast.Set:
		v.Foreach(a.escape)
	case ast.Object:
		v.Foreach(func(k, e *ast.Term) { a.escape(k); a.escape(e) })
	default:
		a.reads.whole(docInput)
	}
	return 0
}

func (a *analysis) variable(t *ast.Term, v ast.Var) document {
	switch {
	case t.Equal(ast.InputRootDocument):
		return a.follow(docInput, nil)
	case t.Equal(ast.DefaultRootDocument):
		return a.data(ast.Ref{t})
	}
	return a.vars[variable{a.owner, v}]
}

func (a *analysis) ref(ref ast.Ref) document {
	for _, t := range ref[1:] {
		a.escape(t)
	}
	head := ref[0]
	v, ok := head.Value.(ast.Var)
	switch {
	case !ok:
		a.escape(head)
		return 0
	case head.Equal(ast.InputRootDocument):
		return a.follow(docInput, ref[1:])
	case head.Equal(ast.DefaultRootDocument):
		return a.data(ref)
	}
	return a.follow(a.vars[variable{a.owner, v}], ref[1:])
}

// follow looks a path up in documents: it notes the parts that are read, and returns the documents where the path ends.
func (a *analysis) follow(docs document, path ast.Ref) (ends document) {
	for d := docInput; d < docEnd; d <<= 1 {
		if docs&d != 0 {
			ends |= a.step(d, path)
		}
	}
	if a.plain {
		a.reads.whole(ends)
		return 0
	}
	return ends
}

func (a *analysis) step(d document, path ast.Ref) document {
	for _, t := range path {
		name, ok := t.Value.(ast.String)
		if !ok {
			a.reads.whole(d)
			return 0
		}
		a.reads.part(d, string(name))
		if p := headerProblem(d, t, a.at); p != nil {
			a.problems = append(a.problems, *p)
		}
		inner, ok := nested[d][string(name)]
		if !ok {
			return 0
		}
		d = inner
	}
	return d
}

// data reaches the rules that a reference can be, and follows the value of the one that it names. It also reads the data documents that can
// be at the reference, beside or below those rules: all that is below the names with which it begins.
func (a *analysis) data(ref ast.Ref) (ends document) {
	a.reads.document(constant(ref))
	for _, r := range rulesAt(a.compiler, ref) {
		a.reach(r)
		if path := r.Ref(); path.IsGround() && ref.HasPrefix(path) {
			ends |= a.follow(a.results[r], ref[len(path):])
		} else {
			a.reads.whole(a.results[r])
		}
	}
	return ends
}

func (a *analysis) reach(r *ast.Rule) {
	if !a.reached[r] {
		a.reached[r] = true
		a.rules = append(a.rules, r)
		a.grown++
	}
}

// place is a position as text.
func place(l *ast.Location) string {
	if l == nil {
		return "?"
	}
	return fmt.Sprintf("%s:%d", l.File, l.Row)
}
