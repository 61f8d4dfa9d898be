package policy

import "testing"

// TestFormatTurnsOldRegoIntoNew: what OPA before 1.0 understood becomes what is understood now.
func TestFormatTurnsOldRegoIntoNew(t *testing.T) {
	old := "package envoy.authz\n\ndefault allow = false\n\nallow { input.attributes.request.http.method == \"GET\" }\n\ndeny[reason] { reason := \"no\" }\n"
	want := "package envoy.authz\n\ndefault allow := false\n\nallow if input.attributes.request.http.method == \"GET\"\n\ndeny contains reason if reason := \"no\"\n"
	got, err := Format("p.rego", []byte(old))
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if _, problems := loadSource(t, string(got)); len(problems) > 0 {
		t.Error(report(problems))
	}
}
