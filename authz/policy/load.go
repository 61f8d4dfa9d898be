package policy

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/version"

	"doorward/authz/config"
)

// libraryRoot is the package that holds the library; a policy cannot be in it or below it.
const libraryRoot = "doorward"

// Load reads and compiles. Its error is a config.Problems with every problem found, each with file and line.
func Load(ctx context.Context, c Config) (*Set, error) {
	all, problems := read(c)
	set, more := load(ctx, all, c.Timeout)
	if problems = append(problems, more...); len(problems) > 0 {
		return nil, sorted(problems)
	}
	return set, nil
}

// load compiles what was read. OPA's compiler sees text that anybody may have written, so a panic of it is a problem like others.
func load(ctx context.Context, all *corpus, timeout time.Duration) (set *Set, problems config.Problems) {
	defer func() {
		if r := recover(); r != nil {
			set, problems = nil, append(problems, problem("", fmt.Sprintf("the policies cannot be compiled: %v", r)))
		}
	}()
	modules, problems := parseAll(all.sources)
	known := knownNames(modules, all.documents)
	if problems = append(problems, checkRoots(modules, all.sources, all.bundles)...); len(all.waiting) > 0 {
		withoutPackages(modules, unknownIn(modules, known))
	}
	compiler, problems := compileAll(modules, problems, all.sources, known)
	if compiler == nil {
		return nil, problems
	}
	problems = append(problems, all.documents.conflicts(compiler)...)
	problems = append(problems, checkRefs(compiler, known)...)
	set, more := assemble(ctx, compiler, all, timeout)
	return set, append(problems, more...)
}

// assemble makes the policies of what was compiled.
func assemble(ctx context.Context, compiler *ast.Compiler, all *corpus, timeout time.Duration) (*Set, config.Problems) {
	guardBuiltins()
	store := inmem.NewFromASTObject(all.documents.value) // whose values evaluations read without a copy
	txn, err := store.NewTransaction(ctx)
	if err != nil {
		return nil, config.Problems{problem("", err.Error())}
	}
	s := &Set{compiler: compiler, store: store, txn: txn, timeout: cmp.Or(timeout, defaultTimeout), policies: map[string]*Policy{}, waiting: all.waiting}
	s.policies[config.PolicyPublic] = builtinPolicy(config.PolicyPublic, public)
	s.policies[config.PolicyAnyAuthenticatedUser] = builtinPolicy(config.PolicyAnyAuthenticatedUser, anyUser)
	return s, s.prepareAll(all)
}

// Policy returns the built-in or the Rego package that a route names. The error of an unknown name says which names there are; while bundles
// are waited for, there is none, and the policy is one of those whose Waiting is an error.
func (s *Set) Policy(name string) (*Policy, error) {
	if p, ok := s.policies[name]; ok {
		return p, nil
	}
	if len(s.waiting) > 0 {
		p := builtinPolicy(name, absent)
		p.waiting = s.waiting
		return p, nil
	}
	names := s.Names()
	list := strings.Join(names, ", ") + didYouMean(name, names)
	if len(s.compiler.GetRulesWithPrefix(packageRef(name))) > 0 {
		return nil, fmt.Errorf("package %s has no rule `allow`, so it is no policy; there are: %s", name, list)
	}
	return nil, fmt.Errorf("there is no policy %q; there are: %s", name, list)
}

// Names are the built-ins and the packages that a route can name, sorted.
func (s *Set) Names() []string { return slices.Sorted(maps.Keys(s.policies)) }

// prepareAll makes a Policy of every package outside the library that decides.
func (s *Set) prepareAll(all *corpus) (problems config.Problems) {
	texts := map[string]string{}
	for _, src := range all.sources {
		texts[src.file] = src.text
	}
	reached := map[*ast.Rule]bool{}
	for _, m := range s.compiler.Modules {
		pkg := m.Package.Path
		name := packageName(pkg)
		if p := s.policies[name]; p != nil && p.kind != rego {
			problems = append(problems, config.Problem{
				Position: position(m.Package.Location),
				Message:  name + " is the name of a built-in policy; choose another name",
			})
		}
		if s.policies[name] != nil || isLibrary(pkg) || !decides(s.compiler, pkg) {
			continue
		}
		p, faults := s.prepare(name, pkg, texts, all.documents, reached)
		problems = append(problems, faults...)
		s.policies[name] = p
	}
	return append(problems, s.misspelt(reached)...)
}

// prepare checks the rules of the contract, follows what they read, and compiles the one query that evaluates them. The rules
// that it reaches are added to reached.
func (s *Set) prepare(name string, pkg ast.Ref, texts map[string]string, data *documents, reached map[*ast.Rule]bool) (*Policy, config.Problems) {
	rules := outcomesOf(s.compiler, pkg)
	problems := checkRules(s.compiler, pkg, rules)
	if len(problems) > 0 {
		return nil, problems
	}
	var entries []ast.Ref
	var query ast.Body
	value := ast.VarTerm("value")
	for _, o := range rules {
		ref := entry(pkg, o.name)
		if len(rulesAt(s.compiler, ref)) == 0 {
			continue
		}
		entries = append(entries, ref)
		// In an array, an undefined rule leaves the others alone.
		body := ast.NewBody(ast.Equality.Expr(value, ast.NewTerm(ref)))
		query.Append(ast.Equality.Expr(ast.VarTerm(o.name), ast.ArrayComprehensionTerm(value, body)))
	}
	a := analyse(s.compiler, entries)
	maps.Copy(reached, a.reached)
	places := a.reads.places(data)
	qc := s.compiler.QueryCompiler()
	compiled, err := qc.Compile(query)
	if err != nil {
		return nil, problemsOf("", err, nil)
	}
	return &Policy{
		usage: new(counters),
		name:  name,
		id:    digest(name, a.rules, texts, data, places),
		set:   s,
		query: compiled,
		qc:    qc,
		reads: a.reads.result(places),
		plan:  newPlan(&a.reads),
		rules: rules,
	}, a.problems
}

func builtinPolicy(name string, k kind) *Policy {
	return &Policy{usage: new(counters), name: name, kind: k, id: digest(fmt.Sprint(name, " ", k), nil, nil, nil, nil)}
}

// digest hashes the policy's name, the version of OPA, the files of all rules that it can reach, and the content of all data that it can read.
func digest(name string, rules []*ast.Rule, texts map[string]string, data *documents, places []ast.Ref) (sum [sha256.Size]byte) {
	parts := map[string]bool{}
	for _, r := range rules {
		parts[texts[r.Location.File]] = true
	}
	h := sha256.New()
	fmt.Fprintf(h, "doorward policy 2\n%s\n%s\n", version.Version, name)
	for _, text := range slices.Sorted(maps.Keys(parts)) {
		fmt.Fprintf(h, "%d\n%s", len(text), text)
	}
	for _, place := range places {
		fmt.Fprintf(h, "%d\n%s%x", len(place.String()), place, data.sum(place))
	}
	h.Sum(sum[:0])
	return sum
}

// rulesAt are the rules at a place, below it (claims["role"] := ...) and above it, in the order in which they are written.
func rulesAt(c *ast.Compiler, ref ast.Ref) []*ast.Rule {
	rules := c.GetRulesDynamicWithOpts(ref, ast.RulesOptions{IncludeHiddenModules: true})
	slices.SortFunc(rules, func(x, y *ast.Rule) int { return x.Location.Compare(y.Location) })
	return rules
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

// document reads from data what is no rule's; nil where there is nothing.
func (s *Set) document(ref ast.Ref) (ast.Value, error) {
	path, err := storage.NewPathForRef(ref)
	if err != nil {
		return nil, err
	}
	x, err := s.store.Read(context.Background(), s.txn, path)
	if storage.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return ast.InterfaceToValue(x)
}

// Files are the files of a policy's package, sorted; none for a built-in.
func (s *Set) Files(name string) []string {
	files := []string{}
	for file, m := range s.compiler.Modules {
		if packageName(m.Package.Path) == name {
			files = append(files, file)
		}
	}
	slices.Sort(files)
	return files
}
