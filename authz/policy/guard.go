package policy

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// Bounds of single calls, beside those of the evaluation as a whole: a call cannot be cut while it runs, and a client may choose its arguments.
const (
	maxSearched = 4 << 10  // bytes that a regular expression searches again and again; the time can grow with their square
	maxYAML     = 16 << 10 // bytes; the time grows with their square
	maxGrown    = 4 << 20  // bytes of a result that is longer than its arguments
	maxWidth    = 999      // of a verb of sprintf
	maxPattern  = 4 << 10  // bytes of a regular expression or glob
	maxNetworks = 256      // members that are compared each with each
	maxDigits   = 1 << 10  // of a number that is multiplied or divided; the time grows faster than they do
	maxProgram  = 50_000   // instructions that a regular expression compiles to; OPA keeps a hundred
)

// instructionsPerStep is how many instructions of regular expressions take about the time of a step.
const instructionsPerStep = 40

// guardOnce is global because OPA's table of built-ins is. This package is OPA's only importer.
var guardOnce sync.Once

// guardBuiltins puts the bounds before and behind OPA's built-ins. It must be called before anything is evaluated.
func guardBuiltins() {
	guardOnce.Do(func() {
		programs := &programs{}
		checks := map[string]func(*call) error{
			"regex.match":                      func(c *call) error { return c.regexp(0, 1) },
			"regex.find_n":                     func(c *call) error { return errors.Join(c.atMost(1, maxSearched), c.regexp(0, 1)) },
			"regex.find_all_string_submatch_n": func(c *call) error { return errors.Join(c.atMost(1, maxSearched), c.regexp(0, 1)) },
			"regex.split":                      func(c *call) error { return errors.Join(c.atMost(1, maxSearched), c.regexp(0, 1)) },
			"regex.replace":                    func(c *call) error { return errors.Join(c.atMost(0, maxSearched), c.grows(0, 2), c.regexp(1, 0)) },
			"replace":                          func(c *call) error { return c.grows(0, 2) },
			"concat":                           func(c *call) error { return errors.Join(c.grows(0, 1), c.light()) },
			"yaml.unmarshal":                   func(c *call) error { return c.atMost(0, maxYAML) },
			"yaml.is_valid":                    func(c *call) error { return c.atMost(0, maxYAML) },
			"sprintf":                          func(c *call) error { return errors.Join(c.widths(0), c.light()) },
			"net.cidr_contains_matches":        func(c *call) error { return errors.Join(c.members(0), c.members(1)) },
			"mul":                              func(c *call) error { return errors.Join(c.digits(0), c.digits(1)) },
			"div":                              func(c *call) error { return errors.Join(c.digits(0), c.digits(1)) },
			"rem":                              func(c *call) error { return errors.Join(c.digits(0), c.digits(1)) },
			"units.parse":                      func(c *call) error { return c.atMost(0, maxDigits) },
			"units.parse_bytes":                func(c *call) error { return c.atMost(0, maxDigits) },
		}
		for _, b := range capabilities().Builtins {
			check, inner := checks[b.Name], topdown.GetBuiltin(b.Name)
			if check == nil && deep[b.Name] {
				check = (*call).light
			}
			if inner != nil && (check != nil || makes(b)) {
				ast.BuiltinMap[b.Name].CanSkipBctx = false // the budget is in the context
				topdown.RegisterBuiltinFunc(b.Name, guarded(inner, check, makes(b), programs))
			}
		}
		topdown.RegisterBuiltinFunc("glob.match", func(b topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
			matched, err := (&call{b, operands, programs}).glob()
			if err != nil {
				return err
			}
			return iter(ast.InternedTerm(matched))
		})
		topdown.RegisterBuiltinFunc("graph.reachable", func(b topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
			reached, err := (&call{b, operands, programs}).reachable()
			if err != nil {
				return err
			}
			return iter(ast.NewTerm(reached))
		})
	})
}

// guarded is a built-in that is called after check, if there is one, and whose result, if it makes one, is counted.
func guarded(inner topdown.BuiltinFunc, check func(*call) error, makes bool, programs *programs) topdown.BuiltinFunc {
	return func(b topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
		if check != nil {
			if err := check(&call{b, operands, programs}); err != nil {
				return err
			}
		}
		budget, ok := b.Cancel.(*budget)
		if !ok || !makes {
			return inner(b, operands, iter)
		}
		return inner(b, operands, func(result *ast.Term) error {
			if budget.takes(size(result.Value)) {
				return halt("the evaluation has no memory left")
			}
			return iter(result)
		})
	}
}

func halt(message string) error {
	return topdown.Halt{Err: &topdown.Error{Code: topdown.CancelErr, Message: message}}
}

// call is one call of a built-in.
type call struct {
	context  topdown.BuiltinContext
	operands []*ast.Term
	programs *programs
}

// text is an operand that is a string; another type is left to the built-in to refuse.
func (c *call) text(i int) string {
	s, _ := c.operands[i].Value.(ast.String)
	return string(s)
}

func (c *call) atMost(i, limit int) error {
	if n := len(c.text(i)); n > limit {
		return fmt.Errorf("operand %d has %d bytes, more than the %d allowed", i+1, n, limit)
	}
	return nil
}

func (c *call) members(i int) error {
	n := 0
	switch v := c.operands[i].Value.(type) {
	case *ast.Array:
		n = v.Len()
	case ast.Set:
		n = v.Len()
	case ast.Object:
		n = v.Len()
	}
	if n > maxNetworks {
		return fmt.Errorf("operand %d has %d members, more than the %d allowed", i+1, n, maxNetworks)
	}
	return nil
}

// digits is for numbers, which are kept as they are written. Their exponent counts as what it stands for.
func (c *call) digits(i int) error {
	number, ok := c.operands[i].Value.(ast.Number)
	if !ok {
		return nil
	}
	text, exponent, _ := strings.Cut(strings.ToLower(string(number)), "e")
	if len(text) > maxDigits || len(strings.TrimLeft(exponent, "+-0")) > 3 {
		return fmt.Errorf("operand %d has more than the %d digits allowed", i+1, maxDigits)
	}
	return nil
}

// grows bounds a result that is at most one operand for each byte, or member, of another.
func (c *call) grows(of, by int) error {
	n := len(c.text(by))
	switch v := c.operands[by].Value.(type) {
	case *ast.Array:
		n = v.Len()
	case ast.Set:
		n = v.Len()
	}
	if grown := (len(c.text(of)) + 1) * n; grown > maxGrown {
		return fmt.Errorf("the result may have %d bytes, more than the %d allowed", grown, maxGrown)
	}
	return nil
}

// widths refuses verbs whose width is large or an operand.
func (c *call) widths(i int) error {
	for _, verb := range strings.Split(c.text(i), "%")[1:] {
		verb = strings.TrimLeft(verb, "+-# 0")
		spec := verb[:len(verb)-len(strings.TrimLeft(verb, "0123456789.*[]"))]
		for _, number := range strings.Split(spec, ".") {
			if strings.ContainsAny(number, "*[]") || len(number) > len(fmt.Sprint(maxWidth)) {
				return fmt.Errorf("operand %d has a width that is an operand or more than %d", i+1, maxWidth)
			}
		}
	}
	return nil
}

// regexp counts a match as the steps that it may take. A pattern that is none is left to the built-in to refuse.
func (c *call) regexp(pattern, text int) error {
	p, err := c.programs.get(c.text(pattern), nil)
	var syntaxError *syntax.Error
	if errors.As(err, &syntaxError) {
		return nil
	}
	if err != nil {
		return err
	}
	return c.spend(p, text)
}

func (c *call) spend(p *program, text int) error {
	b, ok := c.context.Cancel.(*budget)
	if ok && b.spend(p.size*(len(c.text(text))+1)/instructionsPerStep) {
		return halt("the evaluation has no steps left")
	}
	return nil
}

// glob is glob.match(pattern, separators, text). No separators are null; an empty array stands for a dot.
func (c *call) glob() (bool, error) {
	pattern, err := builtins.StringOperand(c.operands[0].Value, 1)
	if err != nil {
		return false, err
	}
	separators := []rune{}
	switch v := c.operands[1].Value.(type) {
	case ast.Null:
	case *ast.Array:
		if separators, err = builtins.RuneSliceOperand(v, 2); err != nil {
			return false, err
		}
		if len(separators) == 0 {
			separators = []rune{'.'}
		}
	default:
		return false, builtins.NewOperandTypeErr(2, v, "array", "null")
	}
	text, err := builtins.StringOperand(c.operands[2].Value, 3)
	if err != nil {
		return false, err
	}
	p, err := c.programs.get(string(pattern), separators)
	if err != nil {
		return false, err
	}
	if err := c.spend(p, 2); err != nil {
		return false, err
	}
	return p.re.MatchString(string(text)), nil
}

// program is a pattern with the number of its instructions. re is nil for what OPA compiles itself.
type program struct {
	size int
	re   *regexp.Regexp
}

// programs keeps what patterns compile to. When it is full it begins anew, so that patterns of clients cannot fill the memory.
type programs struct {
	mu   sync.RWMutex
	kept map[string]*program
}

const (
	maxPrograms = 1000
	maxKept     = 2000 // instructions of a program that is kept
)

// get compiles a regular expression, or with separators, which are not nil then, a glob.
func (p *programs) get(pattern string, separators []rune) (*program, error) {
	key := "regexp " + pattern
	if separators != nil {
		key = "glob " + string(separators) + " " + pattern
	}
	p.mu.RLock()
	found := p.kept[key]
	p.mu.RUnlock()
	if found != nil {
		return found, nil
	}
	made, err := newProgram(pattern, separators)
	if err != nil || made.size > maxKept {
		return made, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.kept == nil || len(p.kept) >= maxPrograms {
		p.kept = map[string]*program{}
	}
	p.kept[strings.Clone(key)] = made
	return made, nil
}

func newProgram(pattern string, separators []rune) (made *program, err error) {
	if len(pattern) > maxPattern {
		return nil, fmt.Errorf("the pattern has %d bytes, more than the %d allowed", len(pattern), maxPattern)
	}
	glob := separators != nil
	if glob {
		if pattern, err = globExpression(pattern, separators); err != nil {
			return nil, err
		}
	}
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, err
	}
	compiled, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	made = &program{size: len(compiled.Inst)}
	if made.size > maxProgram {
		return nil, fmt.Errorf("the pattern compiles to %d instructions, more than the %d allowed", made.size, maxProgram)
	}
	if glob {
		made.re, err = regexp.Compile(pattern)
	}
	return made, err
}
