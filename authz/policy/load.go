package policy

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"doorward/authz/config"
)

// libraryRoot is the package that holds the library; a policy cannot be in it or below it.
const libraryRoot = "doorward"

// Load reads and compiles. Its error is a config.Problems with every problem found, each with file and line.
func Load(ctx context.Context, c Config) (*Set, error) {
	sources, problems := readAll(c.Paths)
	set, more := load(ctx, sources, c)
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, problems
	}
	return set, nil
}

// load compiles what was read.
func load(ctx context.Context, sources []source, c Config) (*Set, config.Problems) {
	modules, problems := parseAll(sources)
	if len(problems) > 0 {
		return nil, problems
	}
	compiler, problems := compile(modules)
	if len(problems) > 0 {
		return nil, problems
	}
	store := inmem.New()
	txn, err := store.NewTransaction(ctx, storage.TransactionParams{})
	if err != nil {
		return nil, config.Problems{{Message: err.Error()}}
	}
	s := &Set{compiler: compiler, store: store, txn: txn, timeout: c.Timeout, policies: map[string]*Policy{}}
	if s.timeout <= 0 {
		s.timeout = defaultTimeout
	}
	s.policies[config.PolicyPublic] = builtinPolicy(config.PolicyPublic, public)
	s.policies[config.PolicyAnyAuthenticatedUser] = builtinPolicy(config.PolicyAnyAuthenticatedUser, anyUser)
	return s, s.prepareAll(sources)
}

// Policy returns the built-in or the Rego package that a route names. The error of an unknown name says which names there are.
func (s *Set) Policy(name string) (*Policy, error) {
	if p, ok := s.policies[name]; ok {
		return p, nil
	}
	names := s.Names()
	hint := ""
	if near := nearest(name, names); near != "" {
		hint = fmt.Sprintf("; did you mean %q?", near)
	}
	if ref := packageRef(name); len(s.compiler.GetRulesWithPrefix(ref)) > 0 && !strings.HasPrefix(name+".", libraryRoot+".") {
		return nil, fmt.Errorf("package %s has no rule `allow`, so it cannot be a route's policy; there are: %s%s", name, strings.Join(names, ", "), hint)
	}
	return nil, fmt.Errorf("there is no policy %q; there are: %s%s", name, strings.Join(names, ", "), hint)
}

// Names are the built-ins and the packages that a route can name, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.policies)) }

// prepareAll makes a Policy of every package outside the library that has a rule `allow`.
func (s *Set) prepareAll(sources []source) (problems config.Problems) {
	for _, m := range s.compiler.Modules {
		ref := m.Package.Path
		name := packageName(ref)
		if s.policies[name] != nil || isLibrary(ref) || len(s.compiler.GetRulesExact(entry(ref, "allow"))) == 0 {
			continue
		}
		p, err := s.prepare(name, ref)
		if err != nil {
			problems = append(problems, config.Problem{Position: position(m.Package.Location), Message: err.Error()})
			continue
		}
		p.digest = digest(sources)
		s.policies[name] = p
	}
	return problems
}

// prepare compiles the one query that evaluates the rules of the contract, and only those: each in an array, so that an undefined one
// leaves the others alone.
func (s *Set) prepare(name string, ref ast.Ref) (*Policy, error) {
	var query ast.Body
	value := ast.VarTerm("value")
	for _, rule := range outcomes {
		rules := s.compiler.GetRulesExact(entry(ref, rule))
		if len(rules) == 0 {
			continue
		}
		body := ast.NewBody(ast.Equality.Expr(value, ast.NewTerm(entry(ref, rule))))
		query.Append(ast.Equality.Expr(ast.VarTerm(rule), ast.ArrayComprehensionTerm(value, body)))
	}
	qc := s.compiler.QueryCompiler()
	compiled, err := qc.Compile(query)
	if err != nil {
		return nil, err
	}
	return &Policy{name: name, set: s, query: compiled, qc: qc}, nil
}

func entry(pkg ast.Ref, rule string) ast.Ref { return pkg.Append(ast.StringTerm(rule)) }

// packageRef is data.acme.grafana for "acme.grafana".
func packageRef(name string) ast.Ref {
	ref := ast.Ref{ast.DefaultRootDocument}
	for part := range strings.SplitSeq(name, ".") {
		ref = append(ref, ast.StringTerm(part))
	}
	return ref
}

// packageName is the inverse of packageRef.
func packageName(ref ast.Ref) string {
	parts := make([]string, 0, len(ref))
	for _, t := range ref[1:] {
		parts = append(parts, strings.Trim(t.Value.String(), `"`))
	}
	return strings.Join(parts, ".")
}

func isLibrary(ref ast.Ref) bool { return ref.HasPrefix(packageRef(libraryRoot)) }
