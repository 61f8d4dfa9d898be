package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
)

// generator writes policies that mean nothing and read their input in every way that Rego has.
type generator struct {
	*rand.Rand
	depth int
	funcs int // helper functions f0 ... that may be called
	rules int // helper rules r0 ... that may be referred to
	vars  int
	lost  string // a place of the data that digests leave out; "" for none
	plain bool   // no partial rules: they are being written
}

func (g *generator) pick(list ...string) string { return list[g.IntN(len(list))] }

func (g *generator) word() string { return g.pick(`"a"`, `"b"`, `"GET"`, `"/a"`, `"x-a"`) }

func (g *generator) fresh() string {
	g.vars++
	return fmt.Sprintf("v%d", g.vars)
}

// leaf is an expression for one value.
func (g *generator) leaf() string {
	switch g.IntN(15) {
	case 12:
		return "data." + g.pick("d.text", "d.m.a", "d.m.b", `d.m["x-a"]`, "d.list[0]", "d.list[_]", "q.m.name", fmt.Sprintf("d.m[%s]", g.leafIn()))
	case 13, 14:
		return g.plugin()
	case 0:
		return "input.user." + g.pick("id", "email", "name", "email_verified", "claims.a", "claims.b", "claims")
	case 1:
		return "input.session." + g.pick("id", "expires", "created", "auth_time", "acr", "amr")
	case 2:
		return "input.route." + g.pick("name", "host", "labels.a")
	case 3, 4:
		return `input.request.headers["` + g.pick("x-a", "x-b", "a") + `"]`
	case 5:
		return "input.request.query." + g.pick("a[0]", "b", "c[_]")
	case 6:
		return fmt.Sprintf("object.get(%s, %s, %s)", g.document(), g.pick(`"name"`, `"host"`, `"principal"`, `["headers", "x-a"]`, `["claims", "a"]`, `["address", "socketAddress", "address"]`, g.leafIn()), g.word())
	case 7:
		return fmt.Sprintf("lower(sprintf(%q, [%s]))", "%v", g.leafOrWord())
	case 8:
		if g.rules > 0 {
			return fmt.Sprintf("r%d", g.IntN(g.rules))
		}
	case 9:
		if g.funcs > 0 {
			return fmt.Sprintf("f%d(%s)", g.IntN(g.funcs), g.argument())
		}
	}
	return "input.request." + g.pick("method", "path", "host", "scheme", "client_ip")
}

// plugin is a part of what OPA's Envoy plugin gives, and of what comes with it.
func (g *generator) plugin() string {
	return g.pick(
		"input.attributes.request.http.method", "input.attributes.request.http.path", "input.attributes.request.http.host",
		"input.attributes.request.http.scheme", "input.attributes.request.http.protocol", "input.attributes.request.http.size",
		"input.attributes.request.http.body", `input.attributes.request.http.headers["x-a"]`, `input.attributes.request.http.headers[":path"]`,
		"input.attributes.source.principal", "input.attributes.source.labels.a", "input.attributes.source.address.socketAddress.address",
		"input.attributes.source.address.socketAddress.portValue", "input.attributes.destination.address.socketAddress.address",
		"input.attributes.contextExtensions.a", "input.attributes.tlsSession.sni", "input.attributes.metadataContext.filterMetadata.a",
		"input.parsed_path[0]", "input.parsed_path[_]", "input.parsed_query.a[0]", "input.parsed_query.c[_]", "input.parsed_body.a",
		"input.parsed_body", "input.truncated_body", "input.source_principal", "input.version.ext_authz",
		"input.client_certificate.subject", "input.client_certificate.serial",
	)
}

// pluginDocument is a document of what OPA's Envoy plugin gives.
func (g *generator) pluginDocument() string {
	return g.pick("input.attributes", "input.attributes.request.http", "input.attributes.request.http.headers", "input.attributes.source",
		"input.attributes.source.address.socketAddress", "input.attributes.destination", "input.attributes.tlsSession", "input.client_certificate")
}

func (g *generator) leafOrWord() string {
	if g.IntN(2) == 0 || g.depth > 3 {
		return g.word()
	}
	g.depth++
	defer func() { g.depth-- }()
	return g.leaf()
}

// leafIn is a reference that can be written within another one.
func (g *generator) leafIn() string {
	return g.pick("input.request.method", "input.user.name", "input.request.headers.a", "input.attributes.request.http.method", "input.attributes.source.principal", `"x-a"`)
}

// document is an expression for a document of the input.
func (g *generator) document() string {
	switch g.IntN(11) {
	case 10:
		return g.pick("data.d", "data.d.m", "data.d.m", "data.q.m", "data.d.m.headers")
	case 0:
		return "input"
	case 1:
		if g.rules > 0 {
			return fmt.Sprintf("d%d", g.IntN(g.rules))
		}
	case 2:
		if g.rules > 0 && !g.plain {
			return g.pick("data.q.d", "data.q.e", "data.q")
		}
	case 4:
		return g.pluginDocument()
	case 3:
		return fmt.Sprintf("object.get(input, %q, %s)", g.pick("user", "request", "attributes", "none"), g.pick("input.route", "input.request", "{}"))
	}
	return g.pick("input.user", "input.user.claims", "input.session", "input.request", "input.request", "input.request.headers", "input.route")
}

func (g *generator) argument() string {
	if g.IntN(3) == 0 {
		return g.leafOrWord()
	}
	return g.document()
}

// part is a lookup in a document that a variable holds.
func (g *generator) part(of string) string {
	switch g.IntN(6) {
	case 0:
		return fmt.Sprintf("%s[%s]", of, g.leafIn())
	case 1:
		return of + "[_]"
	case 2:
		return fmt.Sprintf("%s.%s", of, g.pick("headers.a", `headers["x-b"]`, "request.method", "user.name", "claims.a", `request.headers["x-a"]`, "source.principal", "socketAddress.address",
			`http.headers["x-a"]`, "attributes.source.principal", "attributes.request.http.method", "client_certificate.subject"))
	}
	return of + "." + g.pick("name", "method", "path", "host", "a", "b", "acr", "email", "labels.a", "principal", "address", "sni", "subject")
}

// condition is the lines of a rule's body.
func (g *generator) condition() string {
	g.depth++
	defer func() { g.depth-- }()
	if g.depth > 4 {
		return g.leaf() + " == " + g.word()
	}
	v, w := g.fresh(), g.fresh()
	choice := g.IntN(32)
	if g.plain && slices.Contains([]int{13, 14, 20, 24, 25, 26, 29}, choice) {
		choice = 0
	}
	switch choice {
	case 0:
		return "not " + g.leaf() + " == " + g.word()
	case 1:
		return fmt.Sprintf("%s := %s\n\t%s == %s", v, g.document(), g.part(v), g.word())
	case 2:
		return fmt.Sprintf("%s := %s\n\t%s := %s\n\t%s == %s", v, g.document(), w, g.part(v), w, g.leafOrWord())
	case 3:
		return fmt.Sprintf("some %s, %s in %s\n\t%s == %s\n\tis_string(%s)", v, w, g.document(), w, g.leafOrWord(), v)
	case 4:
		return fmt.Sprintf("count([%s | some %s in %s; %s != %s]) > %d", v, v, g.pick("input.user.groups", g.document()), v, g.word(), g.IntN(3))
	case 5:
		return fmt.Sprintf("every %s in %s { %s != %s }", v, g.pick("input.user.groups", "input.request.headers", "input.session.amr"), v, g.leafOrWord())
	case 6:
		return fmt.Sprintf("walk(%s, [%s, %s])\n\t%s == %s\n\tcount(%s) > 0", g.document(), v, w, w, g.word(), v)
	case 7:
		return fmt.Sprintf("%s == %s with %s as %s", g.leaf(), g.word(), g.pick("input.user.name", "input.request.method", `input.request.headers["x-a"]`, "data.d.text", "data.d.m.a"), g.leafOrWord())
	case 8:
		return fmt.Sprintf("%s == %s with %s as %s", g.leaf(), g.word(), g.pick("input", "input.request", "input.user", "data.d.m", "data.d"), g.document())
	case 9:
		return g.word() + " in " + g.pick("input.user.groups", "input.session.amr", g.document())
	case 10:
		return fmt.Sprintf("%s := {%s: %s | some %s, %s in %s}\n\t%s[%s]", v, w+"1", w+"2", w+"1", w+"2", g.document(), v, g.leafIn())
	case 11:
		return fmt.Sprintf("[%s, %s] = [%s, %s]\n\t%s == %s", v, w, g.document(), g.leaf(), v+".name", w)
	case 12:
		return fmt.Sprintf("%s = %s\n\t%s == %s", v, g.document(), v, g.document())
	case 13:
		return fmt.Sprintf("s[%s]", g.leafIn())
	case 14:
		return fmt.Sprintf("o[%s] == %s", g.pick(g.leafIn(), g.fresh()), g.leafOrWord())
	case 15:
		return fmt.Sprintf("startswith(%s, %s)", g.leaf(), g.word())
	case 16:
		return g.document()
	case 17:
		return fmt.Sprintf("contains(json.marshal(%s), %s)", g.document(), g.word())
	case 18:
		if g.funcs > 0 {
			return fmt.Sprintf("f%d(%s) with f%d as g", g.IntN(g.funcs), g.argument(), g.IntN(g.funcs))
		}
	case 19:
		return g.condition() + "\n\t" + g.condition()
	case 20:
		return fmt.Sprintf("%s := %s\n\ts[%s]", v, g.document(), v)
	case 21:
		return fmt.Sprintf("contains(json.marshal([%s | %s := %s]), %s)", v, v, g.document(), g.word())
	case 22:
		return fmt.Sprintf("contains(json.marshal({\"k\": %s | %s := %s}), %s)", v, v, g.document(), g.word())
	case 23:
		if g.funcs > 0 {
			return fmt.Sprintf("f%d(%s) == %s", g.IntN(g.funcs), g.argument(), g.document())
		}
	case 24:
		return fmt.Sprintf("some %s\n\th[%s].x == %s\n\t%s == %s", v, v, g.word(), g.part(v), g.word())
	case 25:
		return fmt.Sprintf("data.q[%s] == %s", g.leafIn(), g.leafOrWord())
	case 27:
		return fmt.Sprintf("every %s in [%s] { %s == %s }", v, g.document(), v, g.document())
	case 28:
		return fmt.Sprintf("walk([%s], [_, %s])\n\t%s == %s", g.document(), v, v, g.document())
	case 29:
		return fmt.Sprintf("some %s\n\ts[%s]\n\t%s == %s", v, v, v, g.document())
	case 30:
		return fmt.Sprintf("some %s\n\t[%s, 1] = [%s, 1]\n\t%s == %s", v, v, g.document(), v, g.document())
	case 31:
		return fmt.Sprintf("some %s in [%s]\n\t%s == %s", v, g.document(), v, g.document())
	case 26:
		return fmt.Sprintf("%s := data.q[%s]\n\t%s == %s", v, g.pick("_", g.leafIn()), g.part(v), g.word())
	}
	return g.leaf() + " == " + g.leafOrWord()
}

// data is the data documents: a tree of their own, and one beside the rules of the package q.
func (g *generator) data() map[string]any {
	m := func() map[string]any {
		m := map[string]any{"name": g.value(), "method": g.value(), "headers": map[string]any{"x-a": g.value(), "a": g.value()}}
		for _, name := range []string{"a", "b", "x-a", "GET"} {
			if g.IntN(2) == 0 {
				m[name] = g.value()
			}
		}
		return m
	}
	return map[string]any{
		"d": map[string]any{"text": g.value(), "m": m(), "list": []any{g.value(), g.value()}},
		"q": map[string]any{"m": m()},
	}
}

// changeData returns the data with one thing changed.
func (g *generator) changeData(data map[string]any) map[string]any {
	n := maps.Clone(data)
	top := g.pick("d", "d", "q")
	part := maps.Clone(n[top].(map[string]any))
	m := maps.Clone(part["m"].(map[string]any))
	n[top], part["m"] = part, m
	name := g.pick("a", "b", "x-a", "GET", "name", "method", "headers", "text", "list")
	switch {
	case name == "headers":
		m[name] = map[string]any{"x-a": g.value()}
	case name == "text" && top == "d":
		part[name] = g.value()
	case name == "list" && top == "d":
		part[name] = []any{g.value()}
	case m[name] != nil && g.IntN(3) == 0:
		delete(m, name)
	default:
		m[name] = g.value()
	}
	return n
}

// policy is a whole package "p".
func (g *generator) policy() string {
	var b strings.Builder
	b.WriteString("package p\n\nimport input.request as req\nimport input.request.headers as hdr\n\n")
	fmt.Fprintf(&b, "g(x) := %s\n\n", g.pick("x.name", "x.headers.a", "x.method", "x.principal", `"a"`))
	g.sets(&b)
	for range 1 + g.IntN(4) {
		g.function(&b)
		g.rule(&b)
	}
	fmt.Fprintf(&b, "default allow := %s\n\n", g.pick("false", "false", "true"))
	for range 1 + g.IntN(2) {
		fmt.Fprintf(&b, "allow if {\n\t%s\n}\n\n", g.condition())
	}
	if g.IntN(2) == 0 {
		fmt.Fprintf(&b, "deny contains %s if {\n\t%s\n}\n\n", g.pick(`"no"`, "sprintf(\"%v\", ["+g.leaf()+"])"), g.condition())
	}
	if g.IntN(2) == 0 {
		fmt.Fprintf(&b, "claims := %s\n\n", g.pick(fmt.Sprintf("{\"c\": %s, \"d\": %s}", g.leaf(), g.leafOrWord()), "d0", "input.user.claims", g.document()))
	}
	if g.IntN(3) == 0 {
		fmt.Fprintf(&b, "headers[%q] := sprintf(\"%%v\", [%s])\n\n", "x-out", g.pick(g.leaf(), "req.method", `hdr["x-b"]`))
	}
	return b.String()
}

// other is a whole package "q" beside it.
func (g *generator) other() string {
	g.plain, g.funcs, g.rules = true, 0, 0
	return fmt.Sprintf("package q\n\nd := %s\n\ne := %s\n\na := %s\n", g.document(), g.document(), g.leaf())
}

// sets writes partial rules: a set, and an object whose names are dynamic.
func (g *generator) sets(b *strings.Builder) {
	g.plain = true
	defer func() { g.plain = false }()
	fmt.Fprintf(b, "s contains %s if {\n\t%s\n}\n\n", g.pick(g.leaf(), g.document()), g.condition())
	fmt.Fprintf(b, "h[k].x := %s if {\n\tk := %s\n}\n\n", g.leafOrWord(), g.pick(g.leaf(), g.document()))
	v := g.fresh()
	fmt.Fprintf(b, "o[%s] := %s if {\n\tsome %s in [%s, %s]\n}\n\n", v, g.leafOrWord(), v, g.leafIn(), g.word())
}

// function writes f0, f1, ...: a lookup in the argument, a pattern, a call passed on, or an else branch.
func (g *generator) function(b *strings.Builder) {
	n := g.funcs
	switch g.IntN(7) {
	case 0:
		fmt.Fprintf(b, "f%d(x) := %s\n\n", n, g.part("x"))
	case 1:
		fmt.Fprintf(b, "f%d({%s: x}) := x\n\nf%d(x) := x.method\n\n", n, g.pick(`"name"`, `"a"`, `"x-a"`), n)
	case 2:
		fmt.Fprintf(b, "f%d(x) := y if {\n\ty := %s\n} else := %s\n\n", n, g.part("x"), g.part("x"))
	case 3:
		fmt.Fprintf(b, "f%d(x) := x\n\n", n)
	case 4:
		fmt.Fprintf(b, "f%d(x) := y if {\n\tx == %s\n\ty := %s\n}\n\n", n, g.document(), g.leaf())
	case 5:
		fmt.Fprintf(b, "f%d(x) := %s.name\n\n", n, g.pick("{\"name\": x}", "[x][0]", "x"))
	default:
		if n == 0 {
			fmt.Fprintf(b, "f%d(x) if {\n\t%s == %s\n}\n\n", n, g.part("x"), g.word())
			break
		}
		fmt.Fprintf(b, "f%d(x) := f%d(%s)\n\n", n, g.IntN(n), g.pick("x", "x.request", "x.headers", "[x]", "{\"name\": x}"))
	}
	g.funcs++
}

// rule writes a rule of one value, r0, r1, ..., and one whose value is a document, d0, d1, ...
func (g *generator) rule(b *strings.Builder) {
	n := g.rules
	if g.IntN(2) == 0 {
		fmt.Fprintf(b, "r%d := %s if {\n\t%s\n} else := %s\n\n", n, g.leaf(), g.condition(), g.leafOrWord())
	} else {
		fmt.Fprintf(b, "default r%d := %s\n\nr%d := %s if {\n\t%s\n}\n\n", n, g.word(), n, g.leaf(), g.condition())
	}
	switch g.IntN(4) {
	case 0:
		fmt.Fprintf(b, "d%d := %s if {\n\t%s\n}\n\nd%d := %s if {\n\t%s\n}\n\n", n, g.document(), g.condition(), n, g.document(), g.condition())
	case 1:
		fmt.Fprintf(b, "d%d := %s if {\n\t%s\n} else := %s\n\n", n, g.document(), g.condition(), g.document())
	default:
		fmt.Fprintf(b, "d%d := %s\n\n", n, g.document())
	}
	g.rules++
}
