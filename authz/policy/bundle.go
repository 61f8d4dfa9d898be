package policy

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/bundle"

	"doorward/authz/config"
)

// Bundle is what an OPA bundle holds, verified and parsed, but not compiled. It is immutable.
type Bundle struct {
	name     string
	revision string
	sum      string
	roots    []string
	sources  []source
	data     map[string]any
	values   int
}

// Name is the one that ReadBundle was given.
func (b *Bundle) Name() string { return b.name }

// Revision is what the bundle's manifest says; "" when it says nothing.
func (b *Bundle) Revision() string { return b.revision }

// Sum is the SHA-256 of the archive, in hexadecimal digits.
func (b *Bundle) Sum() string { return b.sum }

// Verification says how a bundle is verified.
type Verification struct {
	Key       []byte // PEM, or the secret for HS256, HS384 and HS512
	Algorithm string // RS256, ES256, ... (RFC 7518, section 3.1)
	Scope     string
}

// verifyingKey is what the only key is called among the keys of OPA's reader. The key id in a signature is not looked at.
const verifyingKey = "key"

// ReadBundle reads a bundle, a gzipped tar archive as opa build makes it. With a Verification it must be signed, every file must be in the
// signature, and every file of the signature must be there; without one it must not be signed. Refused are bundles of Rego v0, compiled ones
// and deltas. An error says what is wrong, without the bundle's name.
func ReadBundle(name string, archive []byte, v *Verification) (b *Bundle, err error) {
	defer func() {
		if r := recover(); r != nil {
			b, err = nil, fmt.Errorf("cannot be read: %v", r)
		}
	}()
	entries, err := unpack(archive)
	if err != nil {
		return nil, err
	}
	if err := supported(entries); err != nil {
		return nil, err
	}
	reader := bundle.NewCustomReader(&bundledLoader{entries}).
		WithCapabilities(capabilities()).
		WithRegoVersion(ast.RegoV1).
		WithProcessAnnotations(true).
		WithSizeLimitBytes(maxBundled).
		WithLazyLoadingMode(false)
	if v != nil {
		key := &bundle.KeyConfig{Key: string(v.Key), Algorithm: v.Algorithm}
		reader.WithBundleVerificationConfig(bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{verifyingKey: key}, verifyingKey, v.Scope, nil))
	}
	read, err := reader.Read()
	if err != nil {
		return nil, readFault(name, err, v)
	}
	if err := rego1(&read.Manifest); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(archive)
	b = &Bundle{name: name, revision: read.Manifest.Revision, sum: hex.EncodeToString(sum[:]), roots: *read.Manifest.Roots, data: read.Data}
	if err := b.take(entries); err != nil {
		return nil, err
	}
	return b, nil
}

// take keeps the policies, and checks the data documents as those beside the policies are. Their values are those that OPA has verified.
func (b *Bundle) take(entries []bundled) error {
	for _, e := range entries {
		file := bundleFile(b.name, e.path)
		switch {
		case config.IsPolicy(e.path) && len(e.data) > maxSource:
			return fmt.Errorf("holds %s with %d bytes; a policy file may have %d", e.path, len(e.data), maxSource)
		case config.IsPolicy(e.path):
			b.sources = append(b.sources, source{file: file, text: string(e.data), bundle: b.name})
		case config.IsData(e.path):
			if limit := config.MaxSize(e.path); len(e.data) > limit {
				return fmt.Errorf("holds %s with %d bytes; it may have %d", e.path, len(e.data), limit)
			}
			_, n, err := config.ParseData(file, e.data, config.MaxDataValues-b.values)
			if err != nil {
				return err
			}
			b.values += n
		}
	}
	return nil
}

// bundleFile is how a file of a bundle is named in errors.
func bundleFile(bundle, path string) string {
	return "bundle:" + bundle + "/" + strings.TrimPrefix(path, "/")
}

// supported refuses what no policy of ours can be in, before OPA's reader looks at it.
func supported(entries []bundled) error {
	for _, e := range entries {
		switch path.Base(e.path) {
		case bundle.WasmFile, bundle.PlanFile, bundle.PlanProtoFile:
			return fmt.Errorf("holds %s: compiled policies cannot be used; build it with opa build -t rego", e.path)
		case "patch.json":
			return fmt.Errorf("holds %s: a delta cannot be used; serve whole bundles", e.path)
		case bundle.ManifestExt:
			var m bundle.Manifest
			if err := json.NewDecoder(bytes.NewReader(e.data)).Decode(&m); err != nil {
				return fmt.Errorf("its %s is no manifest: %w", e.path, err)
			}
			if err := rego1(&m); err != nil {
				return err
			}
		}
	}
	return nil
}

// rego1 refuses another version of the language.
func rego1(m *bundle.Manifest) error {
	versions := []int{1}
	if m.RegoVersion != nil {
		versions = append(versions, *m.RegoVersion)
	}
	for _, v := range m.FileRegoVersions {
		versions = append(versions, v)
	}
	for _, v := range versions {
		if v != 1 {
			return fmt.Errorf("its manifest says rego_version %d, and policies are Rego v1: rewrite them with opa fmt --v0-v1 and build it again", v)
		}
	}
	return nil
}

// readFault says what to do about what OPA's reader found.
func readFault(name string, err error, v *Verification) error {
	var faults ast.Errors
	switch text := err.Error(); {
	case errors.As(err, &faults):
		problems := problemsOf("", faults, nil)
		for i := range problems {
			problems[i].File = bundleFile(name, problems[i].File)
		}
		return sorted(problems)
	case v == nil && text == "verification key not provided":
		return errors.New("is signed, and there is no key to verify it with: set signing.key_file, or serve it unsigned")
	case v != nil && strings.HasPrefix(text, "bundle missing"):
		return errors.New("is not signed, and signing is configured: build it with opa build --signing-key")
	default:
		return fmt.Errorf("is refused: %w", err)
	}
}

// join adds bundles to what was read beside them. What a bundle owns, its roots, is in no other bundle and in no file beside them.
func (r *reader) join(bundles []*Bundle) {
	for i, b := range bundles {
		for _, other := range bundles[:i] {
			if root, both := overlapping(b.roots, other.roots); both {
				r.problem("bundle:"+b.name, "has the root %q, which overlaps with one of the bundle %s; give their manifests roots apart", root, other.name)
			}
		}
		for _, root := range b.roots {
			if at, held := r.documents.inside(rootPath(root)); held {
				message := fmt.Sprintf("gives data where the bundle %s has the root %q; give its manifest other roots, or move the data", b.name, root)
				r.problems = append(r.problems, config.Problem{Position: at, Message: message})
			}
		}
	}
	for _, b := range bundles {
		r.sources = append(r.sources, b.sources...)
		if b.values > r.documents.left {
			r.problem("bundle:"+b.name, "the data documents come to more than %d values; keep less in them", config.MaxDataValues)
			continue
		}
		r.documents.left -= b.values
		r.problems = append(r.problems, r.documents.merge(dataFile{name: "bundle:" + b.name, value: b.data})...)
	}
}

// overlapping finds a root that contains one of the others, or is in one.
func overlapping(roots, others []string) (string, bool) {
	for _, root := range roots {
		if slices.ContainsFunc(others, func(other string) bool { return bundle.RootPathsOverlap(root, other) }) {
			return root, true
		}
	}
	return "", false
}

// rootPath is a root as a path of data.
func rootPath(root string) []string {
	if root == "" {
		return nil
	}
	return strings.Split(root, "/")
}

// checkRoots finds rules of files beside the bundles where a bundle's roots are.
func checkRoots(modules map[string]*ast.Module, sources []source, bundles []*Bundle) (problems config.Problems) {
	for _, s := range sources {
		m := modules[s.file]
		if s.bundle != "" || s.library || m == nil {
			continue
		}
		for _, rule := range m.Rules {
			place := constant(rule.Ref())
			for _, b := range bundles {
				if root, both := overlapping(b.roots, []string{strings.Join(segments(place), "/")}); both {
					problems = append(problems, config.Problem{
						Position: position(rule.Location),
						Message:  fmt.Sprintf("the rule %s is where the bundle %s has the root %q; give its manifest other roots, or move the rule", place, b.name, root),
					})
					break
				}
			}
		}
	}
	return problems
}
