package main

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"doorward/cmd/internal/markdown"
)

// TestREADMETranscript types what the README shows as typed, beside the files of the walk-through, and holds what is printed.
func TestREADMETranscript(t *testing.T) {
	text, dir := readme(t), t.TempDir()
	t.Chdir(dir)
	put(t, filepath.Join(dir, "doorward.yaml"), "routes:\n"+
		"  - {name: wiki, from: \"https://wiki.localhost:8443\", to: \"http://127.0.0.1:8080\", policy: wiki}\n"+
		"listen: {https: \":8443\"}\nidp: {issuer: \"https://idp.example.com\", client_id: doorward}\n")
	for _, block := range markdown.Blocks(markdown.Section(text, walkthrough)) {
		if strings.HasPrefix(block, "package ") {
			put(t, filepath.Join(dir, "policies", packageFile(block)), block)
		}
	}
	typed := 0
	for _, block := range markdown.Blocks(text) {
		commands, ok := strings.CutPrefix(block, "$ ")
		if !ok {
			continue
		}
		for shown := range strings.SplitSeq(commands, "\n$ ") {
			line, want, _ := strings.Cut(shown, "\n")
			typed++
			if got := typeLine(t, line); timeless(got) != timeless(want) {
				t.Errorf("%s\ngot\n%s\nwant\n%s", line, got, want)
			}
		}
	}
	if typed != 3 {
		t.Errorf("%d commands were typed", typed)
	}
}

// took is how long tests have taken.
var took = regexp.MustCompile(`(?m) \([0-9.]+[mµ]?s\)$`)

// timeless is what was printed without times.
func timeless(printed string) string { return took.ReplaceAllString(strings.TrimSpace(printed), "") }

// typeLine runs a command and returns what it prints.
func typeLine(t *testing.T, line string) string {
	t.Helper()
	var out strings.Builder
	cmd := root()
	cmd.SetArgs(strings.Fields(line)[1:])
	cmd.SetOut(&out)
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Errorf("%s: %v", line, err)
	}
	return out.String()
}
