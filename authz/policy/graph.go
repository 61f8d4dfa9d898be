package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// reachable is graph.reachable(graph, initial): the nodes of the graph that edges lead to, with the initial ones. OPA's own looks at a node as often
// as there are ways to it, of which a small graph can have more than any memory holds; this one looks at each once, and counts each edge as a step.
func (c *call) reachable() (ast.Set, error) {
	graph, err := builtins.ObjectOperand(c.operands[0].Value, 1)
	if err != nil {
		return nil, err
	}
	next := elements(c.operands[1].Value)
	if next == nil {
		return nil, builtins.NewOperandTypeErr(2, c.operands[1].Value, "{array, set}")
	}
	budget, bounded := c.context.Cancel.(*budget)
	reached := ast.NewSet()
	for len(next) > 0 {
		node := next[0]
		next = next[1:]
		edges := graph.Get(node)
		if edges == nil || reached.Contains(node) {
			continue
		}
		reached.Add(node)
		to := elements(edges.Value)
		if bounded && budget.spend(len(to)) {
			return nil, halt("the evaluation has no steps left")
		}
		for _, neighbour := range to {
			if !reached.Contains(neighbour) {
				next = append(next, neighbour)
			}
		}
	}
	if bounded && budget.takes(size(reached)) {
		return nil, halt("the evaluation has no memory left")
	}
	return reached, nil
}
