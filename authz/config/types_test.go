package config

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

func mustURL(t testing.TB, s string) URL {
	t.Helper()
	u, err := ParseURL(s)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// No way of printing a secret, alone or in what holds it, shows it.
func TestSecretsAreRedacted(t *testing.T) {
	const hush = "hush-hush"
	c := Config{IDP: IDPs{{ClientID: "doorward", ClientSecret: hush}}}
	s := c.IDP[0].ClientSecret
	printed := map[string]string{"String": s.String()}
	for _, verb := range []string{"%s", "%v", "%+v", "%#v", "%q", "%x", "%X", "%d", "%10s"} {
		printed["fmt "+verb] = fmt.Sprintf(verb, s)
		printed["fmt in "+verb] = fmt.Sprintf(verb, c)
		printed["fmt pointer in "+verb] = fmt.Sprintf(verb, &c)
	}
	var log bytes.Buffer
	for _, handler := range []slog.Handler{slog.NewTextHandler(&log, nil), slog.NewJSONHandler(&log, nil)} {
		log.Reset()
		slog.New(handler).Info("loaded", "secret", s, "idp", c.IDP, "config", &c)
		printed[fmt.Sprintf("%T", handler)] = log.String()
	}
	for name, marshal := range map[string]func(any) ([]byte, error){"json": json.Marshal, "yaml": yaml.Marshal} {
		for _, v := range []any{s, c, &c} {
			out, err := marshal(v)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			printed[name+fmt.Sprintf(" %T", v)] = string(out)
		}
	}
	for how, text := range printed {
		if strings.Contains(text, hush) || strings.Contains(text, fmt.Sprintf("%x", hush)) || !strings.Contains(text, "[redacted]") {
			t.Errorf("%s prints %s", how, text)
		}
	}
	if string(s) != hush {
		t.Error("the secret cannot be read any more")
	}
}

func TestURL(t *testing.T) {
	for _, row := range []struct {
		given, hostname string
		port            int
		host, path      string
		origin          string
	}{
		{"https://grafana.example.com", "grafana.example.com", 443, "grafana.example.com", "", "https://grafana.example.com"},
		{"HTTPS://Grafana.Example.com:443/", "grafana.example.com", 443, "grafana.example.com:443", "/", "https://grafana.example.com"},
		{"https://grafana.localhost:8443", "grafana.localhost", 8443, "grafana.localhost:8443", "", "https://grafana.localhost:8443"},
		{"http://grafana:3000", "grafana", 3000, "grafana:3000", "", "http://grafana:3000"},
		{"http://my_app", "my_app", 80, "my_app", "", "http://my_app"},
		{"https://[FD00::1]:8443", "fd00::1", 8443, "[fd00::1]:8443", "", "https://[fd00::1]:8443"},
		{"https://[::1]", "::1", 443, "[::1]", "", "https://[::1]"},
		{"https://idp.example.com/realms/ma in", "idp.example.com", 443, "idp.example.com", "/realms/ma%20in", "https://idp.example.com"},
	} {
		u := mustURL(t, row.given)
		if u.String() != row.given || u.Hostname() != row.hostname || u.Port() != row.port || u.Host() != row.host || u.Path() != row.path ||
			u.Origin() != row.origin || u.Scheme() != strings.ToLower(u.Scheme()) || u.IsZero() {
			t.Errorf("%s: %q %d %q %q %q", u, u.Hostname(), u.Port(), u.Host(), u.Path(), u.Origin())
		}
	}
	var zero URL
	if !zero.IsZero() || zero.Port() != 0 || zero.Origin() != "" || zero.Hostname() != "" || zero.Host() != "" {
		t.Error("the zero URL is not empty")
	}
}

func TestBadURLs(t *testing.T) {
	for _, s := range []string{
		"", "/", "a", "a.example.com", "//a.example.com", "https:", "https:a", "https:/a", "https://", "https:///a", "javascript://a", "file:///a",
		"https://a@b", "https://a:b@c", "https://:@c", "https://@c", "https://a?", "https://a#", "https://a/?b", "https://a/#b", "https://a:", "https://a:b",
		"https://a:0", "https://a:65536", "https://a:-1", "https://a:+1", "https://a:01", "https://:443", "https://[::1", "https://::1", "https://[a]",
		"https://[::1%25eth0]", "https://[1.2.3.4]", "https://a b", "https://a\tb", " https://a", "https://a\n", "https://a\x00", "https://a\\b", "https://a%41",
		"https://a..b", "https://.a", "https://a.", "https://-a", "https://a-", "https://*.a", "https://a*b", "https://1.2.3", "https://1.2.3.256", "https://é",
		"https://a,b", "https://a/%zz", "https://" + strings.Repeat("a.", 127) + "aa",
	} {
		if u, err := ParseURL(s); err == nil {
			t.Errorf("%q was taken for %+v", s, u)
		} else if strings.Contains(err.Error(), "\n") || strings.HasPrefix(err.Error(), "parse ") {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// Whatever is written of a route changes its revision; where it stands and what is only tried beside it do not.
func TestRevision(t *testing.T) {
	zero, seen := Route{}.Revision("digest"), map[string]string{}
	seen[zero] = "nothing"
	note := func(what string, r Route, digest string) {
		t.Helper()
		revision := r.Revision(digest)
		if len(revision) != 16 {
			t.Errorf("%s: revision %q", what, revision)
		}
		if before, taken := seen[revision]; taken {
			t.Errorf("%s does not differ from %s", what, before)
		}
		seen[revision] = what
		if again := r.Revision(digest); again != revision {
			t.Errorf("%s: %s and %s", what, revision, again)
		}
	}
	route := reflect.TypeFor[Route]()
	for i := range route.NumField() {
		f := route.Field(i)
		if f.Name == "Source" || f.Name == "ShadowPolicy" || !f.IsExported() {
			continue
		}
		var r Route
		for _, leaf := range leaves(t, reflect.ValueOf(&r).Elem().Field(i)) {
			var r Route
			leaf.set(reflect.ValueOf(&r).Elem().Field(i))
			note(f.Name+leaf.name, r, "digest")
		}
	}
	note("the policy", Route{}, "other")
	note("the content of a file", Route{contents: "other"}, "digest")
	if (Route{ShadowPolicy: "next"}).Revision("digest") != zero {
		t.Error("the shadow policy changes the revision")
	}
	if (Route{Source: Position{"a.yaml", 1, 2}}).Revision("digest") != zero {
		t.Error("where a route stands changes its revision")
	}
}

// leaf is one thing that a value can hold.
type leaf struct {
	name string
	set  func(reflect.Value)
}

// leaves lists what can be written into a value, field by field.
func leaves(t *testing.T, v reflect.Value) []leaf {
	t.Helper()
	switch v.Interface().(type) {
	case URL:
		return []leaf{{"", func(v reflect.Value) { v.Set(reflect.ValueOf(mustURL(t, "https://a.example.com"))) }}}
	}
	inner := func(elem reflect.Type, name string, wrap func(outer, elem reflect.Value)) (all []leaf) {
		for _, l := range leaves(t, reflect.New(elem).Elem()) {
			all = append(all, leaf{name + l.name, func(outer reflect.Value) {
				e := reflect.New(elem).Elem()
				l.set(e)
				wrap(outer, e)
			}})
		}
		return all
	}
	switch v.Kind() {
	case reflect.String:
		return []leaf{{"", func(v reflect.Value) { v.SetString("x") }}}
	case reflect.Bool:
		return []leaf{{"", func(v reflect.Value) { v.SetBool(true) }}}
	case reflect.Int, reflect.Int64:
		return []leaf{{"", func(v reflect.Value) { v.SetInt(7) }}}
	case reflect.Uint32:
		return []leaf{{"", func(v reflect.Value) { v.SetUint(7) }}}
	case reflect.Pointer:
		return append(inner(v.Type().Elem(), "*", func(outer, e reflect.Value) {
			outer.Set(reflect.New(e.Type()))
			outer.Elem().Set(e)
		}), leaf{" empty", func(v reflect.Value) { v.Set(reflect.New(v.Type().Elem())) }})
	case reflect.Slice:
		return inner(v.Type().Elem(), "[]", func(outer, e reflect.Value) { outer.Set(reflect.Append(outer, e)) })
	case reflect.Map:
		return append(inner(v.Type().Elem(), "[k]", func(outer, e reflect.Value) {
			outer.Set(reflect.MakeMap(outer.Type()))
			outer.SetMapIndex(reflect.ValueOf("k"), e)
		}), leaf{"[l]", func(v reflect.Value) {
			v.Set(reflect.MakeMap(v.Type()))
			v.SetMapIndex(reflect.ValueOf("l"), reflect.Zero(v.Type().Elem()))
		}})
	case reflect.Struct:
		var all []leaf
		for i := range v.NumField() {
			for _, l := range leaves(t, v.Field(i)) {
				all = append(all, leaf{"." + v.Type().Field(i).Name + l.name, func(v reflect.Value) { l.set(v.Field(i)) }})
			}
		}
		return all
	}
	t.Fatalf("the revision's test does not know %s", v.Type())
	return nil
}

func TestNearest(t *testing.T) {
	known := []string{"name", "from", "to", "policy", "prefix", "path", "timeout", "idle_timeout"}
	for word, want := range map[string]string{
		"polcy": "policy", "Policy": "policy", "frmo": "from", "form": "from", "pth": "path", "idle-timeout": "idle_timeout", "idletimeout": "idle_timeout",
		"colour": "", "x": "", "": "", strings.Repeat("policy", 20): "", "tmieout": "timeout",
	} {
		if got := nearest(word, known); got != want {
			t.Errorf("nearest to %q is %q, want %q", word, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"0B": 0, "65536B": 64 << 10, "64KiB": 64 << 10, "100MiB": 100 << 20, "2GiB": 2 << 30} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
		if got, err := parseSize(want.String()); err != nil || got != want {
			t.Errorf("%d is written %s", want, want)
		}
	}
	for _, text := range []string{"", "1", "1.5MiB", "-1MiB", "+1MiB", "MiB", "1 MiB", "1MB", "1mib", "9999999999GiB", "9223372036854775808B"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q is %d", text, got)
		}
	}
}

func TestShares(t *testing.T) {
	for text, want := range map[string]Share{"0": 0, "1": 1, "0.05": 0.05, "1e-3": 0.001} {
		if got, err := parseShare(text); err != nil || got != want {
			t.Errorf("%s is %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-0.1", "1.1", "NaN", "Inf", "10%", "half"} {
		if got, err := parseShare(text); err == nil {
			t.Errorf("%q is %v", text, got)
		}
	}
}
