package policy

import (
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"
)

// The property: a decision from the cache, over an input of only what the policy is known to read, is the decision that the policy makes on
// the whole input. Policies and requests are generated; the seed of a failure is printed with the policy.

// facts is a request in a form that is easy to change.
type facts struct {
	text    map[string]string // of one-valued parts
	headers map[string]string
	claims  map[string]any
	groups  []string
	amr     []string
	version uint64
	user    bool
}

func (g *generator) value() string { return g.pick("a", "b", "GET", "/a", "x-a", "") }

// texts are the parts of the input that hold one text.
var texts = []string{"id", "email", "name", "acr", "method", "scheme", "host", "path", "query", "ip", "route", "label",
	"principal", "peer label", "peer", "port", "local", "protocol", "size", "body", "extension", "sni", "metadata", "certificate"}

// certificates are two that parse, as Envoy passes them on.
var certificates = sync.OnceValue(func() [2]string {
	var t testing.T
	first, _ := pemCertificate(&t)
	second, _ := pemCertificate(&t)
	return [2]string{first, second}
})

// text is a value for one of the texts. It is valid: a part that cannot be parsed is an error only where it is read.
func (g *generator) text(name string) string {
	switch name {
	case "query":
		return g.pick("", "a=a", "a=b&b=GET", "c=a&c=b")
	case "port", "size":
		return g.pick("1", "2")
	case "body":
		return g.pick("", `{"a": "a"}`, `{"a": "GET"}`, `"a"`)
	case "certificate":
		return g.pick("", "0", "1")
	}
	return g.value()
}

func (g *generator) facts() *facts {
	f := &facts{text: map[string]string{}, headers: map[string]string{}, claims: map[string]any{}, version: 1, user: g.IntN(8) > 0}
	for _, name := range texts {
		f.text[name] = g.text(name)
	}
	if g.IntN(2) == 0 {
		f.headers["x-a"] = g.value()
	}
	if g.IntN(2) == 0 {
		f.claims["a"], f.claims["b"] = g.value(), []any{g.value(), float64(g.IntN(3))}
	}
	f.groups, f.amr = []string{g.value(), g.value()}, []string{g.value()}
	return f
}

// change returns the facts with one thing changed.
func (g *generator) change(f *facts) *facts {
	n := *f
	n.text, n.headers, n.claims = maps.Clone(f.text), maps.Clone(f.headers), maps.Clone(f.claims)
	switch g.IntN(9) {
	case 8:
		name := g.pick(bodyHeaders...)
		n.headers[name] = map[string]string{
			headerContentType:   g.pick("application/json", "application/x-www-form-urlencoded", "text/plain"),
			headerContentLength: g.pick("1", "100"), headerPartial: g.pick("true", "false"),
		}[name]
	case 0:
		name := g.pick("x-a", "x-b", "a", "name", "host")
		if _, ok := n.headers[name]; ok && g.IntN(2) == 0 {
			delete(n.headers, name)
		} else {
			n.headers[name] = g.value()
		}
	case 1:
		n.claims[g.pick("a", "b", "name")] = g.value()
	case 2:
		n.groups = append([]string{g.value()}, n.groups[1:]...)
	case 3:
		n.amr = []string{g.value(), g.value()}[:g.IntN(3)]
	case 4:
		n.text["query"] = g.text("query")
	case 5:
		n.user = !n.user
	default:
		name := texts[g.IntN(len(texts))]
		n.text[name] = g.text(name)
	}
	n.version++ // a session whose user changes has another version
	return &n
}

// input is the facts as Decide takes them.
func (f *facts) input() *Input {
	in := &Input{
		Request: Request{
			Method: f.text["method"], Scheme: f.text["scheme"], Host: f.text["host"], Path: f.text["path"],
			Query: f.text["query"], ClientIP: f.text["ip"],
			Headers: func(name string) (string, bool) { v, ok := f.headers[name]; return v, ok },
			Names:   func() []string { return slices.Sorted(maps.Keys(f.headers)) },
			Target:  f.text["path"] + "?" + f.text["query"], Authority: f.text["host"] + ":443", Attribute: f.attribute,
		},
		Route: Route{
			Name: f.text["route"], Host: f.text["host"], Labels: map[string]string{"a": f.text["label"]},
			Revision: f.text["route"] + f.text["label"],
		},
	}
	if f.user {
		in.User = &User{ID: f.text["id"], Email: f.text["email"], Name: f.text["name"], Groups: f.groups, Claims: f.claims}
		in.Session = &Session{ID: "s", Created: 10, Expires: 20, AMR: f.amr, ACR: f.text["acr"], Version: f.version}
	}
	return in
}

// attribute is a part of Envoy's question. Of what is empty, nothing is there.
func (f *facts) attribute(name string) (map[string]any, error) {
	text := f.text
	parts := map[string]map[string]any{
		"source": {
			"principal": text["principal"], "labels": map[string]any{"a": text["peer label"]}, "certificate": "",
			"address": map[string]any{"socketAddress": map[string]any{"address": text["peer"], "portValue": int64(len(text["port"]) + int(text["port"][0]))}},
		},
		"destination":       {"address": map[string]any{"socketAddress": map[string]any{"address": text["local"]}}},
		"request":           {"http": map[string]any{"id": "1", "protocol": text["protocol"], "size": int64(text["size"][0]), "body": text["body"]}, "time": map[string]any{"seconds": int64(1)}},
		"contextExtensions": {"a": text["extension"]},
		"metadataContext":   {"filterMetadata": map[string]any{"a": text["metadata"]}},
		"tlsSession":        {"sni": text["sni"]},
	}
	if text["certificate"] != "" {
		parts["source"]["certificate"] = certificates()[text["certificate"][0]-'0']
	}
	if text["local"] == "" {
		return nil, nil
	}
	return parts[name], nil
}

// sameSession makes versions follow what they stand for: who has the same user and session has the same version.
type versions map[string]uint64

func (v versions) set(f *facts) {
	key := fmt.Sprint(f.text["id"], "|", f.text["email"], "|", f.text["name"], "|", f.text["acr"], "|", f.groups, f.claims, f.amr)
	if v[key] == 0 {
		v[key] = uint64(len(v) + 1)
	}
	f.version = v[key]
}

// whole is the policy with all of the input built.
func whole(p *Policy) *Policy {
	s := readSet{plugin: len(p.reads.Plugin) > 0}
	s.whole(docInput)
	q := *p
	q.plan = newPlan(&s)
	return &q
}

// compilePolicy returns nil for a policy that does not compile. Input has no type here, so that more of what the generator writes does: what
// is read must be known whatever the types.
// A place of the data that is lost has the same sum whatever is there.
func compilePolicy(t testing.TB, data map[string]any, lost string, texts ...string) *Policy {
	t.Helper()
	var sources []source
	for i, text := range texts {
		sources = append(sources, source{file: fmt.Sprintf("%d.rego", i), text: text})
	}
	all := corpusOf(t, data)
	all.sources = sources
	all.documents.sums[lost] = [sha256.Size]byte{}
	modules, problems := parseAll(sources)
	if len(problems) > 0 {
		t.Fatalf("%+v\n%s", problems, texts)
	}
	c := newCompiler().WithSchemas(nil)
	if c.Compile(modules); c.Failed() {
		return nil
	}
	set, _ := assemble(t.Context(), c, all, 10*time.Second)
	return set.policies["p"]
}

// differs compares decisions; errors only by whether there is one, since they quote what was built.
func differs(a, b Decision) bool {
	if (a.Err == nil) != (b.Err == nil) {
		return true
	}
	a.Err, b.Err = nil, nil
	return !reflect.DeepEqual(a, b)
}

// dataVersions is how many versions of the data documents a generated policy is asked with.
const dataVersions = 3

// policies are one policy compiled with versions of the data, each one change away from the one before. It is nil where it does not compile.
func (g *generator) policies(t testing.TB, texts ...string) (policies []*Policy) {
	data := g.data()
	for range dataVersions {
		p := compilePolicy(t, data, g.lost, texts...)
		if p == nil {
			return nil
		}
		policies = append(policies, p)
		data = g.changeData(data)
	}
	return policies
}

// wholes are the policies with all of the input built.
func wholes(policies []*Policy) (wholes []*Policy) {
	for _, p := range policies {
		wholes = append(wholes, whole(p))
	}
	return wholes
}

// compare asks both for the same requests, each one change away from another, each twice, and with any version of the data.
func (g *generator) compare(t testing.TB, cached, plain []*Policy, requests int) (pairs int, found *Input, got, want Decision) {
	cache, v := NewCache(256, 1<<20), versions{}
	history := []*facts{g.facts()}
	for range requests {
		f := g.change(history[g.IntN(len(history))])
		v.set(f)
		history = append(history, f)
		in := f.input()
		for _, i := range g.Perm(len(plain))[:2] {
			want = plain[i].Decide(t.Context(), in)
			for range 2 {
				pairs++
				if got = cache.Decide(t.Context(), cached[i], in); differs(got, want) {
					return pairs, in, got, want
				}
			}
		}
	}
	return pairs, nil, got, want
}

// effort is how many policies and requests a run takes.
func effort() (policies, requests int) {
	if os.Getenv("DOORWARD_SOAK") == "1" {
		return 1500, 100 // 600,000 pairs
	}
	return 300, 30
}

func TestCachedDecisionsAreTheUncachedOnes(t *testing.T) {
	seed := rand.Uint64()
	policies, requests := effort()
	pairs, compiled, readers := 0, 0, 0
	outcomes := map[string]int{}
	for i := range uint64(policies) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, i))}
		text, other := g.policy(), g.other()
		p := g.policies(t, text, other)
		if p == nil {
			continue
		}
		compiled++
		if p[0].id != p[1].id {
			readers++
		}
		n, in, got, want := g.compare(t, p, wholes(p), requests)
		pairs += n
		outcomes[fmt.Sprintf("allow=%t err=%t", want.Allow, want.Err != nil)]++
		if in != nil {
			t.Fatalf("seed %d, %d: for %+v\nthe cached policy says %+v\nthe uncached one %+v\nreads %+v\n%s\n%s", seed, i, *in, got, want, p[0].reads, text, other)
		}
	}
	t.Logf("seed %d: %d policies, of which a change of the data concerns %d; %d pairs, last decisions %v", seed, compiled, readers, pairs, outcomes)
	if readers == 0 || readers == compiled {
		t.Errorf("a change of the data concerns %d of %d policies", readers, compiled)
	}
	if compiled < policies*2/3 {
		t.Errorf("only %d of %d generated policies compile", compiled, policies)
	}
	if len(outcomes) < 2 {
		t.Errorf("the generated policies do not decide differently: %v", outcomes)
	}
}

// losses are the ways to leave one dependency out of a plan; each says whether there was one.
var losses = map[string]func(*plan) bool{
	"user":        func(p *plan) bool { return lose(&p.user) },
	"claim":       func(p *plan) bool { return lose(&p.claims) },
	"all claims":  func(p *plan) bool { return unset(&p.allClaims) },
	"session":     func(p *plan) bool { return lose(&p.session) },
	"request":     func(p *plan) bool { return lose(&p.request) },
	"query":       func(p *plan) bool { return unset(&p.query) },
	"header":      func(p *plan) bool { return lose(&p.headers) },
	"all headers": func(p *plan) bool { return unset(&p.allHeaders) },
	"route":       func(p *plan) bool { return lose(&p.route) },
	"input part":  func(p *plan) bool { return lose(&p.parts) },
	"attribute":   func(p *plan) bool { return p.loseAttribute(docAttributes) },
	"of http":     func(p *plan) bool { return p.loseAttribute(docHTTP) },
	"of source":   func(p *plan) bool { return p.loseAttribute(docSource) },
	"of a socket": func(p *plan) bool { return p.loseAttribute(docSourceSocket) },
	"a header of the plugin's": func(p *plan) bool {
		return p.attributes != nil && p.forkAttributes() && lose(&p.attributes.headers)
	},
	"all headers of the plugin's": func(p *plan) bool {
		return p.attributes != nil && p.forkAttributes() && unset(&p.attributes.allHeaders)
	},
	"attributes":    func(p *plan) bool { had := p.attributes != nil; p.attributes = nil; return had },
	"document user": func(p *plan) bool { had := p.documents&docUser != 0; p.documents &^= docUser; return had },
}

// losing are the policies with something lost from their plans.
func losing(policies []*Policy, lost func(*plan) bool) (faulty []*Policy, some bool) {
	for _, p := range policies {
		q, plan := *p, *p.plan
		q.plan = &plan
		some = lost(&plan) || some
		faulty = append(faulty, &q)
	}
	return faulty, some
}

// TestLostDataIsNoticed holds the property test too: with one place of the data left out of the digests, it must fail.
func TestLostDataIsNoticed(t *testing.T) {
	seed := rand.Uint64()
	for i := range uint64(3000) {
		g := &generator{Rand: rand.New(rand.NewPCG(seed, i))}
		text, other := g.policy(), g.other()
		p := compilePolicy(t, g.data(), "", text, other)
		if p == nil || len(p.reads.Data) == 0 {
			continue
		}
		g.lost = p.reads.Data[g.IntN(len(p.reads.Data))]
		faulty := g.policies(t, text, other)
		if _, in, _, _ := g.compare(t, faulty, wholes(faulty), 30); in != nil {
			return
		}
	}
	t.Errorf("seed %d: no generated policy notices", seed)
}

// forkAttributes makes the plan of attributes the plan's own.
func (p *plan) forkAttributes() bool {
	fork := *p.attributes
	fork.parts = maps.Clone(fork.parts)
	p.attributes = &fork
	return true
}

func (p *plan) loseAttribute(d document) bool {
	if p.attributes == nil || !p.forkAttributes() {
		return false
	}
	list := p.attributes.parts[d]
	lost := lose(&list)
	p.attributes.parts[d] = list
	return lost
}

func lose[T any](list *[]T) bool {
	if len(*list) == 0 {
		return false
	}
	*list = (*list)[1:]
	return true
}

func unset(b *bool) bool {
	had := *b
	*b = false
	return had
}

// TestALostDependencyIsNoticed holds the property test itself: with any kind of dependency left out, it must fail.
func TestALostDependencyIsNoticed(t *testing.T) {
	seed := rand.Uint64()
	for name, lost := range losses {
		t.Run(name, func(t *testing.T) {
			for i := range uint64(3000) {
				g := &generator{Rand: rand.New(rand.NewPCG(seed, i))}
				text, other := g.policy(), g.other()
				p := g.policies(t, text, other)
				if p == nil {
					continue
				}
				faulty, some := losing(p, lost)
				if !some {
					continue
				}
				if _, in, _, _ := g.compare(t, faulty, wholes(p), 30); in != nil {
					return
				}
			}
			t.Errorf("seed %d: no generated policy notices", seed)
		})
	}
}
