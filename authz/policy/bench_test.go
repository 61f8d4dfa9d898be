package policy

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// examplePolicy is one of policies/examples: the benchmarks measure what the documentation shows.
func examplePolicy(b *testing.B, name string) *Policy {
	b.Helper()
	text, err := os.ReadFile(filepath.Join(policiesFolder, "examples", name+".rego"))
	if err != nil {
		b.Fatal(err)
	}
	p, err := loadText(b, string(text)).Policy("examples." + name)
	if err != nil {
		b.Fatal(err)
	}
	return p
}

func BenchmarkDecide(b *testing.B) {
	for _, name := range []string{"grafana", "one_group", "one_domain", "read_only", "grafana_roles"} {
		b.Run(name, func(b *testing.B) {
			p, in := examplePolicy(b, name), alice()
			b.ReportAllocs()
			for b.Loop() {
				if d := p.Decide(b.Context(), in); d.Err != nil {
					b.Fatal(d.Err)
				}
			}
		})
	}
}

func BenchmarkCached(b *testing.B) {
	for _, name := range []string{"grafana", "read_only"} {
		b.Run(name, func(b *testing.B) {
			p, in, c := examplePolicy(b, name), alice(), NewCache(1000, 1<<20)
			b.ReportAllocs()
			for b.Loop() {
				if d := c.Decide(b.Context(), p, in); d.Err != nil {
					b.Fatal(d.Err)
				}
			}
		})
	}
}

// BenchmarkLoad has as many policies as a large company has applications.
func BenchmarkLoad(b *testing.B) {
	all := corpusOf(b, nil)
	for i := range 1000 {
		all.sources = append(all.sources, source{file: fmt.Sprint(i), text: fmt.Sprintf("package app%d\nimport data.doorward.user\nallow if user.in_group(%q)\n", i, fmt.Sprint(i))})
	}
	for b.Loop() {
		if _, problems := load(b.Context(), all, 0); len(problems) > 0 {
			b.Fatal(report(problems))
		}
	}
}
