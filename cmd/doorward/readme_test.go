package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"doorward/authz/config"
	"doorward/authz/policy"
	"doorward/xds/cert"
)

// TestREADME tries what the README shows: its policies compile, and its smallest configuration loads.
func TestREADME(t *testing.T) {
	dir := t.TempDir()
	ca, err := cert.NewLocalCA(filepath.Join(dir, "ca"))
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := ca.Certificate("grafana.example.com")
	if err != nil {
		t.Fatal(err)
	}
	put := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("tls/grafana.pem", chain)
	put("tls/grafana.key", key)
	put("secrets/oidc", []byte("hush\n"))
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	policies, configurations := 0, 0
	for i, block := range indented(string(text)) {
		switch {
		case strings.HasPrefix(block, "package "):
			policies++
			set, err := policy.Load(t.Context(), policy.Config{Paths: []string{put("p"+string(rune('a'+i))+".rego", []byte(block))}})
			if err != nil {
				t.Errorf("%s\n%v", block, err)
			} else if _, err := set.Policy("grafana"); err != nil {
				t.Errorf("%s\n%v", block, err)
			}
		case strings.HasPrefix(block, "idp:"):
			configurations++
			if _, err := config.Load(put("doorward.yaml", []byte(block))); err != nil {
				t.Errorf("%s\n%v", block, err)
			}
		}
	}
	if policies == 0 || configurations == 0 {
		t.Errorf("the README shows %d policies and %d configurations", policies, configurations)
	}
}

// indented returns the code blocks of a Markdown text that are indented by four spaces.
func indented(text string) (blocks []string) {
	var block strings.Builder
	for line := range strings.Lines(text + "end\n") {
		switch {
		case strings.HasPrefix(line, "    "):
			block.WriteString(line[4:])
		case strings.TrimSpace(line) == "" && block.Len() > 0:
			block.WriteString("\n")
		case block.Len() > 0:
			blocks = append(blocks, block.String())
			block.Reset()
		}
	}
	return blocks
}
