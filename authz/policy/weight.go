package policy

import (
	"fmt"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// A policy can double a text, or an object that holds another one twice, in each of its rules. Forty rules of that kind are more than any
// memory holds, and as many steps as rules. So what built-ins make is counted, and what is written out or walked through whole is weighed.
const (
	maxMade   = 64 << 20 // bytes that the built-ins of one evaluation make
	maxWeight = 4 << 20  // bytes of a value written out
	maxResult = 1 << 20  // bytes of what one rule of the contract says
	nodeSize  = 48       // bytes of a value in memory, about
)

// deep are the built-ins that write their operands out or build them anew, with all that is in them. Comparisons are not among them: two values
// that hold themselves over and over, and are equal, are compared without a bound. Only a policy written for it has such.
var deep = set(`
array.flatten internal.print internal.template_string io.jwt.encode_sign json.filter json.marshal json.marshal_with_options json.patch
json.remove object.subset object.union object.union_n urlquery.encode_object yaml.marshal
`)

// handOut are those whose result is a part of their operands.
var handOut = set("max min object.get walk")

func set(names string) map[string]bool {
	all := map[string]bool{}
	for name := range strings.FieldsSeq(names) {
		all[name] = true
	}
	return all
}

// makes says whether a built-in's result takes memory.
func makes(b *ast.Builtin) bool {
	switch b.Decl.Result().(type) {
	case types.Boolean, types.Number, types.Null, nil:
		return false
	}
	return !handOut[b.Name]
}

// size is what a value takes in memory by itself, without what is in it.
func size(v ast.Value) int {
	switch v := v.(type) {
	case ast.String:
		return nodeSize + len(v)
	case *ast.Array:
		return nodeSize * (1 + v.Len())
	case ast.Set:
		return nodeSize * (1 + v.Len())
	case ast.Object:
		return nodeSize * (1 + 2*v.Len())
	}
	return nodeSize
}

// weight is what a value takes when it is written out whole, counted up to a limit: what is in it twice counts twice.
func weight(v ast.Value, limit int) int {
	n := 8
	more := func(t *ast.Term) bool {
		n += weight(t.Value, limit-n)
		return n > limit
	}
	switch v := v.(type) {
	case ast.String:
		n += len(v)
	case ast.Number:
		n += len(v)
	case *ast.Array:
		v.Until(more)
	case ast.Set:
		v.Until(more)
	case ast.Object:
		v.Until(func(key, value *ast.Term) bool { return more(key) || more(value) })
	}
	return n
}

// light refuses operands that are more than maxWeight together.
func (c *call) light() error {
	n := 0
	for _, operand := range c.operands {
		if n += weight(operand.Value, maxWeight-n); n > maxWeight {
			return fmt.Errorf("the operands have more than the %d bytes allowed", maxWeight)
		}
	}
	return nil
}
