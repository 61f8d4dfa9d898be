package policy

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// The answer of a policy that is written for OPA's Envoy plugin, where it is more than a boolean: an object, as `allow` or, in a package that has
// one with the name `allowed`, as `result`. Its names mean what they mean there: `headers` go to the upstream when the request is allowed and
// to the client when it is not, `response_headers_to_add` and `request_headers_to_remove` count when it is allowed, `http_status` and `body`
// when it is not. Other names are the policy's own. What our own rules may not do, it may not do either.

// ruleResult is the rule that decides in place of `allow` when its value can be such an object.
const ruleResult = "result"

// outcomesOf are the rules of a package that count. Where an object decides, the other rules that say what it says are the policy's own, as in
// the plugin: they are often what the object is made of.
func outcomesOf(c *ast.Compiler, pkg ast.Ref) []outcome {
	decides := outcome{"allow", checkAllow, readAllow}
	if hasAllowed(c.TypeEnv.GetByRef(entry(pkg, ruleResult))) {
		decides = outcome{ruleResult, checkAllow, readAllow}
	} else if !canBe(c.TypeEnv.GetByRef(entry(pkg, "allow")), isObject) {
		return withoutHelper(c, pkg)
	}
	chosen := []outcome{decides}
	for _, o := range outcomes {
		if o.name == "deny" && !helper(c, pkg, decides.name) || o.name == "claims" {
			chosen = append(chosen, o)
		}
	}
	return chosen
}

// decides says whether a package has a rule by which it is a policy.
func decides(c *ast.Compiler, pkg ast.Ref) bool {
	return len(rulesAt(c, entry(pkg, "allow"))) > 0 || hasAllowed(c.TypeEnv.GetByRef(entry(pkg, ruleResult)))
}

// withoutHelper leaves `deny` out where it is a boolean that `allow` is made of (allow if not deny).
func withoutHelper(c *ast.Compiler, pkg ast.Ref) []outcome {
	if !only(c.TypeEnv.GetByRef(entry(pkg, "deny")), isBoolean) || !helper(c, pkg, "allow") {
		return outcomes
	}
	return slices.DeleteFunc(slices.Clone(outcomes), func(o outcome) bool { return o.name == "deny" })
}

// helper says whether `deny` is not known to be a set and the rule that decides is made of it: so it counts already. One that nothing uses would
// deny nothing.
func helper(c *ast.Compiler, pkg ast.Ref, decides string) bool {
	deny := rulesAt(c, entry(pkg, "deny"))
	return len(deny) > 0 && !canBe(c.TypeEnv.GetByRef(entry(pkg, "deny")), isSet) && analyse(c, []ast.Ref{entry(pkg, decides)}).reached[deny[0]]
}

func isSet(t types.Type) bool { _, ok := t.(*types.Set); return ok }

// hasAllowed says whether a type is known to be an object with the name `allowed`.
func hasAllowed(t types.Type) bool {
	return canBe(t, func(t types.Type) bool {
		o, ok := t.(*types.Object)
		return ok && slices.ContainsFunc(o.StaticProperties(), func(p *types.StaticProperty) bool { return p.Key == "allowed" })
	})
}

// canBe says whether a value of the type is known to be possibly one that satisfies is.
func canBe(t types.Type, is func(types.Type) bool) bool {
	if any, ok := t.(types.Any); ok {
		return slices.ContainsFunc(any, is)
	}
	return t != nil && is(t)
}

// objectTypes are the names of the object with what is known of their types at load.
var objectTypes = map[string]struct {
	is   func(types.Type) bool
	want string
}{
	"allowed":                 {isBoolean, "a boolean"},
	"headers":                 {func(t types.Type) bool { return isObject(t) || isList(t) }, "an object or an array of objects"},
	"response_headers_to_add": {func(t types.Type) bool { return isObject(t) || isList(t) }, "an object or an array of objects"},

	"request_headers_to_remove":  {isList, "an array of names"},
	"query_parameters_to_remove": {isList, "an array of names"},
	"query_parameters_to_set":    {isObject, "an object"},
	"http_status":                {isNumber, "a number"},
	"body":                       {isString, "a string"},
	"dynamic_metadata":           {isObject, "an object"},
}

func isList(t types.Type) bool { _, ok := t.(*types.Array); return ok || isSet(t) }

func checkDecisionObject(t *types.Object) string {
	allowed := len(t.StaticProperties()) == 0 // nothing is known of its names
	for _, p := range t.StaticProperties() {
		name, _ := p.Key.(string)
		allowed = allowed || name == "allowed"
		if known, ok := objectTypes[name]; ok && !only(p.Value, known.is) {
			return fmt.Sprintf("%q: %s", name, wrongType(known.want, p.Value))
		}
	}
	if !allowed {
		return "is an object without `allowed`, which is neither yes nor no"
	}
	return ""
}

// readObject takes the object's names into the decision. Types are checked whether the name counts or not.
func readObject(o ast.Object, d *Decision) error {
	allowed, ok := lookup(o, "allowed").(ast.Boolean)
	if !ok {
		return errors.New("the object has no `allowed` that is a boolean")
	}
	d.Allow = bool(allowed)
	for _, part := range []struct {
		name string
		read func(ast.Value, *Decision) error
	}{
		{"headers", readObjectHeaders},
		{"request_headers_to_remove", readObjectRemove},
		{"response_headers_to_add", readObjectResponse},
		{"query_parameters_to_set", readQueryToSet},
		{"query_parameters_to_remove", readQueryToRemove},
		{"http_status", readHTTPStatus},
		{"body", readObjectBody},
		{"dynamic_metadata", readMetadata},
	} {
		v := lookup(o, part.name)
		if v == nil {
			continue
		}
		if err := part.read(v, d); err != nil {
			return fmt.Errorf("%s: %w", part.name, err)
		}
	}
	return nil
}

// lookup is one member of an object, nil when it is not there.
func lookup(o ast.Object, name string) ast.Value {
	if t := o.Get(ast.InternedTerm(name)); t != nil {
		return t.Value
	}
	return nil
}

// readObjectHeaders sets headers on the side to which they go.
func readObjectHeaders(v ast.Value, d *Decision) (err error) {
	if d.Allow {
		d.Headers, err = mergedHeaders(v, checkRequestHeader)
	} else {
		d.ResponseHeaders, err = mergedHeaders(v, checkResponseHeader)
	}
	return err
}

func readObjectResponse(v ast.Value, d *Decision) error {
	headers, err := mergedHeaders(v, checkResponseHeader)
	if d.Allow {
		d.ResponseHeaders = headers
	}
	return err
}

// mergedHeaders are those of an object, or of several.
func mergedHeaders(v ast.Value, check func(name, value string) error) (map[string]string, error) {
	objects := elements(v)
	if objects == nil {
		return headerMap(v, check)
	}
	all := map[string]string{}
	size := 0
	for _, t := range objects {
		some, err := headerMap(t.Value, check)
		if err != nil {
			return nil, err
		}
		for name, value := range some {
			if before, twice := all[name]; twice {
				if name == "set-cookie" {
					return nil, errors.New(`"set-cookie": one answer can set one cookie`)
				}
				value = before + "," + value
			}
			all[name] = value
			size += len(name) + len(value)
		}
	}
	if size > maxHeaderBytes {
		return nil, fmt.Errorf("%d bytes are more than the %d allowed", size, maxHeaderBytes)
	}
	return all, nil
}

// elements are those of an array or set; nil for another value.
func elements(v ast.Value) []*ast.Term {
	switch v := v.(type) {
	case ast.Set:
		return append([]*ast.Term{}, v.Slice()...)
	case *ast.Array:
		list := make([]*ast.Term, 0, v.Len())
		v.Foreach(func(t *ast.Term) { list = append(list, t) })
		return list
	}
	return nil
}

func readObjectRemove(v ast.Value, d *Decision) error {
	removed := Decision{Headers: d.Headers}
	err := readRemoveHeaders(v, &removed)
	if d.Allow {
		d.RemoveHeaders = removed.RemoveHeaders
	}
	return err
}

// readHTTPStatus takes every status that an answer can have, as the plugin does: a policy may answer a preflight, or redirect.
func readHTTPStatus(v ast.Value, d *Decision) error {
	n, ok := v.(ast.Number)
	if !ok {
		return fmt.Errorf("must be a number, not %s", typeName(v))
	}
	if d.Allow {
		return nil
	}
	status, err := strconv.Atoi(string(n))
	if err != nil || status < 200 || http.StatusText(status) == "" {
		return fmt.Errorf("%s is no status of an answer", clip(string(n)))
	}
	d.Status = status
	return nil
}

func readObjectBody(v ast.Value, d *Decision) error {
	if _, ok := v.(ast.String); !ok {
		return fmt.Errorf("must be a string, not %s", typeName(v))
	}
	if d.Allow {
		return nil
	}
	return readBody(v, d)
}

// maxParameters bounds the parameters of the query that a policy changes.
const maxParameters = 64

func readQueryToRemove(v ast.Value, d *Decision) error {
	names := elements(v)
	if names == nil {
		return fmt.Errorf("must be an array of names, not %s", typeName(v))
	}
	if len(names) > maxParameters {
		return fmt.Errorf("%d names are more than the %d allowed", len(names), maxParameters)
	}
	for _, t := range names {
		name, err := queryText(t.Value)
		if err != nil {
			return err
		}
		if d.Allow {
			d.RemoveQuery = append(d.RemoveQuery, name)
		}
	}
	return nil
}

func readQueryToSet(v ast.Value, d *Decision) error {
	o, ok := v.(ast.Object)
	if !ok {
		return fmt.Errorf("must be an object, not %s", typeName(v))
	}
	return o.Iter(func(k, v *ast.Term) error {
		name, err := queryText(k.Value)
		if err != nil {
			return err
		}
		values := elements(v.Value)
		if values == nil {
			values = []*ast.Term{v}
		}
		for _, t := range values {
			value, err := queryText(t.Value)
			if err != nil {
				return fmt.Errorf("%q: %w", clip(name), err)
			}
			if len(d.SetQuery) == maxParameters {
				return fmt.Errorf("more than the %d values allowed", maxParameters)
			}
			if d.Allow {
				d.SetQuery = append(d.SetQuery, Parameter{name, value})
			}
		}
		return nil
	})
}

// queryText is a name or value of a query. Envoy puts it there as it is, and refuses the answer if it would have to be encoded.
func queryText(v ast.Value) (string, error) {
	s, ok := v.(ast.String)
	if !ok {
		return "", fmt.Errorf("a name or value must be a string, not %s", typeName(v))
	}
	if strings.ContainsFunc(string(s), func(r rune) bool {
		return (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && !strings.ContainsRune("-_.~", r)
	}) {
		return "", fmt.Errorf("%q holds more than letters, digits and -_.~, which Envoy does not take in a query", clip(string(s)))
	}
	return string(s), nil
}
