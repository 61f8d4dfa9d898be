package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
)

// Format returns Rego source in its canonical form. The error is a config.Problems that names file and line.
func Format(file string, text []byte) ([]byte, error) {
	formatted, err := format.SourceWithOpts(file, text, format.Opts{
		RegoVersion:   ast.RegoV1,
		ParserOptions: &ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: capabilities()},
	})
	if err != nil {
		return nil, sorted(problemsOf(file, err, nil))
	}
	return formatted, nil
}
