package config

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"

	"github.com/rogpeppe/go-internal/txtar"
)

// Whatever a file holds, it is loaded or refused with problems that say where and what; never is there a panic.
func FuzzLoad(f *testing.F) {
	f.Add([]byte(smallest))
	f.Add([]byte(everything))
	archives, err := filepath.Glob("testdata/faults/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range archives {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(archive.Files[0].Data)
	}
	dir := write(f, newFixtures(f))
	path := filepath.Join(dir, "doorward.yaml")
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := Load(path)
		if err != nil {
			checkProblems(t, err)
			return
		}
		again, err := Load(path)
		if err != nil || again.Checksum != c.Checksum {
			t.Fatalf("loaded twice: %v", err)
		}
		hosts := c.Hosts()
		for i, r := range c.Routes {
			if r.Revision("") != again.Routes[i].Revision("") {
				t.Errorf("route %s has two revisions", r.Name)
			}
			if hosts[r.Host()].IsZero() || r.Source.Line < 1 || r.Policy == "" {
				t.Errorf("route %+v is not complete", r)
			}
		}
	})
}

func checkProblems(t *testing.T, err error) {
	t.Helper()
	var problems Problems
	if !errors.As(err, &problems) || len(problems) == 0 || len(problems) > maxProblems+1 {
		t.Fatalf("the error is %T with %d problems", err, len(problems))
	}
	for _, p := range problems {
		if p.Message == "" || p.File == "" || strings.ContainsFunc(p.String(), unicode.IsControl) {
			t.Errorf("problem %+v does not say what and where", p)
		}
	}
}
