package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"

	"doorward/authz/config"
)

// checkRefs finds what OPA lets pass in compiled rules: references to rules and data that do not exist, which would be undefined for ever, and
// header names that no request can have.
func checkRefs(c *ast.Compiler, n *names) (problems config.Problems) {
	for _, m := range c.Modules {
		ast.WalkTerms(m, func(t *ast.Term) bool {
			ref, ok := t.Value.(ast.Ref)
			switch {
			case !ok:
			case ref.HasPrefix(ast.DefaultRootRef):
				if missing := missingPrefix(c, n.documents, ref); missing != nil {
					message := fmt.Sprintf("there is no %s%s", missing, n.meant(missing))
					problems = append(problems, config.Problem{Position: position(t.Location), Message: message})
				}
			default:
				for d, headers := range headerRefs {
					if !ref.HasPrefix(headers) || len(ref) == len(headers) {
						continue
					}
					if p := headerProblem(d, ref[len(headers)], t.Location); p != nil {
						problems = append(problems, *p)
					}
				}
			}
			return false
		})
	}
	return problems
}

// headerRefs are the documents of headers, and where they are.
var headerRefs = map[document]ast.Ref{
	docHeaders:     ast.MustParseRef("input.request.headers"),
	docHTTPHeaders: ast.MustParseRef("input.attributes.request.http.headers"),
}

// missingPrefix is the shortest beginning of a reference that no rule is at, above or below, and no document has; nil when there is none.
func missingPrefix(c *ast.Compiler, d *documents, ref ast.Ref) ast.Ref {
	for i := 2; i <= len(ref); i++ {
		if d.lacks(ref[:i]) && len(rulesAt(c, ref[:i])) == 0 {
			return ref[:i]
		}
	}
	return nil
}

// headerProblem says why a document of headers never has the one that a constant names; nil when it can, and for other documents.
func headerProblem(d document, name *ast.Term, at *ast.Location) *config.Problem {
	headers := headerRefs[d]
	text, ok := name.Value.(ast.String)
	if headers == nil || !ok || d == docHTTPHeaders && slices.Contains(pseudoHeaders, string(text)) {
		return nil
	}
	if name.Location != nil {
		at = name.Location
	}
	lower := strings.ToLower(string(text))
	switch {
	case !isToken(lower):
		return &config.Problem{Position: position(at), Message: fmt.Sprintf("%q is no header's name, so %s[%q] is never there", string(text), headers, string(text))}
	case lower != string(text):
		return &config.Problem{Position: position(at), Message: fmt.Sprintf("header names are in lower case: %s[%q] is never there; write %q", headers, string(text), lower)}
	}
	return nil
}

// checkRules holds the rules of the contract against their types, as far as the type checker knows them.
func checkRules(c *ast.Compiler, pkg ast.Ref, outcomes []outcome) (problems config.Problems) {
	for _, o := range outcomes {
		rules := rulesAt(c, entry(pkg, o.name))
		if len(rules) == 0 {
			continue
		}
		if fault := o.check(c.TypeEnv.GetByRef(entry(pkg, o.name))); fault != "" {
			problems = append(problems, config.Problem{Position: position(rules[0].Location), Message: o.name + " " + fault})
			continue
		}
		problems = append(problems, checkConstants(o, rules)...)
	}
	return problems
}

// checkConstants reads the values that are written out as they would be read at run time: a fault of one needs no request to show.
func checkConstants(o outcome, rules []*ast.Rule) (problems config.Problems) {
	for _, r := range rules {
		for ; r != nil; r = r.Else {
			if r.Head.Key != nil || r.Head.Value == nil || len(r.Head.Ref()) != 1 || len(r.Head.Args) > 0 || !ast.IsConstant(r.Head.Value.Value) {
				continue
			}
			if err := o.read(r.Head.Value.Value, new(Decision)); err != nil {
				problems = append(problems, config.Problem{Position: position(r.Location), Message: fmt.Sprintf("%s: %v", o.name, err)})
			}
		}
	}
	return problems
}

// misspelt finds rules of policies that nothing reaches and whose name is almost one of the contract's: a rule `denied` denies nothing.
func (s *Set) misspelt(reached map[*ast.Rule]bool) (problems config.Problems) {
	var contract []string
	for _, o := range outcomes {
		contract = append(contract, o.name)
	}
	for _, m := range s.compiler.Modules {
		if p := s.policies[packageName(m.Package.Path)]; p == nil || p.kind != rego {
			continue
		}
		for _, r := range m.Rules {
			name := string(r.Head.Ref()[0].Value.(ast.Var))
			near := nearest(name, contract)
			if strings.HasPrefix(name, "deni") { // denied, denies, denial
				near = "deny"
			}
			if near != "" && !reached[r] && !slices.Contains(contract, name) {
				problems = append(problems, config.Problem{
					Position: position(r.Location),
					Message:  fmt.Sprintf("nothing uses the rule %s; did you mean %s?", name, near),
				})
			}
		}
	}
	return problems
}

// only says whether every type that a value can have satisfies ok. An unknown type does.
func only(t types.Type, ok func(types.Type) bool) bool {
	if any, is := t.(types.Any); is {
		return !slices.ContainsFunc(any, func(t types.Type) bool { return !only(t, ok) })
	}
	return t == nil || ok(t)
}

func isBoolean(t types.Type) bool { _, ok := t.(types.Boolean); return ok }
func isString(t types.Type) bool  { _, ok := t.(types.String); return ok }

// isStrings says whether a type is a set or an array of strings.
func isStrings(t types.Type) bool {
	switch t := t.(type) {
	case *types.Set:
		return only(t.Of(), isString)
	case *types.Array:
		return only(types.Values(t), isString)
	}
	return false
}

func wrongType(want string, t types.Type) string {
	if _, several := t.(types.Any); several {
		return "must be " + want + ", and it can be " + kindOf(t)
	}
	return "must be " + want + ", not " + kindOf(t)
}

func checkAllow(t types.Type) (fault string) {
	if !only(t, func(t types.Type) bool { return isBoolean(t) || isObject(t) }) {
		return wrongType("a boolean", t)
	}
	only(t, func(t types.Type) bool {
		if o, ok := t.(*types.Object); ok && fault == "" {
			fault = checkDecisionObject(o)
		}
		return true
	})
	return fault
}

func checkDeny(t types.Type) string {
	isReasons := func(t types.Type) bool {
		set, ok := t.(*types.Set)
		return ok && only(set.Of(), isString)
	}
	if only(t, isReasons) {
		return ""
	}
	if set, ok := t.(*types.Set); ok {
		return "must be a set of strings, and a member can be " + kindOf(set.Of())
	}
	return wrongType("a set of reasons", t) + `; write: deny contains "the reason" if { ... }`
}

func checkClaims(t types.Type) string {
	return checkObject(t, func(name string) string {
		if reservedClaim(name) {
			return "is set by the token itself and cannot be changed by a policy"
		}
		return ""
	}, func(types.Type) bool { return true }, "")
}

func checkHeaders(check func(name, value string) error) func(types.Type) string {
	isText := func(t types.Type) bool { return isString(t) || isStrings(t) }
	name := func(name string) string {
		lower := strings.ToLower(name)
		err := checkHeader(lower, "")
		if err == nil {
			err = check(lower, "")
		}
		if err != nil {
			return err.Error()
		}
		return ""
	}
	return func(t types.Type) string { return checkObject(t, name, isText, "a string or an array of strings") }
}

// checkObject holds an object's names and values against what they may be.
func checkObject(t types.Type, name func(string) string, value func(types.Type) bool, want string) (fault string) {
	only(t, func(t types.Type) bool {
		if fault == "" {
			fault = objectFault(t, name, value, want)
		}
		return true
	})
	return fault
}

func objectFault(t types.Type, name func(string) string, value func(types.Type) bool, want string) string {
	o, ok := t.(*types.Object)
	if !ok {
		return wrongType("an object", t)
	}
	for _, p := range o.StaticProperties() {
		key, ok := p.Key.(string)
		if !ok {
			return fmt.Sprintf("must have strings as names, and one is %v", p.Key)
		}
		if fault := name(key); fault != "" {
			return fmt.Sprintf("%q: %s", key, fault)
		}
		if !only(p.Value, value) {
			return fmt.Sprintf("%q: %s", key, wrongType(want, p.Value))
		}
	}
	if d := o.DynamicProperties(); d != nil {
		if !only(d.Key, isString) {
			return "must have strings as names, and one can be " + kindOf(d.Key)
		}
		if !only(d.Value, value) {
			return "must have values that are " + want + ", and one can be " + kindOf(d.Value)
		}
	}
	return ""
}
