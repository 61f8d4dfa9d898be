package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/format"
)

// Format returns Rego source in its canonical form. Rego of before OPA 1.0 becomes Rego v1. The error is a config.Problems that names file and
// line.
func Format(file string, text []byte) ([]byte, error) {
	formatted, err := formatAs(ast.RegoV1, file, text)
	if err != nil && isV0(file, string(text)) {
		formatted, err = formatAs(ast.RegoV0, file, text)
	}
	if err != nil {
		return nil, sorted(problemsOf(file, err, nil))
	}
	return formatted, nil
}

// formatAs writes Rego v1 from source in a version.
func formatAs(version ast.RegoVersion, file string, text []byte) ([]byte, error) {
	return format.SourceWithOpts(file, text, format.Opts{
		RegoVersion:   ast.RegoV1,
		ParserOptions: &ast.ParserOptions{RegoVersion: version, Capabilities: capabilities()},
	})
}
