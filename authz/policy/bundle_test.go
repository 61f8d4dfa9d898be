package policy

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/bundle"

	"doorward/authz/config"
)

// keyPair is an ES256 key as PEM, private and public.
func keyPair(t testing.TB) (private string, public []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	open, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: open})
}

// builtBundle writes a bundle as opa build does, signed if there is a private key.
func builtBundle(t testing.TB, manifest bundle.Manifest, data map[string]any, modules map[string]string, private string) []byte {
	t.Helper()
	manifest.Init()
	if data == nil {
		data = map[string]any{}
	}
	b := bundle.Bundle{Manifest: manifest, Data: data}
	for _, name := range slices.Sorted(maps.Keys(modules)) {
		b.Modules = append(b.Modules, bundle.ModuleFile{URL: name, Path: name, Raw: []byte(modules[name])})
	}
	if private != "" {
		if err := b.GenerateSignature(bundle.NewSigningConfig(private, "ES256", ""), "any", false); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	if err := bundle.NewWriter(&out).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// packed is a gzipped tar archive of headers with their contents.
func packed(t testing.TB, entries ...tarEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, e := range entries {
		if e.Typeflag == 0 {
			e.Typeflag = tar.TypeReg
		}
		if e.Size == 0 {
			e.Size = int64(len(e.text))
		}
		e.Mode = 0o600
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatal(err)
		}
		if e.Typeflag == tar.TypeReg {
			if _, err := io.CopyN(w, io.MultiReader(strings.NewReader(e.text), zeros{}), e.Size); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

type tarEntry struct {
	tar.Header
	text string
}

func file(name, text string) tarEntry { return tarEntry{tar.Header{Name: name}, text} }

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// repacked is an archive with each file passed through change; nil leaves it out.
func repacked(t testing.TB, archive []byte, change func(name, text string) *tarEntry) []byte {
	t.Helper()
	zipped, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		t.Fatal(err)
	}
	var entries []tarEntry
	for r := tar.NewReader(zipped); ; {
		header, err := r.Next()
		if err == io.EOF {
			break
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if e := change(header.Name, string(text)); e != nil {
			entries = append(entries, *e)
		}
	}
	return packed(t, entries...)
}

var acme = map[string]string{
	"/acme/shop.rego":      "package acme.shop\n\nimport data.acme.roles\n\nallow if roles[input.user.id] == \"seller\"\n",
	"/acme/shop_test.rego": "package acme.shop_test\n\ntest_x if http.send({})\n",
}

func acmeData() map[string]any {
	return map[string]any{"acme": map[string]any{"roles": map[string]any{"alice-id": "seller"}}}
}

func roots(list ...string) bundle.Manifest { return bundle.Manifest{Revision: "7", Roots: &list} }

func TestABundleDecides(t *testing.T) {
	private, public := keyPair(t)
	b, err := ReadBundle("acme", builtBundle(t, roots("acme"), acmeData(), acme, private), &Verification{Key: public, Algorithm: "ES256"})
	if err != nil {
		t.Fatal(err)
	}
	dir := write(t, map[string]string{"local.rego": "package local\nallow if data.acme.roles[input.user.id]\ndeny contains \"closed\" if data.closed", "data.json": `{"closed": false}`})
	s, err := Load(t.Context(), Config{Paths: []string{dir}, Bundles: []*Bundle{b}})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"acme.shop", "local"} {
		p, err := s.Policy(name)
		if err != nil {
			t.Fatal(err)
		}
		if d := p.Decide(t.Context(), alice()); !d.Allow || d.Err != nil {
			t.Errorf("%s: %+v", name, d)
		}
		in := alice()
		in.User.ID = "bob"
		if p.Decide(t.Context(), in).Allow {
			t.Errorf("%s lets bob in", name)
		}
		if got := strings.Join(p.Reads().Data, " "); !strings.HasPrefix(got, "data.acme.roles") {
			t.Errorf("%s reads %s", name, got)
		}
	}
	if b.Revision() != "7" || b.Name() != "acme" || len(b.Sum()) != 64 {
		t.Errorf("the bundle is %+v", b)
	}
}

// TestBundlesThatAreRefused has an archive and what is said about it.
func TestBundlesThatAreRefused(t *testing.T) {
	private, public := keyPair(t)
	strange, _ := keyPair(t)
	verified := &Verification{Key: public, Algorithm: "ES256"}
	signed := builtBundle(t, roots("acme"), acmeData(), acme, private)
	unsigned := builtBundle(t, roots("acme"), acmeData(), acme, "")
	version := func(n int) bundle.Manifest { m := roots(""); m.RegoVersion = &n; return m }
	one := 1
	mixed := bundle.Manifest{RegoVersion: &one, FileRegoVersions: map[string]int{"/old/*.rego": 0}}
	changed := func(name, text string) []byte {
		return repacked(t, signed, func(n, old string) *tarEntry {
			e := file(n, old)
			if n == name {
				e.text = text
			}
			return &e
		})
	}
	with := func(e tarEntry) []byte {
		first := true
		return repacked(t, signed, func(n, old string) *tarEntry {
			if same := file(n, old); !first {
				return &same
			}
			first = false
			return &e
		})
	}
	for _, row := range []struct {
		name    string
		archive []byte
		v       *Verification
		want    string
	}{
		{"signed", signed, verified, ""},
		{"unsigned, without a key", unsigned, nil, ""},
		{"unsigned", unsigned, verified, "is not signed, and signing is configured: build it with opa build --signing-key"},
		{"signed, without a key", signed, nil, "is signed, and there is no key to verify it with: set signing.key_file, or serve it unsigned"},
		{"signed by another", builtBundle(t, roots("acme"), acmeData(), acme, strange), verified, "is refused: failed to verify JWT signature: "},
		{"another algorithm", signed, &Verification{Key: public, Algorithm: "RS256"}, "is refused: failed to verify JWT signature: "},
		{"the key as a secret", signed, &Verification{Key: public, Algorithm: "HS256"}, "is refused: failed to verify JWT signature: "},
		{"another scope", signed, &Verification{Key: public, Algorithm: "ES256", Scope: "write"}, "is refused: scope mismatch"},
		{"a policy changed", changed("/acme/shop.rego", "package acme.shop\nallow := true"), verified, "is refused: acme/shop.rego: digest mismatch"},
		{"data changed", changed("/data.json", `{"acme": {"roles": {"eve": "seller"}}}`), verified, "is refused: data.json: digest mismatch"},
		{"the manifest changed", changed("/.manifest", `{"revision": "8", "roots": [""]}`), verified, "is refused: .manifest: digest mismatch"},
		{"a file too many", with(file("/acme/more.rego", "package acme.more")), verified, "is refused: file acme/more.rego not included in bundle signature"},
		{"a file too few", repacked(t, signed, func(n, text string) *tarEntry {
			if e := file(n, text); n != "/data.json" {
				return &e
			}
			return nil
		}), verified, "is refused: file(s) [data.json] specified in bundle signatures but not found in the target bundle"},
		{"no signature in the signatures", changed("/.signatures.json", `{"signatures": []}`), verified, "is refused: .signatures.json: missing JWT (expected exactly one)"},
		{"a plugin of its own", changed("/.signatures.json", `{"signatures": ["x"], "plugin": "mine"}`), verified, "is refused: no verifier exists under id mine"},
		{"an empty signature file", changed("/.signatures.json", `{}`), verified, "is not signed, and signing is configured: build it with opa build --signing-key"},

		{"no archive", []byte("<html>"), nil, "is no gzipped archive: "},
		{"nothing", nil, nil, "is no gzipped archive: EOF"},
		{"cut", unsigned[:len(unsigned)/2], nil, "is no whole archive: unexpected EOF"},
		{"cut by its last byte", unsigned[:len(unsigned)-1], nil, "is no whole archive: unexpected EOF"},
		{"one bit differs", flipped(unsigned), nil, "is no whole archive: "},
		{"a large file", packed(t, tarEntry{tar.Header{Name: "data.json", Size: maxBundled + 1}, ""}), nil, "holds data.json with 33554433 bytes; a file may have 33554432"},
		{"a bomb", packed(t, bomb()...), nil, "comes to more than 128 MiB unpacked"},
		{"many files", packed(t, many()...), nil, "holds more than 5000 files"},
		{"up", packed(t, file("../data.json", "{}")), nil, `holds "../data.json", whose name is no plain path`},
		{"up within", packed(t, file("a/../../data.json", "{}")), nil, `holds "a/../../data.json", whose name is no plain path`},
		{"absolute twice", packed(t, file("//etc/data.json", "{}")), nil, `holds "//etc/data.json", whose name is no plain path`},
		{"a backslash", packed(t, file(`a\data.json`, "{}")), nil, `holds "a\\data.json", whose name is no plain path`},
		{"a hidden directory", packed(t, file(`/.a/data.json`, "{}")), nil, `holds "/.a/data.json", which is in a hidden directory`},
		{"a link", packed(t, tarEntry{tar.Header{Name: "data.json", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}, ""}), nil, `holds "data.json", which is no plain file`},
		{"twice", packed(t, file("/data.json", "{}"), file("./data.json", "{}")), nil, "holds data.json twice"},

		{"Rego v0", builtBundle(t, version(0), nil, map[string]string{"/p.rego": "package p\nallow { true }"}, ""), nil,
			"its manifest says rego_version 0, and policies are Rego v1: rewrite them with opa fmt --v0-v1 and build it again"},
		{"Rego v0 in part", builtBundle(t, mixed, nil, map[string]string{"/p.rego": "package p\nallow := true"}, ""), nil,
			"its manifest says rego_version 0, and policies are Rego v1: rewrite them with opa fmt --v0-v1 and build it again"},
		{"wasm", packed(t, file("/policy.wasm", "x")), nil, "holds policy.wasm: compiled policies cannot be used; build it with opa build -t rego"},
		{"a plan", packed(t, file("/plan.json", "{}")), nil, "holds plan.json: compiled policies cannot be used; build it with opa build -t rego"},
		{"a delta", packed(t, file("/patch.json", `{"data": []}`)), nil, "holds patch.json: a delta cannot be used; serve whole bundles"},
		{"no manifest", packed(t, file("/.manifest", `[]`)), nil, "its .manifest is no manifest: json: cannot unmarshal array into Go value of type bundle.Manifest"},
		{"outside of its roots", builtBundle(t, roots("other"), nil, acme, ""), nil, "is refused: manifest roots [other] do not permit 'package acme.shop"},
		{"data outside of its roots", builtBundle(t, roots("acme/shop", "acme/shop_test"), acmeData(), acme, ""), nil, "is refused: manifest roots [acme/shop acme/shop_test] do not permit data at path '/acme/roles"},
		{"a policy that does not parse", builtBundle(t, roots(""), nil, map[string]string{"/p.rego": "package p\nallow if"}, ""), nil, "bundle:acme/p.rego:2:8: unexpected eof token"},
		{"a name twice in data", packed(t, file("/data.json", `{"a": 1, "a": 2}`)), nil, `bundle:acme/data.json:1:10: duplicate name "a"; remove one of them`},
		{"a value of YAML that is not clear", packed(t, file("/a/data.yaml", `a: no`)), nil, `bundle:acme/a/data.yaml:1:4: no is not the same in every version of YAML; put it in quotes, or write true, false or a decimal number`},
	} {
		b, err := ReadBundle("acme", row.archive, row.v)
		if got := errorText(err); !strings.HasPrefix(got, row.want) || row.want == "" && got != "" {
			t.Errorf("%s\ngot  %s\nwant %s", row.name, got, row.want)
		}
		if err != nil && b != nil {
			t.Errorf("%s: there is a bundle beside the error", row.name)
		}
	}
}

func flipped(archive []byte) []byte {
	b := bytes.Clone(archive)
	b[len(b)-20] ^= 1
	return b
}

func bomb() (entries []tarEntry) {
	for i := range 5 {
		entries = append(entries, tarEntry{tar.Header{Name: fmt.Sprintf("%d/data.json", i), Size: maxBundled}, ""})
	}
	return entries
}

func many() (entries []tarEntry) {
	for i := range maxEntries + 1 {
		entries = append(entries, file(fmt.Sprintf("%d/data.json", i), "1"))
	}
	return entries
}

// TestWhatBundlesMayNotShare has bundles and files, and every problem of having them together.
func TestWhatBundlesMayNotShare(t *testing.T) {
	read := func(name string, m bundle.Manifest, data map[string]any, modules map[string]string) *Bundle {
		b, err := ReadBundle(name, builtBundle(t, m, data, modules, ""), nil)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	shop := read("acme", roots("acme"), acmeData(), acme)
	everything := read("all", roots(""), map[string]any{"x": 1}, map[string]string{"/x.rego": "package y\nallow := true"})
	for _, row := range []struct {
		bundles []*Bundle
		files   map[string]string
		want    string
	}{
		{[]*Bundle{shop}, map[string]string{"p.rego": "package p\nallow if data.acme.roles.x", "x/data.json": "{}"}, `p.rego:2:10: there is no data.acme.roles.x`},
		{[]*Bundle{shop, read("other", roots("acme/shop/x"), nil, nil)}, nil, `bundle:other:0:0: has the root "acme/shop/x", which overlaps with one of the bundle acme; give their manifests roots apart`},
		{[]*Bundle{shop, everything}, nil, `bundle:all:0:0: has the root "", which overlaps with one of the bundle acme; give their manifests roots apart`},
		{[]*Bundle{shop}, map[string]string{"p.rego": "package acme.shop\ndeny contains \"x\""},
			`p.rego:2:1: the rule data.acme.shop.deny is where the bundle acme has the root "acme"; give its manifest other roots, or move the rule`},
		{[]*Bundle{everything}, map[string]string{"p.rego": "package p\nallow := true"},
			`p.rego:2:1: the rule data.p.allow is where the bundle all has the root ""; give its manifest other roots, or move the rule`},
		{[]*Bundle{shop}, map[string]string{"acme/data.json": `{"more": 1}`},
			`acme/data.json:1:1: gives data where the bundle acme has the root "acme"; give its manifest other roots, or move the data`},
		{[]*Bundle{shop}, map[string]string{"data.json": `{"acme": {"more": 1}}`},
			`data.json:1:2: gives data where the bundle acme has the root "acme"; give its manifest other roots, or move the data`},
		{[]*Bundle{everything}, map[string]string{"z/data.json": `1`},
			`z/data.json:1:1: gives data where the bundle all has the root ""; give its manifest other roots, or move the data`},
		{[]*Bundle{everything}, map[string]string{"data.json": `{}`}, ``},
		{[]*Bundle{read("lib", roots("doorward"), nil, map[string]string{"/x.rego": "package doorward.user\nin_group(x) := true"})}, nil,
			`bundle:lib/x.rego:1:1: package doorward.user is below data.doorward, which is the library's; choose another name`},
		{[]*Bundle{read("lib", roots("doorward"), map[string]any{"doorward": map[string]any{"x": 1}}, nil)}, nil, `bundle:lib:0:0: data.doorward is the library's; choose another name`},

		// Policies in bundles are held to all that policies are held to.
		{[]*Bundle{read("net", roots("net"), nil, map[string]string{"/x.rego": "package net\nallow if http.send({\"url\": \"x\"}).status == 200"})}, nil,
			`bundle:net/x.rego:2:10: http.send is not available to policies: ` + forbidden["http.send"]},
		{[]*Bundle{read("typo", roots("typo"), nil, map[string]string{"/x.rego": "package typo\nallow if input.user.emial == \"x\""})}, nil,
			`bundle:typo/x.rego:2:10: there is no input.user.emial; did you mean input.user.email?`},
		{[]*Bundle{read("type", roots("t"), nil, map[string]string{"/x.rego": "package t\nallow := 1"})}, nil, `bundle:type/x.rego:2:1: allow must be a boolean, not a number`},
	} {
		dir := write(t, row.files)
		_, err := Load(t.Context(), Config{Paths: []string{dir}, Bundles: row.bundles})
		var problems config.Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatal(err)
		}
		if got := strings.ReplaceAll(report(problems), dir+"/", ""); got != row.want {
			t.Errorf("%v\ngot  %s\nwant %s", row.files, got, row.want)
		}
	}
}

// TestWhileABundleIsWaitedFor loads what does not need it, and nothing else decides.
func TestWhileABundleIsWaitedFor(t *testing.T) {
	dir := write(t, map[string]string{
		"alone.rego":     "package alone\nallow := true",
		"data.rego":      "package needs_data\nallow if data.acme.roles[input.user.id]",
		"function.rego":  "package needs_function\nallow if data.acme.f(input.user.id)",
		"import.rego":    "package needs_import\nimport data.acme.lib\nallow if lib.x",
		"through.rego":   "package through\nallow if data.needs_data.allow",
		"elsewhere.rego": "package elsewhere\nallow if data.alone.allow",
	})
	s, err := Load(t.Context(), Config{Paths: []string{dir}, Waiting: []string{"acme"}})
	if err != nil {
		t.Fatal(err)
	}
	for name, waits := range map[string]bool{
		"alone": false, "elsewhere": false, "public": false, "any_authenticated_user": false,
		"needs_data": true, "needs_function": true, "needs_import": true, "through": true, "acme.shop": true,
	} {
		p, err := s.Policy(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := errors.Is(p.Waiting(), ErrWaiting); got != waits {
			t.Errorf("%s waits: %t", name, got)
		}
		if d := p.Decide(t.Context(), alice()); d.Allow == waits || waits != errors.Is(d.Err, ErrWaiting) {
			t.Errorf("%s decides %+v", name, d)
		}
	}
	waiting, err := s.Policy("acme.shop")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ReadBundle("acme", builtBundle(t, roots("acme"), acmeData(), acme, ""), nil)
	if err != nil {
		t.Fatal(err)
	}
	loaded, err := Load(t.Context(), Config{Bundles: []*Bundle{b}})
	if err != nil {
		t.Fatal(err)
	}
	if there, err := loaded.Policy("acme.shop"); err != nil || there.Digest() == waiting.Digest() {
		t.Error("a policy that waits has the digest of the one that decides", err)
	}
	// What is wrong whatever the bundle brings is an error all the same.
	put := write(t, map[string]string{"p.rego": "package p\nallow if input.usr"})
	if _, err := Load(t.Context(), Config{Paths: []string{put}, Waiting: []string{"acme"}}); err == nil {
		t.Error("a misspelt field is taken while a bundle is waited for")
	}
}

func FuzzReadBundle(f *testing.F) {
	private, public := keyPair(f)
	f.Add(builtBundle(f, roots("acme"), acmeData(), acme, private))
	f.Add(builtBundle(f, roots("acme"), acmeData(), acme, ""))
	f.Add(packed(f, file("../data.json", "{}")))
	f.Fuzz(func(t *testing.T, archive []byte) {
		if b, err := ReadBundle("x", archive, nil); (b == nil) == (err == nil) || err != nil && strings.Contains(err.Error(), "cannot be read") {
			t.Errorf("%v %v", b, err)
		}
		if b, err := ReadBundle("x", archive, &Verification{Key: public, Algorithm: "ES256"}); (b == nil) == (err == nil) {
			t.Errorf("%v %v", b, err)
		}
	})
}
