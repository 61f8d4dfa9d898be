package policy

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// Explanation says how a policy came to its decision. It holds values of the input: it is for operators, not for the person decided on.
type Explanation struct {
	Policy   string      `json:"policy"`
	Decision Decision    `json:"-"`
	Rules    []RuleTrace `json:"rules"`          // of the contract that the policy has, in its order
	Note     string      `json:"note,omitempty"` // why there are no rules, or not all of them
}

// RuleTrace is what became of one rule.
type RuleTrace struct {
	Rule  string `json:"rule"`            // "allow"; of another package with its name, "doorward.user.email"
	Value string `json:"value"`           // Rego text, or "undefined"
	Again bool   `json:"again,omitempty"` // the rule is explained further up
	// Bodies are the bodies of the rule, each `if` and `else`, by place. Of a helper that has a value only those that hold are there.
	Bodies []BodyTrace `json:"bodies,omitempty"`
	More   int         `json:"more,omitempty"` // bodies that are left out for brevity
}

// BodyTrace is what became of one body of a rule.
type BodyTrace struct {
	At      string      `json:"at"`                // "grafana.rego:7"
	Holds   int         `json:"holds"`             // how often it succeeded: for one or more values, 0 when it did not
	Values  []string    `json:"values,omitempty"`  // that it gave, when that is not just true
	Facts   []Fact      `json:"facts,omitempty"`   // of a body that held once
	Default bool        `json:"default,omitempty"` // the rule's default, which counts when no body holds
	Failed  *ExprTrace  `json:"failed,omitempty"`  // the expression at which it ended
	Rules   []RuleTrace `json:"rules,omitempty"`   // helpers by which it holds
}

// ExprTrace is an expression that failed.
type ExprTrace struct {
	At    string       `json:"at"`
	Text  string       `json:"text"`
	Times int          `json:"times"`           // for how many values it failed
	Tries []Try        `json:"tries"`           // the first of them
	Every []*ExprTrace `json:"every,omitempty"` // what failed for a member, in `every`
}

// Try is one failure of an expression.
type Try struct {
	Facts []Fact      `json:"facts,omitempty"`
	Rules []RuleTrace `json:"rules,omitempty"` // that it refers to
}

// explainTimeout bounds a traced evaluation, which takes several times as long as the ordinary one.
const explainTimeout = 2 * time.Second

// Explain evaluates the policy as Decide does, with every rule looked at, and says what each came to and why. It is bounded as Decide is,
// with more time; the same input has the same explanation unless the policy is unsteady. It never panics.
func (p *Policy) Explain(ctx context.Context, in *Input) (x Explanation) {
	x = Explanation{Policy: p.name, Decision: p.Decide(ctx, in), Rules: []RuleTrace{}}
	defer func() {
		if r := recover(); r != nil {
			x.Note = fmt.Sprintf("the explanation is not complete: it panicked: %v", r)
		}
	}()
	switch p.kind {
	case public:
		x.Note = "public is built in: it lets everybody in and runs no rule"
		return x
	case anyUser:
		x.Note = "any_authenticated_user is built in: it lets in whoever has a session and runs no rule"
		return x
	case absent:
		x.Note = p.Waiting().Error()
		return x
	}
	input, err := p.plan.build(in)
	if err != nil {
		x.Note = err.Error()
		return x
	}
	t, result, err := p.set.trace(ctx, p.query, p.qc, ast.NewTerm(input))
	if err != nil {
		x.Note = "the explanation is not complete: " + err.Error()
	}
	x.Rules = t.explain(p.name, result)
	return x
}

// trace evaluates a query of the form name = [value | value = rule]; ... and follows it.
func (s *Set) trace(ctx context.Context, query ast.Body, qc ast.QueryCompiler, input *ast.Term) (*tracer, topdown.QueryResult, error) {
	t := newTracer(s)
	b := newBudget(ctx, max(s.timeout, explainTimeout))
	var result topdown.QueryResult
	q := topdown.NewQuery(query).
		WithQueryCompiler(qc).
		WithCompiler(s.compiler).
		WithStore(s.store).
		WithTransaction(s.txn).
		WithCancel(b).
		WithIndexing(false).
		WithEarlyExit(false).
		WithQueryTracer(t).
		WithStrictBuiltinErrors(true)
	if input != nil {
		q = q.WithInput(input)
	}
	err := q.Iter(ctx, func(r topdown.QueryResult) error {
		result = r
		return nil
	})
	switch {
	case b.err != nil:
		err = b.err
	case err != nil:
		err = located(err)
	case t.cut:
		err = fmt.Errorf("it has more than %d bodies", maxFrames)
	}
	return t, result, err
}

// explain makes the rules of the query's parts. The result is nil where the evaluation did not end.
func (t *tracer) explain(pkg string, result topdown.QueryResult) []RuleTrace {
	rules := []RuleTrace{}
	if t.root == nil {
		return rules
	}
	e := &explainer{pkg: pkg, set: t.set, told: map[*frame]bool{}}
	for i, expr := range t.root.body {
		frames := once(ruleFrames(t.root.calls[i]))
		name := expr.Operand(0).Value.String()
		r := RuleTrace{Rule: name, Value: undefined}
		if len(frames) > 0 {
			r = e.rule(frames, 0, true)
			r.Rule = name
		}
		if list, ok := resultOf(result, name); ok {
			r.Value = undefined
			if list.Len() > 0 {
				r.Value = cut(list.Elem(0).Value.String())
			}
		}
		rules = append(rules, r)
	}
	return rules
}

func resultOf(result topdown.QueryResult, name string) (*ast.Array, bool) {
	term, ok := result[ast.Var(name)]
	if !ok {
		return nil, false
	}
	list, ok := term.Value.(*ast.Array)
	return list, ok
}

// ruleFrames are the bodies of rules among the frames, looking through comprehensions and `not`.
func ruleFrames(frames []*frame) (rules []*frame) {
	for _, f := range frames {
		if f.rule != nil {
			rules = append(rules, f)
			continue
		}
		for _, calls := range f.calls {
			rules = append(rules, ruleFrames(calls)...)
		}
	}
	return rules
}

// once leaves out bodies that were evaluated again, as OPA does to find a conflict.
func once(frames []*frame) (bodies []*frame) {
	for _, f := range frames {
		if !slices.ContainsFunc(bodies, func(b *frame) bool { return b.rule == f.rule }) {
			bodies = append(bodies, f)
		}
	}
	return bodies
}

// byRule splits frames by their rule, in the order in which the rules come first.
func byRule(frames []*frame) (groups [][]*frame) {
	for _, f := range frames {
		i := slices.IndexFunc(groups, func(g []*frame) bool { return ruleName(g[0].rule) == ruleName(f.rule) })
		if i < 0 {
			groups = append(groups, []*frame{f})
			continue
		}
		groups[i] = append(groups[i], f)
	}
	return groups
}
