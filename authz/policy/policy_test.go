package policy

import (
	"context"
	"os"
	"path/filepath"
	"testing"
)

// loadText loads one policy file with the library.
func loadText(t testing.TB, text string) *Set {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.rego")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatalf("%#v", err)
	}
	s, err := Load(context.Background(), Config{Paths: []string{file}})
	if err != nil {
		t.Fatalf("%#v", err)
	}
	return s
}

func alice() *Input {
	return &Input{
		User:    &User{ID: "alice", Email: "alice@example.com", EmailVerified: true, Name: "Alice", Groups: []string{"engineering", "grafana-admins"}, Claims: map[string]any{"department": "tools"}},
		Session: &Session{ID: "5e5510", Created: 1000, Expires: 2000, Version: 1},
		Request: Request{Method: "GET", Scheme: "https", Host: "grafana.example.com", Path: "/d/x", Query: "a=1&a=2&b=", ClientIP: "192.0.2.7"},
		Route:   Route{Name: "grafana", Host: "grafana.example.com", Labels: map[string]string{"team": "tools"}},
	}
}

func TestDecideFirst(t *testing.T) {
	s := loadText(t, `package grafana
import data.doorward.user
allow if user.in_any_group(["grafana-admins", "viewers"])
deny contains "no group" if count(input.user.groups) == 0
claims := {"role": role, "groups": input.user.groups}
role := "Admin" if user.in_group("grafana-admins") else := "Viewer"
headers := {"X-User": input.user.email, "x-groups": input.user.groups}
`)
	p, err := s.Policy("grafana")
	if err != nil {
		t.Fatalf("%#v", err)
	}
	t.Logf("%+v", p.Decide(t.Context(), alice()))
}

func BenchmarkFirst(b *testing.B) {
	s := loadText(b, `package grafana
import data.doorward.user
allow if user.in_any_group(["grafana-admins", "viewers"])
deny contains "no group" if count(input.user.groups) == 0
claims := {"role": role}
role := "Admin" if user.in_group("grafana-admins") else := "Viewer"
`)
	p, err := s.Policy("grafana")
	if err != nil {
		b.Fatal(err)
	}
	in := alice()
	b.ReportAllocs()
	for b.Loop() {
		if d := p.Decide(b.Context(), in); !d.Allow {
			b.Fatal(d)
		}
	}
}
