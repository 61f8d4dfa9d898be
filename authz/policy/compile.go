package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"doorward/authz/config"
)

// parseAll parses every file.
func parseAll(sources []source) (map[string]*ast.Module, config.Problems) {
	modules := map[string]*ast.Module{}
	options := ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true, Capabilities: capabilities()}
	var problems config.Problems
	for _, s := range sources {
		m, err := ast.ParseModuleWithOpts(s.file, s.text, options)
		switch {
		case ast.IsError(ast.ParseErr, err) && strings.HasSuffix(err.Error(), "empty module"):
			problems = append(problems, config.Problem{
				Position: config.Position{File: s.file, Line: 1, Column: 1},
				Message:  "is empty: a policy begins with its package",
			})
		case err != nil && isV0(s.file, s.text):
			found := problemsOf(s.file, err, nil)[0]
			found.Message += "; the file is Rego v0, which `doorward policy fmt --write` turns into v1 (as does `opa fmt --write --v0-v1`)"
			problems = append(problems, found)
		case err != nil:
			problems = append(problems, problemsOf(s.file, err, nil)...)
		case !s.library && isLibrary(m.Package.Path):
			problems = append(problems, config.Problem{
				Position: position(m.Package.Location),
				Message:  fmt.Sprintf("package %s is below data.%s, which is the library's; choose another name", packageName(m.Package.Path), libraryRoot),
			})
		default:
			modules[s.file] = m
		}
	}
	return modules, problems
}

// isV0 says whether text that is no Rego v1 is Rego of before OPA 1.0.
func isV0(file, text string) bool {
	_, err := ast.ParseModuleWithOpts(file, text, ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: capabilities()})
	return err == nil
}

// compileAll compiles the modules together. OPA stops at the first of its stages that finds a fault, and a file that does not parse makes
// others fail; so the faulty files are left out with all that refer to their packages, and the rest is compiled again, until
// every fault that can be told has been. The compiler that is returned has compiled what is left.
func compileAll(modules map[string]*ast.Module, problems config.Problems, sources []source, known *names) (*ast.Compiler, config.Problems) {
	faulty := map[string]bool{}
	for _, s := range sources {
		if modules[s.file] == nil {
			faulty[s.file] = true
		}
	}
	modules = maps.Clone(modules)
	problems = append(problems, checkImports(modules, known)...)
	withoutPackages(modules, packagesOf(faulty, sources))
	for {
		c := newCompiler()
		c.Compile(modules)
		if !c.Failed() {
			return c, problems
		}
		problems = append(problems, problemsOf("", c.Errors, known)...)
		before := len(modules)
		packages := map[string]bool{}
		for _, e := range c.Errors {
			if e.Location == nil {
				continue
			}
			if m := modules[e.Location.File]; m != nil {
				packages[packageName(m.Package.Path)] = true
			}
		}
		withoutPackages(modules, packages)
		if len(modules) == before {
			return nil, problems
		}
	}
}

func newCompiler() *ast.Compiler {
	c := ast.NewCompiler().
		WithDefaultRegoVersion(ast.RegoV1).
		WithCapabilities(capabilities()).
		WithSchemas(schemas()).
		WithEnablePrintStatements(false)
	c.SetErrorLimit(0)
	return c
}

// withoutPackages removes the packages, and those that refer to a removed one, whose errors would only be consequences.
func withoutPackages(modules map[string]*ast.Module, packages map[string]bool) {
	for grown := len(packages) > 0; grown; {
		grown = false
		for file, m := range modules {
			if name := packageName(m.Package.Path); packages[name] || refersTo(m, packages) {
				delete(modules, file)
				grown = grown || !packages[name]
				packages[name] = true
			}
		}
	}
}

// unknownIn are the packages that refer to data or rules that do not exist, which a bundle may bring.
func unknownIn(modules map[string]*ast.Module, known *names) map[string]bool {
	packages := map[string]bool{}
	for _, m := range modules {
		ast.WalkRefs(m, func(ref ast.Ref) bool {
			if ref.HasPrefix(ast.DefaultRootRef) && !known.exists(constant(ref)) {
				packages[packageName(m.Package.Path)] = true
			}
			return false
		})
	}
	return packages
}

func refersTo(m *ast.Module, packages map[string]bool) (found bool) {
	ast.WalkRefs(m, func(ref ast.Ref) bool {
		if ref.HasPrefix(ast.DefaultRootRef) {
			name := packageName(ref.ConstantPrefix())
			for p := range packages {
				found = found || within(name, p) || within(p, name)
			}
		}
		return found
	})
	return found
}

// within says whether a dotted name is the other or below it.
func within(name, outer string) bool {
	return name == outer || outer == "" || len(name) > len(outer) && name[:len(outer)] == outer && name[len(outer)] == '.'
}

// packagesOf are the packages of files that did not parse, as far as their text tells.
func packagesOf(files map[string]bool, sources []source) map[string]bool {
	packages := map[string]bool{}
	for _, s := range sources {
		if !files[s.file] {
			continue
		}
		if name := packageLine(s.text); name != "" {
			packages[name] = true
		}
	}
	return packages
}

func sorted(problems config.Problems) config.Problems {
	slices.SortFunc(problems, func(a, b config.Problem) int {
		return cmp.Or(cmp.Compare(a.File, b.File), cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Message, b.Message))
	})
	return slices.Compact(problems)
}

// problemsOf turns OPA's errors into ours. Names may be nil.
func problemsOf(file string, err error, names *names) (problems config.Problems) {
	var list ast.Errors
	var one *ast.Error
	switch {
	case errors.As(err, &list):
	case errors.As(err, &one):
		list = ast.Errors{one}
	default:
		return config.Problems{problem(file, err.Error())}
	}
	for _, e := range list {
		p := config.Problem{Position: position(e.Location), Message: explain(e, names)}
		p.File = cmp.Or(p.File, file)
		problems = append(problems, p)
	}
	return problems
}

func problem(file, message string) config.Problem {
	return config.Problem{Position: config.Position{File: file}, Message: message}
}

func position(l *ast.Location) config.Position {
	if l == nil {
		return config.Position{}
	}
	return config.Position{File: l.File, Line: l.Row, Column: l.Col}
}
