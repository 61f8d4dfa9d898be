package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Bounds of an explanation.
const (
	maxDepth  = 6  // of helpers that call helpers
	maxBodies = 20 // of one rule
	maxValues = 5  // of one body
)

// explainer turns what was traced into what is told.
type explainer struct {
	pkg  string
	set  *Set
	told map[*frame]bool // bodies that are explained already
}

// rule explains the frames of one rule. Everything is told of a rule of the contract, of a helper only what matters to its caller.
func (e *explainer) rule(frames []*frame, depth int, whole bool) RuleTrace {
	r := RuleTrace{Rule: strings.TrimPrefix(ruleName(frames[0].rule), e.pkg+"."), Value: undefined}
	if v := value(frames); v != nil {
		r.Value = cut(v.String())
	}
	if conflict(frames) {
		r.Value = "in conflict"
	}
	if e.told[frames[0]] {
		r.Again = true
		return r
	}
	frames = slices.Clone(frames)
	slices.SortStableFunc(frames, func(a, b *frame) int { return compare(a.rule.Location, b.rule.Location) })
	holds := slices.ContainsFunc(frames, func(f *frame) bool { return f.holds > 0 })
	for _, f := range frames {
		e.told[f] = true
		if holds && !whole && f.holds == 0 || guards(f) {
			continue
		}
		if len(r.Bodies) == maxBodies {
			r.More++
			continue
		}
		r.Bodies = append(r.Bodies, e.body(f, depth))
	}
	return r
}

// guards says whether a body of the library is there only to find a mistake, and has found none.
func guards(f *frame) bool {
	if f.holds > 0 || f.deepest < 0 || f.deepest >= len(f.body) || !isLibrary(f.rule.Module.Package.Path) {
		return false
	}
	fault := false
	ast.WalkRefs(f.body[f.deepest], func(ref ast.Ref) bool {
		fault = fault || ref.HasPrefix(faultRef)
		return fault
	})
	return fault
}

// faultRef is the library's package of mistakes.
var faultRef = packageRef(libraryRoot + ".fault")

func compare(a, b *ast.Location) int {
	return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Row, b.Row), cmp.Compare(a.Col, b.Col))
}

// value puts together what the bodies gave: a set, an object, or the one value; nil where none held.
func value(frames []*frame) ast.Value {
	var whole ast.Value
	for _, f := range frames {
		for _, t := range f.exits {
			switch {
			case f.rule.Head.RuleKind() == ast.MultiValue:
				set, ok := whole.(ast.Set)
				if !ok {
					set = ast.NewSet()
				}
				set.Add(t)
				whole = set
			case len(f.rule.Head.Ref()) > 1 && whole != nil:
				whole = merged(whole, t.Value)
			default:
				whole = t.Value
			}
		}
	}
	if whole == nil && len(frames) > 0 && frames[0].rule.Head.RuleKind() == ast.MultiValue {
		return ast.NewSet()
	}
	return whole
}

// conflict says whether bodies gave a rule that is no function two values.
func conflict(frames []*frame) bool {
	var first ast.Value
	for _, f := range frames {
		if h := f.rule.Head; f.rule.Default || len(h.Args) > 0 || h.RuleKind() == ast.MultiValue || len(h.Ref()) > 1 {
			return false
		}
		for _, t := range f.exits {
			if first != nil && first.Compare(t.Value) != 0 {
				return true
			}
			first = t.Value
		}
	}
	return false
}

// merged joins two members of an object that rules add to.
func merged(a, b ast.Value) ast.Value {
	x, ok := a.(ast.Object)
	y, also := b.(ast.Object)
	if !ok || !also {
		return b
	}
	if o, ok := x.Merge(y); ok {
		return o
	}
	return x
}

func (e *explainer) body(f *frame, depth int) BodyTrace {
	b := BodyTrace{At: place(f.rule.Location), Holds: f.holds}
	for _, v := range f.exits {
		if text := cut(v.String()); text != "true" && len(b.Values) < maxValues {
			b.Values = append(b.Values, text)
		}
	}
	if f.holds == 0 {
		b.Failed = e.failed(f, depth)
		return b
	}
	b.Default = f.rule.Default
	if f.holds == 1 {
		b.Facts = f.facts
	}
	if depth < maxDepth {
		b.Rules = e.rules(ruleFrames(append(slices.Concat(f.calls...), f.known...)), depth+1)
	}
	return b
}

// rules explains the rules that were entered.
func (e *explainer) rules(frames []*frame, depth int) (rules []RuleTrace) {
	for _, group := range byRule(frames) {
		if computes(group) {
			continue
		}
		rules = append(rules, e.rule(group, depth, false))
	}
	return rules
}

// computes says whether a function gave a value other than true: that value is a fact of the expression that called it.
func computes(frames []*frame) bool {
	v := value(frames)
	return len(frames[0].rule.Head.Args) > 0 && v != nil && v.Compare(ast.Boolean(true)) != 0 && v.Compare(ast.Boolean(false)) != 0
}

// failed explains where a body ended; nil where nothing failed, because its arguments or its key did not match.
func (e *explainer) failed(f *frame, depth int) *ExprTrace {
	if len(f.fails) == 0 {
		return nil
	}
	at := f.source(f.deepest)
	x := &ExprTrace{At: place(at), Text: written(at, f.body[f.deepest]), Times: f.failed}
	for _, failure := range f.fails {
		try := Try{Facts: failure.facts}
		if depth < maxDepth {
			try.Rules = e.rules(ruleFrames(failure.calls), depth+1)
			for _, inner := range members(failure.calls) {
				if m := e.failed(inner, depth+1); m != nil {
					x.Every = append(x.Every, m)
				}
			}
		}
		x.Tries = append(x.Tries, try)
	}
	return x
}

// members are the bodies of an `every` that failed for a member.
func members(frames []*frame) (bodies []*frame) {
	for _, f := range frames {
		if f.every == nil {
			continue
		}
		for _, calls := range f.calls {
			for _, body := range calls {
				if body.rule == nil && body.holds == 0 {
					bodies = append(bodies, body)
				}
			}
		}
	}
	return bodies
}

// written is an expression as it is written. The parser takes an `else` whole for the place of its only expression.
func written(at *ast.Location, expr *ast.Expr) string {
	if at == nil || len(at.Text) == 0 {
		return cut(expr.String())
	}
	s := shown(string(at.Text))
	if _, condition, ok := strings.Cut(s, " if "); ok && strings.HasPrefix(s, "else") {
		return condition
	}
	return s
}

// String is the result's reason for people, "" when it has none.
func (t TestResult) String() string {
	p := &printer{}
	for _, b := range t.Why {
		p.body(0, b, undefined)
	}
	return p.String()
}

// String is the explanation for people: a rule a paragraph, with what it depends on below it.
func (x Explanation) String() string {
	p := &printer{}
	for _, r := range x.Rules {
		p.rule(0, r)
	}
	if x.Note != "" {
		p.line(0, "%s", x.Note)
	}
	return p.String()
}

type printer struct{ strings.Builder }

func (p *printer) line(depth int, format string, args ...any) {
	p.WriteString(strings.Repeat("  ", depth))
	fmt.Fprintf(p, format+"\n", args...)
}

func (p *printer) rule(depth int, r RuleTrace) {
	if r.Again {
		p.line(depth, "%s is %s, as above", r.Rule, r.Value)
		return
	}
	p.line(depth, "%s is %s", r.Rule, r.Value)
	for _, b := range r.Bodies {
		p.body(depth+1, b, r.Value)
	}
	if r.More > 0 {
		p.line(depth+1, "and %d more", r.More)
	}
}

func (p *printer) body(depth int, b BodyTrace, value string) {
	switch {
	case b.Holds == 0 && b.Failed == nil:
		p.line(depth, "%s does not hold: its arguments or its key are others", b.At)
	case b.Holds == 0 && b.At == b.Failed.At:
		p.expr(depth, b.Failed)
	case b.Holds == 0:
		p.line(depth, "%s does not hold", b.At)
		p.expr(depth+1, b.Failed)
	case b.Default:
		p.line(depth, "%s is the default", b.At)
	case len(b.Values) == 0 || len(b.Values) == 1 && b.Values[0] == value:
		p.line(depth, "%s holds", b.At)
	default:
		p.line(depth, "%s holds: %s", b.At, strings.Join(b.Values, ", "))
	}
	p.facts(depth+1, b.Facts)
	for _, r := range b.Rules {
		p.rule(depth+1, r)
	}
}

func (p *printer) expr(depth int, x *ExprTrace) {
	times := ""
	if x.Times > 1 {
		times = fmt.Sprintf(" (%d times)", x.Times)
	}
	p.line(depth, "%s fails: %s%s", x.At, x.Text, times)
	for i, try := range x.Tries {
		if i > 0 && len(try.Facts)+len(try.Rules) > 0 {
			p.line(depth+1, "and")
		}
		p.facts(depth+1, try.Facts)
		for _, r := range try.Rules {
			p.rule(depth+1, r)
		}
	}
	for _, m := range x.Every {
		p.expr(depth+1, m)
	}
}

func (p *printer) facts(depth int, facts []Fact) {
	for _, f := range facts {
		p.line(depth, "%s is %s", f.Name, f.Value)
	}
}
