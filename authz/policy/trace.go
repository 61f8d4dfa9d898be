package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Bounds of what a trace keeps, whatever the policy does.
const (
	maxFrames   = 4000 // rule bodies and other queries that are followed; what comes later is not explained
	maxExits    = 50   // values kept of one body
	maxFailures = 3    // bindings for which a failure is shown
)

// tracer follows one evaluation as OPA's tracer and keeps what explains it: which bodies were entered from which expression, with which
// value they succeeded, and the expression furthest on that failed in each. The evaluation must run without rule indexing and without early
// exit, so that every body is entered. It is used by one goroutine.
type tracer struct {
	set    *Set
	frames map[uint64]*frame
	root   *frame
	known  map[called][]*frame // the bodies of each rule, for references whose value OPA had kept
	cut    bool                // there were more than maxFrames
}

// called is a rule under one input.
type called struct {
	rule  string
	input *ast.Term
}

// frame is one query: the body of a rule, or of a comprehension, `not` or `every`.
type frame struct {
	rule    *ast.Rule  // nil for other queries
	every   *ast.Expr  // the expression, for the query over the members of an `every`
	body    ast.Body   // as it is evaluated
	current int        // index in body of the expression that is evaluated
	calls   [][]*frame // by index: the queries that the expression entered when it was last evaluated
	exits   []*ast.Term
	holds   int // how often the body succeeded
	deepest int // index of the furthest expression that failed
	failed  int // how often it failed
	fails   []failure
	facts   []Fact   // when it first succeeded
	known   []*frame // bodies of rules that it refers to and that were entered before
}

// failure is one expression that failed with the values that it had.
type failure struct {
	index int
	facts []Fact
	calls []*frame
}

func newTracer(s *Set) *tracer {
	return &tracer{set: s, frames: map[uint64]*frame{}, known: map[called][]*frame{}}
}

// Enabled is part of topdown.QueryTracer.
func (t *tracer) Enabled() bool { return true }

// Config is part of topdown.QueryTracer. Values are taken when they are wanted, not at every event.
func (t *tracer) Config() topdown.TraceConfig { return topdown.TraceConfig{} }

// TraceEvent is part of topdown.QueryTracer.
func (t *tracer) TraceEvent(e topdown.Event) {
	if e.Op == topdown.EnterOp {
		t.enter(&e)
		return
	}
	f := t.frames[e.QueryID]
	if f == nil {
		return
	}
	expr, isExpr := e.Node.(*ast.Expr)
	switch {
	case e.Op == topdown.ExitOp:
		t.exit(f, &e)
	case e.Op == topdown.EvalOp && isExpr:
		f.current = f.index(expr)
		f.calls[f.current] = nil
	case e.Op == topdown.FailOp && isExpr && expr != f.every:
		t.fail(f, &e, f.index(expr))
	}
}

func (t *tracer) enter(e *topdown.Event) {
	if len(t.frames) >= maxFrames {
		t.cut = true
		return
	}
	f := &frame{deepest: -1}
	switch node := e.Node.(type) {
	case *ast.Rule:
		f.rule, f.body = node, node.Body
		key := called{ruleName(node), e.Input()}
		t.known[key] = append(t.known[key], f)
	case ast.Body:
		f.body = node
	case *ast.Expr:
		f.every = node
	}
	f.calls = make([][]*frame, len(f.body)+1)
	parent := t.frames[e.ParentID]
	switch {
	case e.QueryID == e.ParentID && t.root == nil:
		t.root = f
	case parent != nil:
		parent.calls[parent.current] = append(parent.calls[parent.current], f)
	}
	t.frames[e.QueryID] = f
}

// index finds an expression in the body. The last index stands for those that OPA makes while it evaluates.
func (f *frame) index(expr *ast.Expr) int {
	for i, e := range f.body {
		if e == expr {
			return i
		}
	}
	return len(f.body)
}

func (t *tracer) exit(f *frame, e *topdown.Event) {
	f.holds++
	if f.rule == nil || len(f.exits) >= maxExits {
		return
	}
	if f.exits == nil {
		f.known = t.kept(f, e, 0, len(f.body), slices.Concat(f.calls...))
		f.facts = t.facts(f, e, 0, len(f.body))
	}
	f.exits = append(f.exits, e.Plug(headTerm(f.rule)))
}

// headTerm is what one success of a rule's body adds: the value, a set's member, or an object's member as an object.
func headTerm(r *ast.Rule) *ast.Term {
	ref := r.Head.Ref()
	switch {
	case r.Head.RuleKind() == ast.MultiValue && r.Head.Key != nil:
		return r.Head.Key
	case len(ref) > 1:
		value := r.Head.Value
		for i := len(ref) - 1; i > 0; i-- {
			value = ast.ObjectTerm(ast.Item(ref[i], value))
		}
		return value
	default:
		return r.Head.Value
	}
}

// fail keeps the failures of the furthest expression; those before it succeeded for some values and failed after these were used up.
func (t *tracer) fail(f *frame, e *topdown.Event, index int) {
	if index < f.deepest {
		return
	}
	if index > f.deepest {
		f.deepest, f.failed, f.fails = index, 0, nil
	}
	f.failed++
	if len(f.fails) >= maxFailures || index == len(f.body) {
		return
	}
	first := f.sourceStart(index)
	var calls []*frame
	for i := first; i <= index; i++ {
		calls = append(calls, f.calls[i]...)
	}
	f.fails = append(f.fails, failure{index, t.facts(f, e, first, index+1), append(calls, t.kept(f, e, first, index+1, calls)...)})
}

// kept are the bodies of rules that the expressions refer to and that were not entered for them, because their value was known already. Of
// functions it is not known which call it was.
func (t *tracer) kept(f *frame, e *topdown.Event, first, end int, entered []*frame) (kept []*frame) {
	for _, expr := range f.body[first:end] {
		ast.WalkRefs(expr, func(ref ast.Ref) bool {
			for name := range prefixes(ref) {
				frames := t.known[called{name, e.Input()}]
				if len(frames) > 0 && len(frames[0].rule.Head.Args) == 0 && !enters(entered, name) && !enters(kept, name) {
					kept = append(kept, frames...)
				}
			}
			return false
		})
	}
	return kept
}

// prefixes yields the names of rules that a reference may be to.
func prefixes(ref ast.Ref) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		if !ref.HasPrefix(ast.DefaultRootRef) {
			return
		}
		ground := ref.GroundPrefix()
		for i := 2; i <= len(ground); i++ {
			if !yield(packageName(ground[:i])) {
				return
			}
		}
	}
}

func enters(frames []*frame, name string) bool {
	for _, f := range frames {
		if f.rule != nil && ruleName(f.rule) == name {
			return true
		}
		for _, calls := range f.calls {
			if f.rule == nil && enters(calls, name) {
				return true
			}
		}
	}
	return false
}

// ruleName is the rule's name with its package, without what follows in the head: p.claims for claims["role"] := ....
func ruleName(r *ast.Rule) string {
	return packageName(r.Module.Package.Path) + "." + headName(r)
}

func headName(r *ast.Rule) string {
	name, _ := r.Head.Ref()[0].Value.(ast.Var)
	return string(name)
}

// source is the place of the whole expression, as it is written, that a compiled one is a part of: the compiler makes each call in an
// expression one of its own, before that which needs its result.
func (f *frame) source(index int) *ast.Location {
	at := f.body[index].Location
	for _, later := range f.body[index+1:] {
		if covers(later.Location, at) {
			at = later.Location
		}
	}
	return at
}

// sourceStart is the index of the first part of the same written expression.
func (f *frame) sourceStart(index int) int {
	whole := f.source(index)
	for index > 0 && covers(whole, f.body[index-1].Location) {
		index--
	}
	return index
}

func covers(outer, inner *ast.Location) bool {
	return outer != nil && inner != nil && outer.File == inner.File && len(outer.Text) > 0 && len(inner.Text) > 0 &&
		outer.Offset <= inner.Offset && outer.Offset+len(outer.Text) >= inner.Offset+len(inner.Text)
}
