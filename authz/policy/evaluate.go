package policy

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// evaluate runs the compiled query over the input and reads its one result.
func (p *Policy) evaluate(ctx context.Context, in *Input) (d Decision) {
	defer func() {
		if r := recover(); r != nil {
			d = Decision{Err: fmt.Errorf("policy %s: it panicked: %v", p.name, r)}
		}
	}()
	value, err := p.plan.build(in)
	if err != nil {
		return Decision{Err: fmt.Errorf("policy %s: %w", p.name, err)}
	}
	result, err := p.run(ctx, value)
	if err != nil {
		return Decision{Err: fmt.Errorf("policy %s: %w", p.name, err)}
	}
	d, err = decision(result, p.rules)
	if err != nil {
		return Decision{Err: fmt.Errorf("policy %s: %w", p.name, err)}
	}
	return d
}

// run evaluates all rules of the contract that the policy has, in one query. A built-in that fails is an error and not an
// undefined expression: in `deny` an undefined expression would let the request pass.
func (p *Policy) run(ctx context.Context, input ast.Value) (topdown.QueryResult, error) {
	b := newBudget(ctx, p.set.timeout)
	var result topdown.QueryResult
	err := topdown.NewQuery(p.query).
		WithQueryCompiler(p.qc).
		WithCompiler(p.set.compiler).
		WithStore(p.set.store).
		WithTransaction(p.set.txn).
		WithInput(ast.NewTerm(input)).
		WithCancel(b).
		WithMetrics(metrics.NoOp()).
		WithStrictBuiltinErrors(true).
		Iter(ctx, func(r topdown.QueryResult) error {
			result = r
			return nil
		})
	b.end()
	if b.err != nil {
		return nil, b.err
	}
	if err != nil {
		return nil, located(err)
	}
	if result == nil {
		return nil, errors.New("the evaluation had no result")
	}
	return result, nil
}

// located renders OPA's error as position and message, without its code and without the values that later lines list.
func located(err error) error {
	var e *topdown.Error
	if errors.As(err, &e) && e.Location != nil {
		message, _, _ := strings.Cut(e.Message, "\n")
		if _, mistake, ok := strings.Cut(message, `parsing "policy mistake: `); ok { // data.doorward.fault.raise
			return errors.New(strings.TrimSuffix(mistake, `": invalid syntax`))
		}
		return fmt.Errorf("%s:%d: %s", e.Location.File, e.Location.Row, strings.TrimSuffix(message, ":"))
	}
	return err
}
