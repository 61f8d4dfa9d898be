package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a policy's author has written is not obeyed by the terminal of whoever tries it.
func TestPoliciesDoNotSteerTheTerminal(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good/p.rego":      "package p\n\nallow if input.request.method == \"GET\"\n",
		"good/p_test.rego": "package p_test\n\ntest_title if {\n\tprint(\"\\u001b]0;title\\u0007\\u202e\")\n\t\"a\" == \"\\u001b[2J\"\n}\n",
		"bad/p.rego":       "package p\n\nallow if input.request[\"\x1b[2J\"]\n\n\x1b[2J\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct{ args, has string }{
		{"policy test good", "]0;title"},
		{"policy test bad", "no test was run"},
		{"policy check bad", "problem"},
		{"policy fmt bad", "p.rego:"},
	} {
		var out strings.Builder
		cmd := root()
		args := strings.Fields(row.args)
		args[2] = filepath.Join(dir, args[2])
		cmd.SetArgs(args)
		cmd.SetOut(&out)
		if err := cmd.Execute(); err == nil {
			t.Errorf("%s: no error", row.args)
		}
		if !strings.Contains(out.String(), row.has) || strings.ContainsAny(out.String(), "\x1b\x07\u202e") {
			t.Errorf("%s: %q", row.args, out.String())
		}
	}
}
