package policy

import "github.com/open-policy-agent/opa/v1/ast"

// parameter is the count of a variable that is an argument of its function once, and on no side of an equality: negative, so that it is
// never taken for one that an equality binds.
const parameter = -1 << 20

// countBindings counts, for each variable of a rule with its else branches, the places that can give it a value or compare it with one:
// sides of equalities, outputs of calls, and parameters, which count as parameter. Every other place reads the variable whole.
func countBindings(c *ast.Compiler, r *ast.Rule) map[ast.Var]int {
	counts := map[ast.Var]int{}
	seen := map[ast.Var]bool{}
	visit := ast.NewGenericVisitor(func(x any) bool {
		if e, ok := x.(*ast.Expr); ok {
			countExpr(c, e, counts)
		}
		return false
	})
	for e := r; e != nil; e = e.Else {
		countParameters(e.Head.Args, counts, seen)
		visit.Walk(e.Head)
		visit.Walk(e.Body)
	}
	return counts
}

// countParameters counts a variable once however many else branches repeat it, but again when one list of parameters does.
func countParameters(params []*ast.Term, counts map[ast.Var]int, seen map[ast.Var]bool) {
	here := map[ast.Var]bool{}
	for _, p := range params {
		ast.WalkVars(p, func(v ast.Var) bool {
			if here[v] || !seen[v] {
				counts[v] += parameter
			}
			here[v], seen[v] = true, true
			return false
		})
	}
}

func countExpr(c *ast.Compiler, e *ast.Expr, counts map[ast.Var]int) {
	terms, ok := e.Terms.([]*ast.Term)
	if !ok {
		return
	}
	operands := terms[1:]
	if ref, ok := terms[0].Value.(ast.Ref); ok && !e.IsEquality() {
		operands = operands[min(len(operands), max(c.GetArity(ref), 0)):]
	}
	for _, t := range operands {
		if v, ok := t.Value.(ast.Var); ok {
			counts[v]++
		}
	}
}
