package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/open-policy-agent/opa/v1/ast"

	"doorward/authz/config"
)

// parseAll parses every file and makes the checks that need no compiler.
func parseAll(sources []source) (map[string]*ast.Module, config.Problems) {
	modules := map[string]*ast.Module{}
	var problems config.Problems
	for _, s := range sources {
		m, err := ast.ParseModuleWithOpts(s.file, s.text, ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			problems = append(problems, problemsOf(s.file, err)...)
			continue
		}
		modules[s.file] = m
	}
	return modules, problems
}

func compile(modules map[string]*ast.Module) (*ast.Compiler, config.Problems) {
	c := ast.NewCompiler().
		WithDefaultRegoVersion(ast.RegoV1).
		WithEnablePrintStatements(false)
	c.SetErrorLimit(0)
	c.Compile(modules)
	if c.Failed() {
		return nil, problemsOf("", c.Errors)
	}
	return c, nil
}

// problemsOf turns OPA's errors into ours.
func problemsOf(file string, err error) (problems config.Problems) {
	var list ast.Errors
	if !errors.As(err, &list) {
		return config.Problems{{Position: config.Position{File: file}, Message: err.Error()}}
	}
	for _, e := range list {
		text := e.Message
		if e.Details != nil {
			text += ": " + strings.Join(e.Details.Lines(), " ")
		}
		problems = append(problems, config.Problem{Position: position(e.Location), Message: text})
	}
	return problems
}

func position(l *ast.Location) config.Position {
	if l == nil {
		return config.Position{}
	}
	return config.Position{File: l.File, Line: l.Row, Column: l.Col}
}

// nearest is the known name that is at most two edits, and a third of its length, away from the given one; "" when there is none.
func nearest(name string, known []string) string {
	best, distance := "", min(2, len(name)/3)+1
	for _, k := range known {
		if d := levenshtein.ComputeDistance(name, k); d < distance {
			best, distance = k, d
		}
	}
	return best
}

func builtinPolicy(name string, k kind) *Policy {
	sum := sha256.Sum256([]byte("doorward built-in policy " + name))
	return &Policy{name: name, kind: k, digest: hex.EncodeToString(sum[:])}
}

// digest is over all sources.
func digest(sources []source) string {
	h := sha256.New()
	texts := make([]string, len(sources))
	for i, s := range sources {
		texts[i] = s.text
	}
	slices.Sort(texts)
	for _, t := range texts {
		fmt.Fprintf(h, "%d:%s", len(t), t)
	}
	return hex.EncodeToString(h.Sum(nil))
}
